"""Builds one engine under its lock: reuse it, fetch it from a provider, or compile it; then publish it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..artifact.publish import Publication
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..errors import EngineBuildError, EngineError, HardwareError, HardwareMismatchError, PublishError
from ..files.digest_cache import DigestCache
from ..files.locks import engine_lock
from ..files.writing import cause, new_file
from ..hardware.resolve import Hardware
from .accuracy import alone_on_gpu, receipt_details, update_receipt
from .checks import check_inputs, check_plan
from .context import BuildContext, EngineProvider, ProvidedFile
from .job import fresh_log, is_tensorrt, linked_model, make_job
from .phases import READING, Phases
from .progress import ProgressHandle
from .refusals import explain
from .spec import EngineSpec
from .up_to_date import UpToDateResult, check_up_to_date
from .worker_process import Compiled, run_worker


@dataclass(frozen=True)
class BuildOutcome:
    """how: "reused", "built", "fetched" or "dispatched"; sha256: of the engine; seconds: that the compile or
    the transfer took; size: bytes. Both are None for a reused engine."""

    how: str
    up_to_date: UpToDateResult
    sha256: str
    seconds: float | None = None
    size: int | None = None


def make(spec: EngineSpec, context: BuildContext) -> BuildOutcome:
    """Bring the engine up to date. Raises EngineError; an existing engine and sidecar are then unchanged."""
    what = context.state.relative(spec.engine)

    def waiting(holder: str) -> None:
        context.say(f"WAITING {what}: for {holder}")

    lock = context.state.lock(spec.engine)
    with engine_lock(lock, what, waiting, context.stopping, context.lock_timeout_s):
        up_to_date = check_up_to_date(spec, context.state, context.digest_cache)
        publication = Publication(context.state, spec.engine, spec.key)
        reused = up_to_date.sha256
        if up_to_date.receipt and publication.pending(up_to_date.receipt):
            publication.finish()
            reused = up_to_date.receipt.sha256
        if reused:
            with contextlib.suppress(OSError, EngineError):
                publication.sweep()
            update_receipt(spec, reused, context, waiting)
            return BuildOutcome("reused", up_to_date, reused)
        partial = publication.open()
        try:
            how, receipt, seconds = _obtain(spec, context, partial, waiting)
        except BaseException:
            publication.abandon()
            raise
        publication.commit(receipt, context.state.receipts)
        publication.finish()
    if how == "built":
        for listener in context.listeners:
            listener.made(spec, receipt)
    return BuildOutcome(how, up_to_date, receipt.sha256, seconds, receipt.size)


def _obtain(
    spec: EngineSpec, context: BuildContext, partial: Path, waiting: Callable[[str], None]
) -> tuple[str, Receipt, float]:
    """Write the engine to `partial`: how it was obtained, its receipt, and the seconds that took."""
    for provider in context.providers:
        supplied = _supplied(provider, spec, context, partial)
        if supplied:
            sha256, details = supplied.sha256, supplied.details
            more = receipt_details(spec, context, details, partial, sha256, waiting)
            details = {**details, **more}
            receipt = Receipt(spec.filename, spec.key, sha256, supplied.size, spec.ingredients, details)
            return supplied.how, receipt, supplied.seconds
    times = is_tensorrt(spec)  # it times kernels on the GPU
    with alone_on_gpu(spec, context, waiting) if times else contextlib.nullcontext():
        receipt, seconds = _compile(spec, context, partial)
        more = receipt_details(spec, context, {}, partial, receipt.sha256, None if times else waiting)
    return "built", receipt._replace(details={**receipt.details, **more}), seconds


def _supplied(
    provider: EngineProvider, spec: EngineSpec, context: BuildContext, partial: Path
) -> ProvidedFile | None:
    """The file of a provider, checked like a compiled one; if it has none, None, and `partial` is empty."""
    supplied = provider.supply(spec, partial, context)
    if supplied:
        check_inputs(spec, context.digest_cache)
        try:
            check_plan(spec, partial, supplied.size)
            return supplied
        except EngineError as error:
            what = context.state.relative(spec.engine)
            context.say(f"engines: {what} was {supplied.how}, but is not used: {error}")
    try:
        new_file(partial).close()
    except OSError as error:
        where = context.state.relative(partial)
        raise PublishError(f"{where}: {cause(error, 'make the folder writable')}") from None
    return None


def tidy(spec: EngineSpec, state: StateFolder, digest_cache: DigestCache) -> None:
    """Remove what a killed compile of an up-to-date engine left, unless another process compiles it now or it
    waits to be published."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(spec.engine), "", lambda holder: None, lambda: True),
    ):
        if check_up_to_date(spec, state, digest_cache).current:
            Publication(state, spec.engine, spec.key).sweep()


def _compile(spec: EngineSpec, context: BuildContext, partial: Path) -> tuple[Receipt, float]:
    log = context.state.log(spec.engine)
    started = time.time()
    heard: dict[str, Any] = {}
    running = context.begin("COMPILING", context.state.relative(spec.engine), _short(spec), "")
    running.update(words=READING)
    phases = Phases()

    def progress(event: Mapping[str, Any]) -> None:
        _hear(context, event, heard, phases, running)

    try:
        made = _run(spec, context, partial, log, progress)
        while made is None:
            made = _run(spec, context, partial, log, progress, copy=True)
    except EngineBuildError as error:
        told = _as(error, explain(str(error), spec.onnx))
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
    copy: bool = False,
) -> Compiled | None:
    """Compile to `partial`, with links to the inputs or with copies. None if an input may have changed for a
    moment: then compile copies."""
    fresh_log(log)
    with linked_model(spec, context.state, context.digest_cache, copy) as (model, pinned):
        runtime = context.interpreter.runtime(spec.hardware.signature.product)
        job = make_job(spec, context.state, runtime, context.environment, model, partial, pinned)
        descriptors = tuple(pinned.descriptors.values())
        refusal = None
        try:
            made = run_worker(job, log, context.stopping, progress, spec.recipe.timeout_s, descriptors)
        except EngineBuildError as error:
            refusal = error
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
    inputs = []
    for name, path in spec.inputs().items():
        label = context.state.relative(path)  # no absolute path in a receipt
        label = path.name if os.path.isabs(label) else label
        inputs.append({"role": name.split(" ")[1], "name": label, "sha256": spec.ingredients[name]})
    details: dict[str, Any] = {
        "hardware": {"name": spec.hardware.name, "signature": signature.to_json()},
        "recipe": spec.recipe.to_json(),
        "inputs": inputs,
        "builder": {"scons_tensorrt": __version__},
        "worker": {"python": made.python, signature.product: made.version},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(made.duration_s, 3),
        "peak_memory_bytes": made.peak_memory_bytes,
        "log": os.path.relpath(log, context.state.root),
        "reproducible": made.not_reproducible_because is None,
        "not_reproducible_because": made.not_reproducible_because,
    }
    details.update(heard)
    return Receipt(spec.filename, spec.key, made.sha256, made.size, spec.ingredients, details)
