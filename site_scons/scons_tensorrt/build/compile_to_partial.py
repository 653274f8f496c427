"""Compiles one engine to a partial file, and writes its receipt. child_process.py starts the process and
reads its events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..errors import EngineBuildError, EngineError, HardwareError, HardwareMismatchError
from ..files.untrusted_json import mapping
from ..hardware.choose_hardware import Hardware
from .build_context import BuildContext
from .check_before_publish import check_inputs, check_plan
from .child_process import Compiled, run_worker
from .compile_phase import Phases
from .engine_spec import EngineSpec, made_from
from .kernel_pinning import DETAIL, Recording
from .make_job import fresh_log, is_tensorrt, linked_model, make_job
from .progress import ProgressHandle
from .tensorrt_errors import explain


def compile_engine(
    spec: EngineSpec, context: BuildContext, partial: Path, recording: Recording | None = None
) -> tuple[Receipt, float]:
    """Compile an engine to `partial`: its receipt, and the seconds that took. recording: of its kernels.
    Raises EngineError."""
    log = context.state.log(spec.engine)
    started = time.time()
    heard: dict[str, Any] = {}
    running = context.begin("COMPILING", context.state.relative(spec.engine), _short(spec), "")
    phases = Phases()

    def progress(event: Mapping[str, Any]) -> None:
        _hear(context, event, heard, phases, running)

    try:
        made = _run(spec, context, partial, log, progress, recording)
        while made is None:
            made = _run(spec, context, partial, log, progress, recording, copy=True)
    except EngineBuildError as error:
        told = _as(error, explain(str(error), spec.onnx, _would_prepare(spec)))
        if error.lasting:
            for listener in context.listeners:
                listener.refused(spec, told)
        raise _as(error, f"{told}; log: {context.state.relative(log)}") from None
    except (HardwareMismatchError, HardwareError) as error:
        if is_tensorrt(spec):
            raise only_on_its_hardware(spec.hardware, error, spec.engine, context.state) from None
        raise
    finally:
        running.end()
    return _receipt(spec, context, made, started, log, heard), made.duration_s


def _would_prepare(spec: EngineSpec) -> str:
    """What the prepare step would have rewritten, for a message; empty if it was not left out."""
    recipe = spec.recipe
    if recipe.preparation.way != "none":
        return ""
    from ..recipe.onnx.read_onnx import read_onnx  # only for a refusal
    from ..recipe.preparation import would_rewrite

    try:
        return would_rewrite(recipe.profiles, read_onnx(spec.onnx))
    except (EngineError, OSError):
        return ""


def _as(error: EngineBuildError, message: str) -> EngineBuildError:
    """The error with another message."""
    found = EngineBuildError(message)
    found.lasting = error.lasting
    return found


def _run(
    spec: EngineSpec,
    context: BuildContext,
    partial: Path,
    log: Path,
    progress: Callable[[Mapping[str, Any]], None],
    recording: Recording | None,
    copy: bool = False,
) -> Compiled | None:
    """Compile to `partial`, with links to the inputs or with copies. None if an input may have changed for a
    moment: then compile copies."""
    fresh_log(log)
    context.stage("hashing its inputs")
    with linked_model(spec, context.state, context.digest_cache, copy) as (model, pinned):
        runtime = context.interpreter.runtime(spec.hardware.signature.product)
        where = context.state, runtime, context.environment, model, partial, pinned
        job = make_job(spec, *where, recording)
        descriptors = tuple(pinned.descriptors.values())
        refusal = None
        context.stage("starting the compiler")
        try:
            made = run_worker(job, log, context.stopping, progress, spec.recipe.timeout_s, descriptors)
            if recording:
                recording.take(model)
        except EngineBuildError as error:
            refusal = error
        context.stage("checking the engine")
        steady = pinned.check()
        check_inputs(spec, context.digest_cache)
    if not steady:
        return None
    if refusal:
        raise refusal
    check_plan(spec, partial, made.size)
    return made


def _short(spec: EngineSpec) -> str:
    return f"{spec.recipe.model} {spec.recipe.precision}"


def _hear(
    context: BuildContext,
    event: Mapping[str, Any],
    heard: dict[str, Any],
    phases: Phases,
    running: ProgressHandle,
) -> None:
    """Handle an event of the worker. heard: collects details for the receipt."""
    if event.get("event") == "note":
        context.say(f"engines: {event.get('text')}")
    elif event.get("event") == "kernels":
        heard.setdefault(DETAIL, {}).update(mapping(event.get("kernels")))
    elif event.get("event") == "calibration":
        heard["calibration"] = {name: event.get(name) for name in ("cache", "sha256", "samples")}
    else:
        doing = phases.hear(event)
        running.update(doing.done, doing.total, doing.words)


def only_on_its_hardware(
    wanted: Hardware, error: EngineError, engine: Path, state: StateFolder
) -> HardwareMismatchError:
    """The error for an engine of TensorRT that is for other hardware than this host's."""
    hardware = f"{wanted.name or 'its own host'} ({wanted.signature.describe()})"
    places = f"{state.relative(engine.parent)}/ and {state.relative(state.root)}/"
    return HardwareMismatchError(
        f"it can be compiled only on {hardware}, but here {error}. Build it there and copy "
        f"{places} here, or set another HARDWARE="
    )


def _receipt(
    spec: EngineSpec,
    context: BuildContext,
    made: Compiled,
    started: float,
    log: Path,
    heard: Mapping[str, Any],
) -> Receipt:
    signature = spec.hardware.signature
    machine = context.interpreter.runtime(signature.product).machine
    details: dict[str, Any] = {
        **made_from(spec, context.state),
        "builder": {"scons_tensorrt": __version__},
        "worker": {"python": made.python, "machine": machine, signature.product: made.version},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(made.duration_s, 3),
        "peak_memory_bytes": made.peak_memory_bytes,
        "log": os.path.relpath(log, context.state.root),
        "reproducible": made.not_reproducible_because is None,
        "not_reproducible_because": made.not_reproducible_because,
    }
    details.update(heard)
    return Receipt(spec.filename, spec.key, made.sha256, made.size, spec.ingredients, details)
