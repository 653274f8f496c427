"""The worker's two pipes: events to the parent, and standard input, whose end kills the worker.

Events are JSON lines on the original standard output. Standard output itself then goes to the log, because
native code prints there. The parent sends the job and keeps its end of standard input open: when the
pipe closes, the parent has died.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal

TYPE_CHECKING = False  # as `typing` has it, whose import takes time
if TYPE_CHECKING:
    from typing import Any

_events = -1


def claim_stdout() -> None:
    """Keep standard output for events; whatever is printed goes to the log (standard error)."""
    global _events
    _events = os.dup(1)
    os.set_inheritable(_events, False)
    os.dup2(2, 1)


def send(event: str, **fields: Any) -> None:
    """Write one event. Ends this process if the parent no longer reads."""
    line = (json.dumps(dict(fields, event=event)) + "\n").encode("utf-8")
    try:
        while line:
            line = line[os.write(_events, line) :]
    except OSError:
        os._exit(3)


def once_more_with_library_path(library_path: str | None, error: object) -> None:
    """After a library could not be loaded, have the parent start this worker again with the user's
    LD_LIBRARY_PATH, which the canonical environment leaves out. Returns if that was done already, or the
    user has no LD_LIBRARY_PATH."""
    if library_path and "LD_LIBRARY_PATH" not in os.environ:
        send("again", library_path=library_path, because=str(error))
        os._exit(4)


def die_with_parent() -> None:
    """Have the kernel kill this process when standard input closes, even inside native code.

    SIGIO with its default action needs no thread (a thread before the build changes the engine's bytes).
    PR_SET_PDEATHSIG would depend on which thread of the parent started this process.
    """
    for number in (signal.SIGIO, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(0, 0)
    if poll.poll(0):  # it closed before the signal was armed
        os._exit(3)
