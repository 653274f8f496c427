"""The compile's child process: started, fed, listened to, and always ended.

The child reads its job from standard input once; that pipe then stays open for as long as
this process lives, and its closing kills the child (worker/link.py).
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
from typing import Any

from ..errors import EngineBuildError, Interrupted, by_name
from ..files.reading import text_of

POLL_SECONDS = 0.1
JOB_STEP = 256 << 10
# What stage 1 of boot.py asks the kernel for, and a seccomp filter may kill it for.
NOT_CANONICAL = "a seccomp filter forbids personality or setrlimit (SIGSYS), so the process is not canonical"
LONGEST_EVENT = 1 << 20
# What the last event must hold, besides the program's own "done".
LAST: Mapping[str, Mapping[str, type]] = {
    "error": {"error_class": str, "message": str},
    "again": {"library_path": str},
}
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "stopped on request; run again to go on"
COMMON = "scons_tensorrt.worker.common"
TRT = "scons_tensorrt.worker.trt"
# The whole environment of a compile: what it makes must not depend on who asked.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Program:
    """What a child process runs: modules of this package, sent as text, because it may be another
    interpreter; the last of them has `main(job)`.

    done: fields of its last event and their types; options: of the interpreter; argument: the
    stage that boot.py begins with; later: modules that are sent, too, for `main` to import when it
    needs them, because they import packages that may be missing.
    """

    modules: tuple[str, ...]
    done: Mapping[str, type]
    options: tuple[str, ...]
    argument: str
    later: tuple[str, ...] = ()


# -I, -S: nothing of the user's reaches sys.path, nor do .pth files run their code in the heap; no
# .pyc is read or written, because whether there is one moves the heap.
COMPILER = Program(
    modules=(
        "scons_tensorrt.hardware.cuda",
        *(
            f"{COMMON}.errors",
            f"{COMMON}.parent",
            *(
                f"{TRT}.{name}"
                for name in ("check_hardware", "callbacks", "network", "build", "timing_cache", "main")
            ),
        ),
    ),
    done={"sha256": str, "size": int, "version": str, "python": str, "peak_memory_bytes": int},
    options=("-I", "-S", "-B", "-X", "pycache_prefix=/dev/null/none"),
    argument="1",
)

# Sent only to a worker that calibrates: each module is compiled from its text at every start.
CALIBRATING = replace(
    COMPILER,
    modules=(
        *COMPILER.modules[:-1],
        f"{COMMON}.array_file",
        *(f"{TRT}.{name}" for name in ("gpu_memory", "calibrate")),
        COMPILER.modules[-1],
    ),
)

# Runs an engine on its GPU, after the compile: nothing of it need be canonical.
RUNNER = replace(
    COMPILER,
    modules=(
        *COMPILER.modules,
        f"{COMMON}.array_file",
        *(f"{TRT}.{name}" for name in ("gpu_memory", "run_engine")),
    ),
    done={"not_run_because": str, "gpu": str},
    argument="2",
)


@dataclass(frozen=True)
class Compiled:
    """What came out. duration_s: seconds from start to exit; peak_memory_bytes: of the worker."""

    sha256: str
    size: int
    version: str
    python: str
    duration_s: float
    peak_memory_bytes: int
    not_reproducible_because: str | None


def run_worker(
    python: str,
    job: Mapping[str, Any],
    log: Path,
    stopping: Callable[[], bool],
    progress: Callable[[Mapping[str, Any]], None] = lambda event: None,
    timeout_s: float | None = None,
    descriptors: tuple[int, ...] = (),
) -> Compiled:
    """Compile one job in a child process of `python`.

    job: see `build.job`; log: where native output goes; stopping: asked ten times a second;
    descriptors: for the child to inherit.
    Raises EngineError of the class the worker names, EngineBuildError when it dies, Interrupted.
    """
    environment = {**ENVIRONMENT, **job.get("environment", {})}
    program = CALIBRATING if job.get("calibration") else COMPILER
    last, seconds = run_program(
        program, python, job, log, stopping, environment, progress, timeout_s, descriptors
    )
    return _compiled(last, seconds)


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
    """The last event of a job's run in a child process, and its seconds; see `run_worker`."""
    began = time.monotonic()
    environment = dict(environment)
    why_not_canonical = ""
    while True:
        worker = _Worker(program, python, job, log, environment, descriptors, why_not_canonical)
        try:
            last = worker.listen(stopping, progress, timeout_s and began + timeout_s)
        finally:
            worker.end()
        if last.get("event") == "again" and "LD_LIBRARY_PATH" not in environment:
            environment["LD_LIBRARY_PATH"] = last["library_path"]
            continue
        if worker.was_forbidden_to_begin() and program.argument == "1" and not why_not_canonical:
            program, why_not_canonical = replace(program, argument="2"), NOT_CANONICAL
            continue
        break
    if last.get("event") == "done":
        return last, time.monotonic() - began
    if last.get("event") == "error":
        error = by_name(last["error_class"])(last["message"])
        if isinstance(error, EngineBuildError):
            error.lasting = last.get("lasting") is True
        raise error
    raise EngineBuildError(worker.how_it_ended())


