"""Builder, emitter, scanner and decider: how SCons learns when an engine must be built.

SCons never looks at a target's bytes. So each target depends on one shared Value, whose Decider
checks the *target*: engine modified, sidecar missing, receipt of another key. Thus --debug=explain
names that Value, `-n`, `-q` and `-c` work as usual, and only that pair is rebuilt.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import SCons.Builder
import SCons.Errors
import SCons.Node
from SCons.Scanner import Scanner

from ..artifact.filename import SIDECAR_SUFFIX
from ..errors import EngineBuildError, EngineError, Interrupted, PublishError, RecipeError, one_line
from ..files.writing import cause
from ..recipe.key import VERSION
from . import settings
from .calls import SEE_STACK
from .engine_target import EngineTarget
from .file_nodes import sign
from .nodes import data_nodes, real_path
from .pinned_action import PinnedAction
from .session import Session, session_of

if TYPE_CHECKING:
    from .onnx_target import OnnxTarget

_T = TypeVar("_T")
INTEGRITY = "the recorded bytes of engine and sidecar"


def declare_on(pair: Any, declared: EngineTarget | OnnxTarget) -> None:
    """Attach the declaration to its nodes."""
    for node in pair:
        node.attributes.trt_engine = declared


def _declared(node: Any) -> EngineTarget:
    found = node.attributes.trt_engine
    assert isinstance(found, EngineTarget)
    return found


def _derived(node: Any) -> OnnxTarget:
    found = node.attributes.trt_engine
    assert not isinstance(found, EngineTarget)
    return found  # type: ignore[no-any-return]


def tampered(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider of the integrity Value: whether the target is out of date.

    SCons calls it again after a build; then the target is up to date.
    """
    if target.get_state() > SCons.Node.executing:
        return False
    declared: EngineTarget | OnnxTarget = target.attributes.trt_engine
    if target.get_state() < SCons.Node.executing:
        declared.on_visit(target)
    session = session_of(target.get_build_env())
    declared.mark_requested()
    if settings.option("no_exec") and declared.awaits():
        return True  # its input would change first
    try:
        current = declared.up_to_date().current
    except EngineError as error:
        declared.problem = error.with_traceback(None)
        if declared.source_missing():
            session.report.failed(declared, error)
        return True
    except Exception as error:  # otherwise SCons prints a stack trace
        declared.problem = _unforeseen(declared, error)
        return True
    if current:
        session.tidy(declared)
    elif settings.writes():
        fault = session.make_folder(declared.path)
        if fault:
            declared.problem = PublishError(fault)
            session.report.failed(declared, declared.problem)
    return not current


def build(target: Any, source: Any, env: Any) -> None:
    """The action of an engine. Raises BuildError."""
    from ..build.engine import BuildOutcome, make  # not needed by a null build
    from .unchanged import check_unchanged

    declared = _declared(target[0])
    session = session_of(env)
    began, declared.began = time.monotonic(), time.time()
    declared.mark_requested()
    _stop_for_invalid_engines(target, [declared], session)
    session.report.without_effect(declared)

    def do() -> BuildOutcome:
        spec = declared.spec()
        check_unchanged(spec, declared.steps())
        return make(spec, session.making.build_context(declared.python))

    outcome = _or_fail(target, declared, do, env)
    session.report.finished(declared, outcome, time.monotonic() - began)


def _or_fail(target: Any, declared: EngineTarget | OnnxTarget, do: Callable[[], _T], env: Any) -> _T:
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
        problem = _unforeseen(declared, error)
    problem.__context__ = None
    return _fail(target, declared, problem.with_traceback(None), env)


def _unforeseen(declared: EngineTarget | OnnxTarget, error: Exception) -> EngineError:
    """An unexpected error in one line; --debug=stacktrace prints its stack."""
    if "stacktrace" in settings.option("debug"):
        traceback.print_exception(error)
    kind, text = type(error).__name__, one_line(str(error))
    return EngineBuildError(f"{declared.label}: {kind}: {text}; check the paths of its inputs; {SEE_STACK}")


def _stop_for_invalid_engines(target: Any, owners: list[EngineTarget], session: Session) -> None:
    """Report invalid engines of this run before hours are spent on others. If all `owners` are
    invalid, their own action reports them. Raises BuildError."""
    invalid_engines = session.making.invalid_engines()
    for engine in invalid_engines:
        if engine.problem:
            engine.mark_requested()
            session.report.failed(engine, engine.problem)
    if invalid_engines and not (owners and all(owner in invalid_engines for owner in owners)):
        raise SCons.Errors.BuildError(
            node=target,
            errstr=f"not started: {invalid_engines[0].name} failed",
            status=2,
            exitstatus=2,
        )


