"""The end of a run: engines that SCons did not build, what `-c` keeps, and the HTML report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import SCons.Node

from ..errors import EngineBuildError, EngineError, HardwareMismatchError, plural
from ..files.writing import cause
from . import settings
from .console import Console, say
from .engine_target import EngineTarget
from .nodes import ALIAS
from .run_files import RunFiles
from .run_messages import RunMessages

if TYPE_CHECKING:
    from ..artifact.state_folder import StateFolder
    from .onnx_target import OnnxTarget


def report_unbuilt(
    messages: RunMessages,
    engines: Iterable[EngineTarget],
    asked: Iterable[EngineTarget],
    steps: Iterable[OnnxTarget],
    tried: bool,
) -> None:
    """Report the requested engines that SCons did not build: the builder of an input failed, they are up
    to date, or SCons failed before their action. asked: those that the targets of the run mean;
    tried: False if the run was stopped, or ended before anything was built."""
    for step in steps:
        if step.problem and not step.reported and step.target.get_state() == SCons.Node.failed:
            messages.failed(step, step.problem)
    for engine in asked:
        unmade = engine.state() in (SCons.Node.failed, SCons.Node.no_state, SCons.Node.pending)
        blocked = engine.blocked_by() if unmade and not engine.reported else None
        if blocked and tried:
            engine.requested = True
            messages.failed(engine, EngineBuildError(f"{blocked} could not be built, see error above"))
        elif unmade and not engine.reported and tried:
            refused = _same_host_refuses(engine, engines)
            if refused:
                engine.requested = True
                messages.failed(engine, refused)
    rest = [(e, e.state()) for e in engines if e.requested and not e.reported]
    # SCons visited these itself, and calls nothing of ours once it has found them up to date.
    messages.reused([engine for engine, state in rest if state == SCons.Node.up_to_date])
    for engine, state in rest:
        if state == SCons.Node.failed and engine.problem:
            messages.failed(engine, engine.problem)


def _same_host_refuses(engine: EngineTarget, engines: Iterable[EngineTarget]) -> EngineError | None:
    """Why this host compiles no engine for the same hardware, if one was tried: SCons stopped there."""
    for other in engines:
        same = (other.hardware, other.python) == (engine.hardware, engine.python)
        if same and isinstance(other.problem, HardwareMismatchError):
            with contextlib.suppress(EngineError, OSError):  # an input has yet to be made
                return None if engine.up_to_date().reusable else other.problem
    return None


@contextlib.contextmanager
def reporting_unsaved(messages: RunMessages, state: StateFolder) -> Iterator[None]:
    """Report, in one line, that the state of a run cannot be saved."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or state.root
        why = cause(error, "make it writable")
        if not messages.has_said(error.strerror or why):
            say(f"engines: {where}: {why}; the next run is slower for it")


def print_kept(engines: Iterable[EngineTarget]) -> None:
    """With -c, print which engines a bare `scons -c` keeps."""
    if settings.option("silent"):
        return
    kept = [engine for engine in engines if engine.kept]
    unknown = [engine for engine in engines if engine.hardware is None and not engine.kept]
    if unknown:
        say(f"engines: files of {unknown[0].name} are unknown: {unknown[0].problem}")
    if kept:
        say(
            f"engines: {len(kept)} kept; `scons -c {ALIAS}` removes them, but only their "
            "hardware can rebuild them"
        )


def write_report(console: Console, files: RunFiles, place: Path) -> None:
    """Write the report of `engines-report` into the folder `place`."""
    from ..report import write_report as write

    where = files.state.relative(place)
    try:
        written = write(files.state, files.digest_cache, place, console.run)
        count = plural(len(written.data["engines"]), "engine")
        console.line(f"engines: report of {count} in {where}/{written.file}")
        if written.note:
            console.line(f"engines: {written.note}")
    except OSError as error:
        why = cause(error, "name another REPORT=")
        console.line(f"engines: report {where}/ cannot be written: {why}", failure=True)
    except EngineError as error:
        console.line(f"engines: no report: {error}", failure=True)
