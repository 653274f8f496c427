"""TensorRT's callbacks: its log, its progress, its engine as a stream.

The classes derive from the runtime's own, so they are made when the runtime is known.
"""

import hashlib
import os

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError


def make_logger(trt):
    """A logger that writes to the log and keeps the errors, which the API does not return."""

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, message):
            if severity > trt.ILogger.Severity.INFO:
                return
            os.write(2, ("[%s] %s\n" % (severity.name, message)).encode("utf-8", "replace"))
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Log()


def make_monitor(trt):
    """A progress monitor that sends every phase and step: to send some only, by the clock, would
    move the heap another way in each run."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name, parent_phase, num_steps):
            parent.send("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def phase_finish(self, phase_name):
            parent.send("phase_done", name=phase_name)

        def step_complete(self, phase_name, step):
            parent.send("step", name=phase_name, step=step)
            return True

    return Monitor()


class EngineFile:
    """The engine on its way to disk: hashed while it is written, one pass, no second copy.

    TensorRT takes no notice of a failed write, so the error is kept here.
    """

    def __init__(self, path):
        self.error = None
        self.size = 0
        self._digest = hashlib.sha256()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise WorkerError("PublishError", "%s: %s" % (path, error.strerror)) from None

    def write(self, data):
        """Write all of `data`; returns its length, or 0 after an error."""
        if self.error:
            return 0
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += os.write(self._file, view[done : done + (64 << 20)])
        except OSError as error:
            self.error = error
            return 0
        self._digest.update(view)
        self.size += done
        return done

    def close(self):
        """The sha256 of what was written."""
        try:
            os.close(self._file)
        except OSError as error:
            self.error = self.error or error
        return self._digest.hexdigest()


def make_stream(trt, engine_file):
    """An IStreamWriter over an EngineFile. (Its `write` takes bytes; the docstring errs.)"""

    class Stream(trt.IStreamWriter):
        def __init__(self):
            trt.IStreamWriter.__init__(self)

        def write(self, data):
            return engine_file.write(data)

    return Stream()
