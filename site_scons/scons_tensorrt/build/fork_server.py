"""Child processes that are forked from one that has imported what every job imports
(worker/common/fork_server.py): their start costs some milliseconds instead of half a second.

There is one server for all threads of this process. It ends with it, and after 30 seconds without a job.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files.reading import text_of
from .child_programs import COMMON, Program

STARTED = b"started\n"
READY = b"r"
START_SECONDS = 20.0  # for an interpreter to start; after that each job gets a new process
KILL_SECONDS = 10.0  # for a server to end a child
END_SECONDS = 2.0  # for a server to end


class _Server(NamedTuple):
    """made_of: of what another job must be, to be forked from it."""

    process: subprocess.Popen[bytes]
    jobs: socket.socket
    made_of: Any


_lock = threading.Lock()
_server: _Server | None = None
_unable: Any = None  # what the last server that did not start was made of


def start(program: Program, python: str, log: Path, environment: Mapping[str, str]) -> ForkedProcess | None:
    """A child process that runs a program that `imports` something; None if there can be no server. log: for
    its standard error. Raises OSError if the log cannot be opened."""
    made_of = program.imports, python, dict(environment), _current_folder()
    with open(log, "ab") as errors, _lock:
        for _ in range(2):  # the server may have ended since the last job
            if made_of == _unable:
                break
            with contextlib.suppress(OSError):
                return _fork(_running(made_of), errors.fileno())
            _forget()
    return None


def _current_folder() -> str:
    with contextlib.suppress(OSError):
        return os.getcwd()
    return ""


def _running(made_of: Any) -> _Server:
    global _server
    if _server is None or _server.made_of != made_of or _server.process.poll() is not None:
        _forget()
        _server = _start_server(*made_of)
    return _server


def _forget() -> None:
    """Let the server end, when its children have ended."""
    global _server
    if _server is not None:
        _server.jobs.close()
        _server = None


@atexit.register
def _end() -> None:
    """Leave no process behind."""
    server = _server
    _forget()
    if server is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(END_SECONDS)


def _start_server(imports: tuple[str, ...], python: str, environment: dict[str, str], folder: str) -> _Server:
    ours, theirs = socket.socketpair()
    with theirs:
        texts = text_of(f"{COMMON}.fork_server"), str(theirs.fileno()), text_of(f"{COMMON}.boot")
        null = subprocess.DEVNULL
        process = subprocess.Popen(
            [python, "-B", "-c", *texts, *imports],
            stdin=null,
            stdout=null,
            stderr=null,
            env=environment,
            pass_fds=[theirs.fileno()],
        )
    made_of = imports, python, environment, folder
    if not _has_started(ours):  # `python` may be any program
        process.kill()
        process.wait()
        ours.close()
        global _unable
        _unable = made_of
        raise OSError("no server")
    return _Server(process, ours, made_of)


def _has_started(jobs: socket.socket) -> bool:
    jobs.settimeout(START_SECONDS)
    try:
        return jobs.recv(1) == READY
    except OSError:
        return False
    finally:
        jobs.settimeout(None)


def _fork(server: _Server, errors: int) -> ForkedProcess:
    given: list[int] = []
    kept: list[int] = []
    try:
        for which in (0, 1):  # standard input (we keep the writing end), then standard output
            ends = os.pipe()
            given.append(ends[which])
            kept.append(ends[1 - which])
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(server.jobs, [b"j"], [*given, errors, theirs.fileno()])
        return ForkedProcess(kept[0], kept[1], ours)
    except OSError:
        for descriptor in kept:
            os.close(descriptor)
        raise
    finally:
        for descriptor in given:
            os.close(descriptor)


class ForkedProcess:
    """What `child_process.py` uses of a subprocess.Popen, for a child of the server. started: false if the
    server ended before it took the job."""

    def __init__(self, sink: int, source: int, state: socket.socket) -> None:
        self.stdin = open(sink, "wb", buffering=0)  # noqa: SIM115
        self.stdout = open(source, "rb", buffering=0)  # noqa: SIM115
        self.returncode: int | Any = None
        self._state, self._told = state, b""

    @property
    def started(self) -> bool:
        return self._told.startswith(STARTED)

    def poll(self) -> int | None:
        self._read(0.0)
        return self.returncode

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._state.shutdown(socket.SHUT_WR)

    def wait(self) -> int:
        """Returns at once if the child was killed with its server."""
        while self.returncode is None:
            self._read(KILL_SECONDS)
        return self.returncode

    def _read(self, timeout: float) -> None:
        if self.returncode is not None:
            return
        self._state.settimeout(timeout)
        try:
            data = self._state.recv(64)
        except BlockingIOError:
            return
        except OSError:  # a server that does not answer
            data = b""
        self._told += data
        code = self._told[len(STARTED) :]
        if code.endswith(b"\n"):
            self.returncode = int(code)
        elif not data:
            self.returncode = -signal.SIGKILL
        if self.returncode is not None:
            self._state.close()
