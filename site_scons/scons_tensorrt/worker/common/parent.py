"""The worker's two lifelines to its parent: events out, death in.

Events are JSON lines on what was standard output; standard output itself is turned over
to the log, because native code prints there. The parent's end of standard input is never
written to again: its closing means that the parent is gone.
"""

import fcntl
import json
import os
import select
import signal

_events = -1


def claim_stdout():
    """Keep standard output for events; what anyone prints goes to the log (standard error)."""
    global _events
    _events = os.dup(1)
    os.set_inheritable(_events, False)
    os.dup2(2, 1)


def send(event, **fields):
    """Write one event. A parent that no longer reads ends this process."""
    line = (json.dumps(dict(fields, event=event)) + "\n").encode("utf-8")
    try:
        while line:
            line = line[os.write(_events, line) :]
    except OSError:
        os._exit(3)


def once_more_with_library_path(library_path, error):
    """Start again with the LD_LIBRARY_PATH that the canonical form leaves out, where something
    cannot be loaded without it. Returns where that was tried, or there is none."""
    if library_path and "LD_LIBRARY_PATH" not in os.environ:
        send("again", library_path=library_path, because=str(error))
        os._exit(4)


def die_with_parent():
    """Let the kernel kill this process when standard input closes, even inside native code.

    SIGIO with its default action needs no thread (a thread before the build changes the
    engine's bytes) and does not depend on which thread of the parent spawned us, as
    PR_SET_PDEATHSIG does.
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
