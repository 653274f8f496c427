"""Builder, emitter, scanner and decider: how SCons learns when an engine must be built.

SCons never looks at a target's bytes. So each target depends on one shared Value, whose Decider
checks the *target*: engine modified, sidecar missing, receipt of another key. Thus --debug=explain
names that Value, `-n`, `-q` and `-c` work as usual, and only that pair is rebuilt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import SCons.Builder
import SCons.Errors
import SCons.Node
from SCons.Scanner import Scanner

from ..artifact.filename import SIDECAR_SUFFIX
from ..errors import (
    EngineError,
    HandoffError,
    HardwareMismatchError,
    PublishError,
    RecipeError,
)
from ..files.writing import cause
from ..recipe.key_ingredients import VERSION
from . import settings
from .nodes import data_nodes, real_place, set_class, target_of
from .session import Session, session_of
from .target import HandoffTarget, PinnedAction, ReceiptTarget, fail_action

_T = TypeVar("_T")
INTEGRITY = "the recorded bytes of engine and sidecar"


def bytes_changed(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider of the integrity Value: whether the target is out of date.

    SCons calls it again after a build; then the target is up to date.
    """
    if target.get_state() > SCons.Node.executing:
        return False
    declared: ReceiptTarget = target_of(target)
    session = session_of(target.get_build_env())
    if target.get_state() < SCons.Node.executing and declared.on_visit(target):
        session.again()
    session.mark_requested(declared)
    if settings.option("no_exec") and declared.awaits():
        return True  # its input would change first
    try:
        current = declared.up_to_date().current
    except EngineError as error:
        declared.problem = error.with_traceback(None)
        return True
    except Exception as error:  # otherwise SCons prints a stack trace
        from .failures import unexpected

        declared.problem = unexpected(declared, error)
        return True
    if current:
        session.tidy(declared)
    elif settings.writes():
        fault = session.files.unwritable(declared.path) or session.files.make_folder(declared.path)
        if fault:
            declared.problem = PublishError(fault)
    return not current


def build(target: Any, source: Any, env: Any) -> None:
    """The action of an engine. Raises BuildError."""
    from ..build.build_engine import BuildOutcome, build_engine  # not needed by a null build
    from ..build.inputs_unchanged import check_unchanged

    engine, session = target_of(target[0]), session_of(env)
    began = _begin(target, engine, session)
    session.messages.without_effect(engine)

    def do() -> BuildOutcome:
        spec = engine.spec()
        check_unchanged(spec, (step.done() for step in engine.steps()))
        fault = _why_not_written(engine, session)
        if fault and engine.is_complete():
            return BuildOutcome("reused", engine.up_to_date(), engine.sha256 or "")
        if fault:
            raise fault
        return build_engine(spec, session.making.build_context(engine.python, engine))

    outcome = _or_fail(target, engine, do, session)
    _expect(target, engine, outcome.size if outcome.how == "found" else None)
    session.messages.finished(engine, outcome, time.monotonic() - began)


def convert(target: Any, source: Any, env: Any) -> None:
    """The action of a conversion. Raises BuildError."""
    from ..build.run_onnx_step import OnnxOutcome, make_onnx

    step, session = target_of(target[0]), session_of(env)
    began = _begin(target, step, session)

    def do() -> OnnxOutcome | None:
        spec, fault = step.spec(), _why_not_written(step, session)
        if fault and step.is_complete():
            return None
        if fault:
            raise fault
        return make_onnx(spec, session.making.onnx_context(env, step))

    made = _or_fail(target, step, do, session)
    if made is None:  # up to date in a folder that cannot be written
        return
    step.made(made.receipt)
    _expect(target, step, made.receipt.size if made.how == "found" else None)
    if made.how == "found":
        from .fetch_option import leave

        again = session.files.inputs, lambda: session.making.onnx_context(env)
        leave(step, made.receipt, *again, session.messages.converted)
    if made.how != "reused":
        session.messages.converted(step, made, time.monotonic() - began)


def _expect(nodes: Any, declared: ReceiptTarget, in_store: int | None) -> None:
    """SCons warns of files that an action did not make, but not of pseudo targets. in_store: see
    ReceiptTarget."""
    if in_store != declared.in_store:
        declared.in_store = in_store
        for node in nodes:
            node.pseudo = in_store is not None


def _why_not_written(target: ReceiptTarget, session: Session) -> PublishError | None:
    """Why no file can be written where the target goes."""
    if isinstance(target.problem, PublishError):
        return target.problem
    fault = session.files.unwritable(target.path) or session.files.make_folder(target.path)
    return PublishError(fault) if fault else None


def _begin(nodes: Any, declared: ReceiptTarget, session: Session) -> float:
    """Begin an action; returns the monotonic time. Raises BuildError if engines of this run are invalid,
    before hours are spent on others."""
    from .before_building import stop_for_invalid_engines  # not needed by a null build

    began, declared.began = time.monotonic(), time.time()
    session.mark_requested(declared)
    stop_for_invalid_engines(nodes, declared.owners, session)
    return began


