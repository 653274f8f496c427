"""What is known to fail before anything is built: one run names every such engine, and compiles none in
vain."""

from __future__ import annotations

import os
from typing import Any

import SCons.Errors

from ..build.compile_to_partial import only_on_its_hardware
from ..errors import EngineBuildError, EngineError, HardwareError, HardwareMismatchError, PublishError
from . import settings
from .choose_early_downloads import download_early
from .engine_target import EngineTarget
from .nodes import real_path
from .onnx_target import OnnxTarget
from .run_files import RunFiles
from .session import Session


def stop_for_invalid_engines(nodes: Any, owners: list[EngineTarget], session: Session) -> None:
    """Raise BuildError if requested engines are invalid, and report each; not with -k. nodes, owners: of the
    action that begins."""
    invalid = _invalid_engines(session)
    for engine, step in invalid.items():
        session.mark_requested(engine)
        for target in (step, engine):
            if target and target.problem:
                session.messages.failed(target, target.problem)
    if invalid:
        own = owners and all(owner in invalid for owner in owners)
        why = "failed" if own else f"not started: {next(iter(invalid)).name} failed"
        raise SCons.Errors.BuildError(node=nodes, errstr=why, status=2, exitstatus=2)


def _invalid_engines(session: Session) -> dict[EngineTarget, OnnxTarget | None]:
    """Requested engines that cannot be built, each with the step that cannot be run, if that is why. The
    errors are their `problem`. None with -k. Cached. If there are none, the first call begins downloads."""
    with session.lock:
        if session.invalid is None:
            found = session.invalid = {}
            for engine in [] if settings.option("keep_going") else session.asked_of(session.engines):
                if not engine.current:
                    step = _check(engine, session)
                    if step or engine.problem:
                        found[engine] = step
            if not found:
                download_early(session)
        return session.invalid


def _check(engine: EngineTarget, session: Session) -> OnnxTarget | None:
    """Set the problem of an engine that cannot be built. Returns the step that cannot be run, if that is
    why."""
    try:
        _check_source(engine, session.files)
        for step in engine.declared_steps():
            if not _can_run(step, session.files):
                engine.problem = EngineBuildError(f"{step.label} could not be built, see error above")
                return step  # type: ignore[no-any-return]
        if not any(node.has_builder() for node in engine.needs()):
            engine.spec()
        engine.problem = None
        check_can_build(engine, session)
    except EngineError as error:
        if not _may_be_reused(engine, error, session):
            engine.problem = error.with_traceback(None)
    except Exception:  # the engine's own action reports it
        return None
    return None


def _may_be_reused(engine: EngineTarget, error: EngineError, session: Session) -> bool:
    """Whether an engine that cannot be compiled or written here needs neither."""
    if engine.hardware is None or not isinstance(error, (HardwareError, HardwareMismatchError, PublishError)):
        return False
    checked = engine.checked
    try:
        found = engine.up_to_date()
        if isinstance(error, PublishError):
            return found.current
        return found.reusable or session.making.reusable(engine.spec(), found.code) is not None
    except (EngineError, OSError):  # an input has yet to be made, by a step that writes it
        return not isinstance(error, PublishError)
    finally:
        engine.checked = checked


def _check_source(engine: EngineTarget, files: RunFiles) -> None:
    """Raise EngineError for hardware, recipe or model."""
    if engine.hardware is None or not engine.original.has_builder():
        engine.check()
        files.inputs.summary_of(real_path(engine.original), files.label(engine.original))


def _can_run(step: OnnxTarget, files: RunFiles) -> bool:
    """Whether a step can be run, according to the files that are there now; else its problem is set."""
    if not step.is_needed():
        return True
    given = [node for node in step.sources() if not node.has_builder()]
    try:
        prepared = any(node.has_builder() for node in step.onnx.values())  # which the scanner adds
        if len(given) == len(step.sources()) and not prepared:
            step.spec()
        for node in given:
            if not real_path(node).exists():
                files.inputs.digest(real_path(node), files.label(node))
    except EngineError as error:
        step.problem = error.with_traceback(None)
        return False
    return True


def check_can_build(engine: EngineTarget, session: Session) -> None:
    """Raise PublishError where the engine cannot be written; RecipeError for a `timing_cache=` of other
    hardware; HardwareError or HardwareMismatchError where no
    TensorRT is installed that could compile it, and there is neither a shared cache nor another machine to
    ask."""
    fault = session.files.unwritable(engine.path)
    if fault:
        raise PublishError(fault)
    if engine.timings is not None and not engine.timings.has_builder():
        _check_timings(engine, session.files)
    elsewhere = session.making.elsewhere
    if engine.hardware is None or elsewhere.store.url or elsewhere.dispatch:
        return
    product = engine.hardware.signature.product
    try:
        session.hardware.interpreter(engine.python).runtime(product)
    except HardwareError as error:
        if product == "tensorrt":
            raise only_on_its_hardware(engine.hardware, error, engine.path, session.state) from None
        raise


def _check_timings(engine: EngineTarget, files: RunFiles) -> None:
    """Raise RecipeError for a file of `timing_cache=` that does not fit the engine's hardware."""
    from ..recipe.timing_cache_file import missing, read_timing_file

    path, label = real_path(engine.timings), files.label(engine.timings)
    if not os.path.lexists(path):
        raise missing(label)
    if engine.hardware is not None:
        read_timing_file(path, label)[0].check_hardware(engine.hardware.signature, label)
