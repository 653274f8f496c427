"""Runs a program in a child process: sends the job, reads its events, and always ends it.

The child reads its job from standard input. That pipe stays open; when it closes because this process
died, the child is killed (worker/common/parent.py).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineBuildError, EngineError, Interrupted, by_name
from ..files.reading import text_of
from ..worker.trt.job import CompileJob
from .canonical_start import first_stage
from .child_programs import COMMON, COMPILER, Program, compiler_of

if TYPE_CHECKING:
    from .fork_server import ForkedProcess

POLL_SECONDS = 0.1
# A seccomp filter may kill stage 1 of boot.py for these calls.
NOT_CANONICAL = "a seccomp filter forbids personality or setrlimit (SIGSYS), so the process is not canonical"
LONGEST_EVENT = 1 << 20  # bytes
# Fields that the last event must have, besides those of the program's `done` event.
REQUIRED_FIELDS: Mapping[str, Mapping[str, type]] = {
    "error": {"error_class": str, "message": str},
    "again": {"library_path": str},
}
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "stopped on request; run again to go on"
# What `progress` is called with when the child has its job, and when it has sent its last event.
SENT, ENDING = {"event": "sent"}, {"event": "ending"}
# The whole environment of a compile, so that the engine does not depend on the user's.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Compiled:
    """The result of a compile. size, peak_memory_bytes (of the worker): bytes; version: of TensorRT;
    duration_s: seconds from start to exit."""

    sha256: str
    size: int
    version: str
    python: str
    peak_memory_bytes: int
    not_reproducible_because: str | None
    duration_s: float


def run_worker(
    job: CompileJob,
    log: Path,
    stopping: Callable[[], bool],
    progress: Callable[[Mapping[str, Any]], None] = lambda event: None,
    timeout_s: float | None = None,
    descriptors: tuple[int, ...] = (),
) -> Compiled:
    """Compile one job in a child process. Parameters and errors as of `run_program`."""
    last, seconds = run_program(
        compiler_of(job),
        job.python,
        job.to_json(),
        log,
        stopping,
        {**ENVIRONMENT, **job.environment},
        progress,
        timeout_s,
        descriptors,
    )
    fields = {name: last[name] for name in COMPILER.done}
    why = last.get("not_reproducible_because")
    return Compiled(**fields, not_reproducible_because=why, duration_s=seconds)


def run_program(
    program: Program,
    python: str,
    job: Mapping[str, Any],
    log: Path,
    stopping: Callable[[], bool],
    environment: Mapping[str, str],
    progress: Callable[[Mapping[str, Any]], None] = lambda event: None,
    timeout_s: float | None = None,
    descriptors: tuple[int, ...] = (),
) -> tuple[Mapping[str, Any], float]:
    """Run a program in a child process of the interpreter `python`; returns its `done` event and the seconds.

    job: as JSON; log: file for native output; stopping: called ten times a second, true to end the child;
    progress: called with each other event, and with SENT and ENDING; descriptors: inherited by the child.
    Raises Interrupted, the EngineError that the child reports, or EngineBuildError if it crashes.
    """
    began = time.monotonic()
    environment = dict(environment)
    why_not_canonical = ""
    while True:
        process = _start(program, python, why_not_canonical, log, environment, descriptors)
        worker = _Worker(
            process,
            program.frame(job),
            {**REQUIRED_FIELDS, "done": program.done},
            progress,
            f"the {program.title}",
        )
        try:
            last = worker.listen(stopping, timeout_s and began + timeout_s)
        finally:
            worker.end()
        if last.get("event") == "again" and "LD_LIBRARY_PATH" not in environment:
            environment["LD_LIBRARY_PATH"] = last["library_path"]
        elif worker.was_forbidden_to_begin() and program.argument == "1" and not why_not_canonical:
            program, why_not_canonical = replace(program, argument="2"), NOT_CANONICAL
        elif not last and getattr(process, "started", True) is False:
            program = replace(program, imports=())  # no fork server: start a new process
        else:
            break
    if last.get("event") != "done":
        raise _error(last) if last.get("event") == "error" else EngineBuildError(worker.how_it_ended())
    return last, time.monotonic() - began


def _error(event: Mapping[str, Any]) -> EngineError:
    error = by_name(event["error_class"])(event["message"])
    if isinstance(error, EngineBuildError):
        error.lasting = event.get("lasting") is True
    return error


def _start(
    program: Program,
    python: str,
    why_not_canonical: str,
    log: Path,
    environment: Mapping[str, str],
    descriptors: tuple[int, ...],
) -> subprocess.Popen[bytes] | ForkedProcess:
    if program.imports:
        from . import fork_server

        forked = fork_server.start(program, python, log, environment)
        if forked:
            return forked
    command = [python, *program.options, "-c", text_of(f"{COMMON}.boot")]
    with open(log, "ab") as errors, first_stage(program.argument, python) as stage:
        command += [stage, python if stage == "1" else why_not_canonical]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                pass_fds=descriptors,
            )
        except OSError as error:
            raise EngineBuildError(f"{command[0]} cannot be started: {error.strerror}") from None


class _Worker:
    """A started child process. frame: what to send; last_events: the fields of each possible last event;
    title: in messages."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | ForkedProcess,
        frame: bytes,
        last_events: Mapping[str, Mapping[str, type]],
        progress: Callable[[Mapping[str, Any]], None],
        title: str,
    ) -> None:
        self._process = process
        self._title = title
        self._unsent = memoryview(frame)
        self._last_events = last_events
        self._progress = progress
        self._last: Mapping[str, Any] = {}
        self._heard = False
        self._why = ""

    def listen(self, stopping: Callable[[], bool], deadline: float | None) -> Mapping[str, Any]:
        """Send the job and read events until the child exits; returns its last event, {} if it has none.
        deadline: of the monotonic clock. Raises Interrupted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        source, sink = self._process.stdout.fileno(), self._process.stdin.fileno()
        os.set_blocking(sink, False)
        pending = b""
        while True:
            if stopping():
                raise Interrupted(STOPPED)
            if deadline and time.monotonic() > deadline:
                self._why = "the compile took longer than timeout_s and was ended"
                return {}
            if source < 0 and self._process.poll() is not None:
                if -self._process.returncode in STOPS:  # Ctrl-C reaches both
                    raise Interrupted(STOPPED)
                return self._last
            wait = POLL_SECONDS if source >= 0 else POLL_SECONDS / 20
            readable, ready = _ready(source, sink if self._unsent else -1, wait)
            if ready:
                self._feed(sink)
            if not readable:
                continue
            data = os.read(source, 65536)
            if not data:
                source = -1
                continue
            *lines, pending = (pending + data).split(b"\n")
            if len(pending) > LONGEST_EVENT:
                self._why = f"{self._title} wrote invalid events"
                return {}
            for line in lines:
                self._hear(_event(line))

    def _hear(self, event: Mapping[str, Any]) -> None:
        self._heard = True
        fields = self._last_events.get(str(event.get("event")))
        if fields is not None:
            complete = all(type(event.get(name)) is kind for name, kind in fields.items())
            self._last = event if complete else {}
            self._progress(ENDING)
        elif event:
            self._progress(event)

    def _feed(self, sink: int) -> None:
        try:
            self._unsent = self._unsent[os.write(sink, self._unsent[:65536]) :]
            if not self._unsent:
                self._progress(SENT)
        except BlockingIOError:
            pass
        except OSError:  # it died before it read the job: `how_it_ended` says why
            self._unsent = memoryview(b"")

    def end(self) -> None:
        """Kill the child, and free the frame: a stored exception keeps this object alive."""
        self._unsent = memoryview(b"")
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:
                    pass

    def was_forbidden_to_begin(self) -> bool:
        """Whether a seccomp filter killed it before its first event."""
        return self._process.returncode == -signal.SIGSYS and not self._heard

    def how_it_ended(self) -> str:
        """The message for a child without a last event."""
        code = self._process.returncode
        if self._why:
            return self._why
        if code == -signal.SIGKILL:
            return f"{self._title} was killed (SIGKILL): most often the kernel, out of memory"
        if code == -signal.SIGSYS:
            return (
                f"{self._title} was killed by a seccomp filter (SIGSYS): allow the system call that the "
                "kernel's log names in the container's profile"
            )
        if code < 0:
            known = {number.value: number.name for number in signal.Signals}
            return f"{self._title} crashed ({known.get(-code, f'signal {-code}')})"
        return f"{self._title} ended with status {code} and no result"


def _ready(source: int, sink: int, wait: float) -> tuple[bool, bool]:
    """Whether `source` is readable and `sink` writable, after at most `wait` seconds; -1: do not check. Not
    select, which does not support descriptors above 1023."""
    poll = select.poll()
    if source >= 0:
        poll.register(source, select.POLLIN)
    if sink >= 0:
        poll.register(sink, select.POLLOUT)
    ready = {descriptor for descriptor, _ in poll.poll(wait * 1000)}
    return source in ready, sink in ready


def _event(line: bytes) -> dict[str, Any]:
    """The event in a line; {} if it has none."""
    try:
        event = json.loads(line)
        return event if isinstance(event, dict) else {}
    except (ValueError, RecursionError):
        return {}
