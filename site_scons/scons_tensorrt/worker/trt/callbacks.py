"""TensorRT's callbacks: logger, progress monitor and stream writer.

Their base classes belong to the runtime, which is known only when it is imported.
"""

from __future__ import annotations

import os

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CUDA_FAILURE = "CUDA initialization failure with error"


def make_logger(trt: Any) -> Any:
    """A logger that writes to the log. errors: the messages of errors, which the API does not return; cuda:
    the number of the CUDA error that TensorRT 8 reports in a warning, 0 for none; listeners: called with
    every message, also those that are not written."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.cuda = 0
            self.listeners: list[Any] = []

        def log(self, severity: Any, message: str) -> None:
            for listener in self.listeners:
                listener(message)
            if severity > trt.ILogger.Severity.INFO:
                return
            os.write(2, ("[%s] %s\n" % (severity.name, message)).encode("utf-8", "replace"))
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)
            elif CUDA_FAILURE in message:
                number = message.partition(CUDA_FAILURE)[2].strip(" :").partition(".")[0]
                self.cuda = int(number) if number.isdigit() else 0

    return Log()


def make_monitor(trt: Any) -> Any:
    """A progress monitor that sends every phase and step. Sending only some, by time, would make the heap
    differ from run to run."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            parent.send("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            parent.send("phase_done", name=phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent.send("step", name=phase_name, step=step)
            return True

    return Monitor()


class EngineFile:
    """The engine file, hashed while it is written. Raises WorkerError (PublishError) if it cannot be created.

    error: of a failed write, which TensorRT would ignore; size: bytes written.
    """

    def __init__(self, path: str) -> None:
        self.error: OSError | None = None
        self.size = 0
        self._digest: Any = None
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise WorkerError("PublishError", "%s: %s" % (path, error.strerror)) from None

    def write(self, data: Any) -> int:
        """Write a buffer; returns its length in bytes, or 0 after an error."""
        if self.error:
            return 0
        view = memoryview(data).cast("B")
        done = 0
        self._begin()
        try:
            while done < len(view):
                done += os.write(self._file, view[done : done + (64 << 20)])
        except OSError as error:
            self.error = error
            return 0
        self._digest.update(view)
        self.size += done
        return done

    def _begin(self) -> None:
        """Import hashlib when the engine has been built: an engine for dynamic shapes depends on where its
        builder's memory lies, and so on the size of a library that is loaded before, such as libcrypto."""
        if self._digest is None:
            import hashlib

            self._digest = hashlib.sha256()

    def close(self) -> str:
        """Close the file; returns its sha256."""
        self._begin()
        try:
            os.close(self._file)
        except OSError as error:
            self.error = self.error or error
        return str(self._digest.hexdigest())


def make_stream(trt: Any, engine_file: EngineFile) -> Any:
    """An IStreamWriter that writes to an EngineFile."""

    class Stream(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            return engine_file.write(data)

    return Stream()
