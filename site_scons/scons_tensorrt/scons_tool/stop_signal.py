"""Detect a stop signal in any thread, at once.

SCons's handlers only keep it from starting more tasks; it would wait for running compiles. Python's C
handler writes each signal's number to the wakeup descriptor, whichever thread is busy.
"""

from __future__ import annotations

import os
import signal

import SCons.Script.Main

_STOP = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class StopSignal:
    """Callable: True from the first SIGINT, SIGTERM or SIGHUP on."""

    def __init__(self) -> None:
        self._stopped = False
        self._source = -1
        source, sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
        except ValueError:  # not the main thread: SCons is embedded, and its host handles signals
            before = sink
        if before == -1:
            self._source = source
            return
        if before != sink:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        os.close(source)
        os.close(sink)

    def reset(self) -> None:
        """Forget an earlier stop: an interactive session goes on after Ctrl-C."""
        self._stopped = False

    def __call__(self) -> bool:
        if not self._stopped and self._source >= 0:
            try:
                if not _STOP.isdisjoint(os.read(self._source, 4096)):
                    self._stopped = True  # never back: several threads ask
            except BlockingIOError:
                pass
        return self._stopped


def fail_run() -> None:
    """Make SCons exit with status 2, also under -n, when no action fails."""
    SCons.Script.Main.exit_status = SCons.Script.Main.this_build_status = 2