def convert(target: Any, source: Any, env: Any) -> None:
    """The action of a conversion. Raises BuildError."""
    from ..build.onnx_step import make_onnx

    derived = _derived(target[0])
    session = session_of(env)
    began, derived.began = time.monotonic(), time.time()
    derived.mark_requested()
    _stop_for_invalid_engines(target, derived.owners, session)
    step = _or_fail(target, derived, lambda: make_onnx(derived.spec(), session.making.onnx_context(env)), env)
    derived.made(step.receipt)
    if step.how != "reused":
        session.report.converted(derived, step, time.monotonic() - began)


def describe_convert(target: Any, source: Any, env: Any) -> str:
    """The text that SCons prints before a conversion; under -n, print what would be done."""
    if not settings.option("no_exec"):
        return str(env.subst("$TRT_ENGINECOMSTR", target=target, source=source))
    derived = _derived(target[0])
    session = session_of(env)
    awaited = derived.awaits()
    try:
        _check_steps(target[0])
        up_to_date = None if awaited else derived.up_to_date()
        if up_to_date is None or not up_to_date.current:
            why = up_to_date.reason if up_to_date else f"{awaited} would be built first"
            session.report.would_convert(derived, why, session.earlier_s(derived.path))
    except EngineError as error:
        session.report.failed(derived, error)
    return ""


def _check_steps(target: Any) -> None:
    """Under -n: raise EngineBuildError where a step that this target is made from would fail."""
    for node in target.children():
        step = getattr(node.attributes, "trt_engine", None)
        if step is not None and step.reported:
            raise EngineBuildError(f"{step.label} could not be built, see error above")


def make_step_builder() -> Any:
    """The builder behind the ONNX files that engines need."""
    return SCons.Builder.Builder(
        action=PinnedAction(convert, describe_convert, "scons-tensorrt conversion"),
        source_scanner=Scanner(function=scan_source, name="ONNX", skeys=[".onnx"], recursive=False),
    )


def _fail(target: Any, declared: EngineTarget | OnnxTarget, error: EngineError, env: Any) -> NoReturn:
    session_of(env).report.failed(declared, error)
    why = "interrupted" if isinstance(error, Interrupted) else "failed"
    raise SCons.Errors.BuildError(node=target, errstr=why, status=2, exitstatus=2)


def describe(target: Any, source: Any, env: Any) -> str:
    """The text that SCons prints before the action, TRT_ENGINECOMSTR; under -n, print what would be
    done."""
    if not settings.option("no_exec"):
        return str(env.subst("$TRT_ENGINECOMSTR", target=target, source=source))
    declared = _declared(target[0])
    session = session_of(env)
    awaited = declared.awaits()
    try:
        _check_steps(target[0])
        if not awaited and declared.up_to_date().reusable:
            session.report.reused([declared], reason=declared.up_to_date().reason)
        else:
            session.making.check_can_build(declared)
            why = f"{awaited} would be built first" if awaited else declared.up_to_date().reason
            session.report.would_build(declared, why, session.earlier_s(declared.path))
    except EngineError as error:
        session.report.failed(declared, error)
    return ""


def emit(target: Any, source: Any, env: Any) -> tuple[Any, Any]:
    """The emitter: adds the sidecar to the targets."""
    engine = target[0]
    return [engine, engine.dir.File(engine.name + SIDECAR_SUFFIX)], source


def scan(node: Any, env: Any, path: Any = ()) -> list[Any]:
    """The scanner: the external data of an ONNX.

    Missing or irregular files are left out: the action of the engine reports them, while SCons would
    stop with an error of its own, or read a device forever.
    """
    session = session_of(env)
    try:
        summary = session.inputs.summary(str(real_path(node)))
    except (RecipeError, OSError, ValueError):
        return []
    files = data_nodes(node, summary.external)
    there = [file for file in files if file.has_builder() or os.path.isfile(real_path(file))]
    for file in there:
        sign(file)
    return there


def scan_source(node: Any, env: Any, path: Any = ()) -> list[Any]:
    """The scanner of steps, whose sources may also be samples, scripts and other files."""
    return scan(node, env, path) if hasattr(node.attributes, "trt_onnx") else []


def make_builder() -> Any:
    """The builder behind `env.Engine`."""
    return SCons.Builder.Builder(
        action=PinnedAction(build, describe, f"scons-tensorrt engine, recipe version {VERSION}"),
        emitter=emit,
        source_scanner=Scanner(function=scan, name="ONNX", skeys=[".onnx"], recursive=False),
        single_source=True,
    )
