"""What SCons runs for each target: compile an engine, make an ONNX, write a manifest or copy"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..build.build_engine import BuildOutcome, build_engine
from ..build.inputs_unchanged import check_unchanged
from ..build.run_onnx_step import OnnxOutcome, make_onnx
from ..errors import EngineError, HandoffError, HardwareMismatchError, PublishError
from ..files.writing import cause
from .before_building import stop_for_invalid_engines
from .failure_text import unexpected
from .fetch_option import leave
from .nodes import target_of
from .session import Session, session_of
from .target import ReceiptTarget, fail_action

_T = TypeVar("_T")


def build(target: Any, source: Any, env: Any) -> None:
    """The action of an engine. Raises BuildError."""
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
        problem = unexpected(declared, error)
    if isinstance(problem, HardwareMismatchError):
        declared.problem = problem  # see `report_unbuilt`
    problem.__context__ = None
    session.messages.failed(declared, problem.with_traceback(None))
    return fail_action(nodes, problem)


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
        problem = unexpected(handoff, error)
    messages.handoff_failed(handoff, problem.with_traceback(None))
    fail_action(target, problem)
