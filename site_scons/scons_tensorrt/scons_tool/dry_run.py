"""`scons -n`: print what would be done with each target, and fail where a build would fail."""

from __future__ import annotations

from typing import Any

from ..build.onnx_context import OnnxContext
from ..build.run_onnx_step import check_converter
from ..errors import EngineBuildError, EngineError
from .before_building import check_can_build
from .engine_target import EngineTarget
from .failure_text import unexpected
from .nodes import target_of
from .onnx_target import OnnxTarget
from .session import Session
from .target import HandoffTarget, ReceiptTarget

_converter_problems: dict[tuple[str, ...], str | None] = {}


def preview(target: Any, env: Any, session: Session) -> None:
    """Print a line about a target that is out of date. SCons also asks for targets that it does not find
    in `.sconsign`."""
    report = session.messages
    try:
        if isinstance(target, HandoffTarget):
            if target.problem:
                raise target.problem
            line = target.preview()
            if line:
                report.console.line(line)
        elif isinstance(target, EngineTarget):
            _preview_engine(target, session)
        else:
            _preview_step(target, env, session)
    except (EngineError, OSError) as error:
        if isinstance(target, ReceiptTarget) and isinstance(error, EngineError):
            report.failed(target, error)
        else:
            report.would_fail(target, error)
    except Exception as error:
        report.would_fail(target, unexpected(target, error))


def _preview_engine(engine: EngineTarget, session: Session) -> None:
    awaited = engine.awaits()
    _check_steps(engine)
    if not awaited:
        up_to_date = engine.up_to_date()
        found = None if up_to_date.reusable else session.making.reusable(engine.spec(), up_to_date.code)
        if up_to_date.reusable or found:
            origin = found.origin if found else ""
            session.messages.reused([engine], reason=up_to_date.reason, origin=origin)
            return
    check_can_build(engine, session)
    why = f"{awaited} would be built first" if awaited else engine.up_to_date().reason
    session.messages.would_build(engine, why, session.files.last_duration_s(engine.path))


def _preview_step(step: OnnxTarget, env: Any, session: Session) -> None:
    awaited = step.awaits()
    _check_steps(step)
    up_to_date = None if awaited else step.up_to_date()
    if up_to_date is None or not up_to_date.current:
        if not session.making.elsewhere.store.url:  # else it may be downloaded
            problem = _converter_problem(step, session.making.onnx_context(env))
            if problem:
                raise EngineBuildError(f"{step.source}: {problem}")
        why = up_to_date.reason if up_to_date else f"{awaited} would be built first"
        session.messages.would_convert(step, why, session.files.last_duration_s(step.path))


def _check_steps(target: ReceiptTarget) -> None:
    """Raise EngineBuildError where a step that this target is made from would fail."""
    for node in target.target.children():
        step = target_of(node)
        if step is not None and step.reported:
            raise EngineBuildError(f"{step.label} could not be built, see error above")


def _converter_problem(step: OnnxTarget, context: OnnxContext) -> str | None:
    """Why the step's file cannot be made, or None; cached."""
    key = context.python, step.kind, step.needed_for
    if key not in _converter_problems:
        try:
            check_converter(step.kind, context, step.needed_for)
            _converter_problems[key] = None
        except EngineError as error:
            _converter_problems[key] = str(error)
    return _converter_problems[key]