def _or_fail(nodes: Any, declared: ReceiptTarget, do: Callable[[], _T], session: Session) -> _T:
    """The result of `do`. An error is reported and raised as BuildError.

    SCons keeps each BuildError until it exits, so its context is removed: that would keep alive the
    frames of the original error.
    """
    try:
        return do()
    except EngineError as error:
        problem = error
    except OSError as error:
        where = error.filename or declared.label
        problem = PublishError(f"{where}: {cause(error, 'check the path')}")
    except Exception as error:
        from .failures import unexpected

        problem = unexpected(declared, error)
    if isinstance(problem, HardwareMismatchError):
        declared.problem = problem  # see `report_unbuilt`
    problem.__context__ = None
    session.messages.failed(declared, problem.with_traceback(None))
    return fail_action(nodes, problem)


def out_of_date(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider of manifests and installed files, as `bytes_changed` is that of engines."""
    if target.get_state() > SCons.Node.executing:
        return False
    handoff: HandoffTarget = target_of(target)
    if target.get_state() < SCons.Node.executing:
        handoff.on_visit(target)
    try:
        if handoff.is_right(target):
            return False
    except Exception as error:
        from .failures import unexpected

        handoff.problem = unexpected(handoff, error)
    if settings.writes():
        session_of(target.get_build_env()).files.make_folder(handoff.path)
    return True


def write(target: Any, source: Any, env: Any) -> None:
    """The action of manifests and installed files. Raises BuildError."""
    handoff, messages = target_of(target[0]), session_of(env).messages
    try:
        if handoff.problem:
            raise handoff.problem
        for line in handoff.write():
            messages.console.line(line)
        return
    except EngineError as error:
        problem = error
    except OSError as error:
        where, why = error.filename or handoff.label, cause(error, "make room or make it writable")
        problem = HandoffError(f"{where}: {why}")
    except Exception as error:
        from .failures import unexpected

        problem = unexpected(handoff, error)
    messages.handoff_failed(handoff, problem.with_traceback(None))
    fail_action(target, problem)


def preview(target: Any, source: Any, env: Any) -> None:
    """Under -n, called instead of the actions."""
    from .dry_run import preview as print_preview

    print_preview(target_of(target[0]), env, session_of(env))


def emit(target: Any, source: Any, env: Any) -> tuple[Any, Any]:
    """The emitter: adds the sidecar to the targets."""
    engine = target[0]
    return [engine, engine.dir.File(engine.name + SIDECAR_SUFFIX)], source


def prepared_of(env: Any, folder: Any, target: Any, source: Any) -> tuple[Any, ...]:
    """For the scanner: each prepared ONNX that the target may be made from instead of its source."""
    owner = target_of(target[0]) if target else None
    found = [getattr(each, "prepared", None) for each in getattr(owner, "engines", [owner])]
    return tuple(each for each in found if each is not None)


def scan(node: Any, env: Any, path: Any = ()) -> list[Any]:
    """The scanner: the external data of an ONNX, and its prepared file where it needs one. path: of
    `prepared_of`.

    Missing or irregular files are left out: the action of the engine reports them, while SCons would
    stop with an error of its own, or read a device forever.
    """
    try:
        summary = session_of(env).files.inputs.summary(real_place(node))
    except (RecipeError, OSError, ValueError):
        return []
    files = data_nodes(node, summary.external)
    there = [file for file in files if file.has_builder() or os.path.isfile(real_place(file))]
    for file in there:
        set_class(file)
    return [*there, *(each.target for each in path if each.instead_of(node) is not node)]


def scan_source(node: Any, env: Any, path: Any = ()) -> list[Any]:
    """The scanner of steps, whose sources may also be samples, scripts and other files."""
    return scan(node, env, path) if hasattr(node.attributes, "trt_onnx") else []


def _scanner(function: Callable[[Any, Any, Any], list[Any]]) -> Any:
    return Scanner(
        function=function, name="ONNX", skeys=[".onnx"], recursive=False, path_function=prepared_of
    )


def make_builder() -> Any:
    """The builder behind `env.Engine`."""
    text = f"scons-tensorrt engine, recipe version {VERSION}"
    return SCons.Builder.Builder(
        action=PinnedAction(build, text, preview, "$TRT_ENGINECOMSTR"),
        emitter=emit,
        source_scanner=_scanner(scan),
        single_source=True,
    )


def make_step_builder() -> Any:
    """The builder behind the ONNX files that engines need."""
    return SCons.Builder.Builder(
        action=PinnedAction(convert, "scons-tensorrt conversion", preview, "$TRT_ENGINECOMSTR"),
        source_scanner=_scanner(scan_source),
    )


@cache
def make_handoff_builder(text: str, scans: bool = False) -> Any:
    """The builder behind `env.EngineManifest` or `env.InstallEngines`. text: the signature of its
    action; scans: whether its sources are ONNX files."""
    more = {"source_scanner": _scanner(scan_source)} if scans else {}
    return SCons.Builder.Builder(action=PinnedAction(write, text, preview), **more)