def _compiled(event: Mapping[str, Any], duration_s: float) -> Compiled:
    return Compiled(
        str(event["sha256"]),
        int(event["size"]),
        str(event["version"]),
        str(event["python"]),
        duration_s,
        int(event["peak_memory_bytes"]),
        event.get("not_reproducible_because"),
    )


class _Worker:
    def __init__(
        self,
        program: Program,
        python: str,
        job: Mapping[str, Any],
        log: Path,
        environment: Mapping[str, str],
        descriptors: tuple[int, ...],
        why_not_canonical: str,
    ) -> None:
        boot = text_of(f"{COMMON}.boot")
        command = [python, *program.options, "-c", boot, program.argument, why_not_canonical]
        self._last = {**LAST, "done": program.done}
        self._heard = False
        self._why = ""
        self._unsent = memoryview(_frame(program, job))
        with open(log, "ab") as errors:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=dict(environment),
                    pass_fds=descriptors,
                )
            except OSError as error:
                raise EngineBuildError(f"{python} cannot be started: {error.strerror}") from None

    def listen(
        self,
        stopping: Callable[[], bool],
        progress: Callable[[Mapping[str, Any]], None],
        deadline: float | None,
    ) -> Mapping[str, Any]:
        """Feed the job and follow events until the worker is gone; its last event."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        source, sink = self._process.stdout.fileno(), self._process.stdin.fileno()
        os.set_blocking(sink, False)
        pending = b""
        last: Mapping[str, Any] = {}
        while True:
            if stopping():
                raise Interrupted(STOPPED)
            if deadline and time.monotonic() > deadline:
                self._why = "the compile took longer than timeout_s and was ended"
                return {}
            if source < 0 and self._process.poll() is not None:
                if -self._process.returncode in STOPS:  # Ctrl-C reaches both
                    raise Interrupted(STOPPED)
                return last
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
                self._why = "the compiler wrote garbage where its events belong"
                return {}
            for line in lines:
                self._heard = True
                event = _event(line)
                if event.get("event") in self._last:
                    fields = self._last[event["event"]]
                    last = event if _complete(event, fields) else {}
                elif event:
                    progress(event)

    def _feed(self, sink: int) -> None:
        try:
            self._unsent = self._unsent[os.write(sink, self._unsent[:65536]) :]
        except BlockingIOError:
            pass
        except OSError:  # it died before it read its job: how it ended tells why
            self._unsent = memoryview(b"")

    def end(self) -> None:
        """No worker outlives its call, nor does what it was sent: an error that is kept keeps its
        frames."""
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
        """Whether a seccomp filter killed it before it said a word."""
        return self._process.returncode == -signal.SIGSYS and not self._heard

    def how_it_ended(self) -> str:
        """For a worker that left no last word."""
        code = self._process.returncode
        if self._why:
            return self._why
        if code == -signal.SIGKILL:
            return "the compiler was killed (SIGKILL): most often the kernel, out of memory"
        if code == -signal.SIGSYS:
            return (
                "the compiler was killed by a seccomp filter (SIGSYS): allow the system call that the "
                "kernel's log names in the container's profile"
            )
        if code < 0:
            known = {number.value: number.name for number in signal.Signals}
            return f"the compiler crashed ({known.get(-code, f'signal {-code}')})"
        return f"the compiler ended with status {code} and no result"


def _ready(source: int, sink: int, wait: float) -> tuple[bool, bool]:
    """Whether there is something to read, and room to write, after `wait` seconds at most; -1: not
    asked. Not by select, which takes no descriptor from 1024 on."""
    poll = select.poll()
    if source >= 0:
        poll.register(source, select.POLLIN)
    if sink >= 0:
        poll.register(sink, select.POLLOUT)
    ready = {descriptor for descriptor, _ in poll.poll(wait * 1000)}
    return source in ready, sink in ready


def _frame(program: Program, job: Mapping[str, Any]) -> bytes:
    """The job as boot.py reads it; padded, so that the lengths of paths do not move the heap."""
    parts = [name.split(".") for name in program.modules]
    packages = {".".join(words[:depth]) for words in parts for depth in range(1, len(words))}
    modules = [[name, ""] for name in sorted(packages)]
    modules += [[name, text_of(name)] for name in program.modules]
    more = {"later": {name: text_of(name) for name in program.later}} if program.later else {}
    data = json.dumps({**job, "modules": modules, **more}).encode("utf-8")
    data = data.ljust(-(-len(data) // JOB_STEP) * JOB_STEP)
    return b"%016d" % len(data) + data


def _complete(event: Mapping[str, Any], fields: Mapping[str, type]) -> bool:
    return all(type(event.get(name)) is kind for name, kind in fields.items())


def _event(line: bytes) -> dict[str, Any]:
    """One event; what is not one is nothing."""
    try:
        event = json.loads(line)
        return event if isinstance(event, dict) else {}
    except (ValueError, RecursionError):
        return {}
