"""Builds one engine under its lock: reuse it, fetch it from a provider, or compile it; then publish it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact.publish import Publication
from ..artifact.receipt import Receipt
from ..artifact.sidecar import sidecar_of
from ..artifact.state_folder import StateFolder
from ..errors import EngineError, PublishError
from ..files.digest_cache import DigestCache
from ..files.engine_and_gpu_locks import engine_lock
from ..files.writing import cause, new_file
from ..values import Value
from .accuracy_details import alone_on_gpu, is_compared, receipt_details, update_receipt
from .build_context import BuildContext, EngineFinder, EngineProvider, ProvidedFile
from .check_before_publish import check_inputs, check_plan
from .compile_to_partial import compile_engine
from .engine_spec import EngineSpec
from .make_job import is_tensorrt
from .reuse_local_engine import ReusableEngines, Reused, details_of_copy
from .up_to_date import UpToDateResult, check_up_to_date


@dataclass(frozen=True)
class BuildOutcome:
    """how: "reused", "built", "fetched", "dispatched" or "found" (in the shared cache, and not downloaded);
    sha256: of the engine; seconds: that the compile or the transfer took; size: bytes. Both are None for a
    reused engine. origin: of a reused engine that was not
    in place, "kept" or "copied from <path>"."""

    how: str
    up_to_date: UpToDateResult
    sha256: str
    seconds: float | None = None
    size: int | None = None
    origin: str = ""


class _NewEngine(Value):
    """An engine in its partial file. seconds: as in BuildOutcome."""

    how: str
    receipt: Receipt
    seconds: float | None
    origin: str = ""


def build_engine(spec: EngineSpec, context: BuildContext) -> BuildOutcome:
    """Bring the engine up to date. Raises EngineError; an existing engine and sidecar are then unchanged."""
    what = context.state.relative(spec.engine)

    def waiting(holder: str) -> None:
        context.say(f"WAITING {what}: for {holder}")

    lock = context.state.lock(spec.engine)
    context.stage("waiting for its lock")
    with engine_lock(lock, what, waiting, context.stopping, context.lock_timeout_s):
        context.stage("checking whether it is up to date")
        up_to_date = check_up_to_date(spec, context.state, context.digest_cache)
        publication = Publication(context.state, spec.engine, spec.key)
        kept = ReusableEngines(context.state, context.digest_cache, context.cache_size, context.say)
        reused = up_to_date.sha256
        if up_to_date.receipt and publication.pending(up_to_date.receipt):
            reused = up_to_date.receipt.sha256
            _publish_and_keep_the_old(spec, publication, kept, reused)
        if reused:
            with contextlib.suppress(OSError, EngineError):
                publication.sweep()
            update_receipt(spec, reused, context, waiting)
            return BuildOutcome("reused", up_to_date, reused)
        context.stage("waiting for an engine with the same inputs")
        with context.turns.turn(spec, what, waiting, context.stopping) as equal:
            context.stage("looking for a kept engine")
            partial = publication.open()
            try:
                found = kept.take(spec, up_to_date.code, partial, equal)
                made = _check_reused(spec, context, found, partial, waiting) if found else None
                made = (
                    made
                    or _find_not_downloaded(spec, context, equal)
                    or _fetch_or_compile(spec, context, partial, waiting)
                )
            except BaseException:
                publication.abandon()
                raise
            receipt = made.receipt
            if made.how == "found":
                publication.abandon()
                _record_not_downloaded(spec, context, kept, receipt)
                return BuildOutcome(made.how, up_to_date, receipt.sha256, made.seconds, receipt.size)
            context.stage("publishing")
            publication.commit(receipt, context.state.receipts)
            _publish_and_keep_the_old(spec, publication, kept, receipt.sha256)
    if made.how == "built":
        for listener in context.listeners:
            listener.made(spec, receipt)
    size = None if made.how == "reused" else receipt.size
    return BuildOutcome(made.how, up_to_date, receipt.sha256, made.seconds, size, made.origin)


def _publish_and_keep_the_old(
    spec: EngineSpec, publication: Publication, kept: ReusableEngines, sha256: str
) -> None:
    """Publish an engine, and keep the one that it replaces. sha256: of the new one."""
    kept.keep(spec)
    publication.finish()
    kept.replaced(spec, sha256)


def _check_reused(
    spec: EngineSpec, context: BuildContext, found: Reused, partial: Path, waiting: Callable[[str], None]
) -> _NewEngine | None:
    """A kept engine, or one of another folder, which is in `partial`: checked like a compiled one."""
    sha256, size = found.receipt.sha256, found.receipt.size
    if not _is_usable(spec, context, partial, size, found.origin):
        return None
    more = receipt_details(spec, context, found.details, partial, sha256, waiting)
    receipt = Receipt(spec.filename, spec.key, sha256, size, spec.ingredients, {**found.details, **more})
    return _NewEngine("reused", receipt, None, found.origin)


def _find_not_downloaded(spec: EngineSpec, context: BuildContext, equal: Path | None) -> _NewEngine | None:
    """An engine that need not be downloaded; None if there is none, or it must be compared here. equal: an
    engine of this run with the same inputs."""
    for finder in context.finders:
        found = finder.find(spec, context) or _find_copy_not_downloaded(spec, context, finder, equal)
        if found and is_compared(spec, found.details):
            details = {**_known_details(spec, context, found.sha256), **found.details}
            more = receipt_details(spec, context, details, spec.engine, found.sha256, None)
            details = {**details, **more}
            receipt = Receipt(spec.filename, spec.key, found.sha256, found.size, spec.ingredients, details)
            return _NewEngine("found", receipt, found.seconds)
    return None


def _find_copy_not_downloaded(
    spec: EngineSpec, context: BuildContext, finder: EngineFinder, equal: Path | None
) -> ProvidedFile | None:
    """An engine with the same inputs under another name, which would be copied if it were here."""
    names = [equal.name] if equal else []
    with contextlib.suppress(OSError, EngineError):
        names += context.state.receipts.same_inputs(spec.filename, spec.ingredients)
    for name in dict.fromkeys(names):
        other = spec._replace(engine=spec.engine.with_name(name))
        found = finder.find(other, context) if name != spec.filename else None
        if found:
            return found._replace(details=details_of_copy(found.details, name, spec, context.state))
    return None


def _known_details(spec: EngineSpec, context: BuildContext, sha256: str) -> Mapping[str, Any]:
    """What this host's receipt of the engine says besides, such as figures on its GPU."""
    with contextlib.suppress(OSError, EngineError):
        known = context.state.receipts.find_by_bytes(spec.filename, spec.key, sha256)
        return known.details if known else {}
    return {}


def _record_not_downloaded(
    spec: EngineSpec, context: BuildContext, kept: ReusableEngines, receipt: Receipt
) -> None:
    """Record an engine that is not downloaded. One that it replaces is kept, and no longer in place: it would
    be taken for the new one. Raises PublishError."""
    try:
        kept.keep(spec)
        context.state.receipts.put(receipt)
        for path in (sidecar_of(spec.engine), spec.engine):
            path.unlink(missing_ok=True)
    except OSError as error:
        where = context.state.relative(error.filename or spec.engine)
        raise PublishError(f"{where}: {cause(error, 'make the folder writable')}") from None


def _fetch_or_compile(
    spec: EngineSpec, context: BuildContext, partial: Path, waiting: Callable[[str], None]
) -> _NewEngine:
    """Fetch or compile the engine to `partial`."""
    _clear(partial, context.state)
    if context.providers:
        context.stage("asking the shared cache and other machines")
    for provider in context.providers:
        if provider.reads_inputs:
            spec.bring()
        supplied = _fetch_from(provider, spec, context, partial)
        if supplied:
            sha256, details = supplied.sha256, supplied.details
            more = receipt_details(spec, context, details, partial, sha256, waiting)
            details = {**details, **more}
            receipt = Receipt(spec.filename, spec.key, sha256, supplied.size, spec.ingredients, details)
            return _NewEngine(supplied.how, receipt, supplied.seconds)
    spec.bring()
    times = is_tensorrt(spec)  # it times kernels on the GPU
    with alone_on_gpu(spec, context, waiting) if times else contextlib.nullcontext():
        context.stage("compiling on this host")
        receipt, seconds = compile_engine(spec, context, partial)
        more = receipt_details(spec, context, {}, partial, receipt.sha256, None if times else waiting)
    return _NewEngine("built", receipt._replace(details={**receipt.details, **more}), seconds)


def _fetch_from(
    provider: EngineProvider, spec: EngineSpec, context: BuildContext, partial: Path
) -> ProvidedFile | None:
    """The file of a provider, checked like a compiled one; if it has none, None, and `partial` is empty."""
    supplied = provider.supply(spec, partial, context)
    if supplied and _is_usable(spec, context, partial, supplied.size, supplied.how):
        return supplied
    _clear(partial, context.state)
    return None


def _is_usable(spec: EngineSpec, context: BuildContext, partial: Path, size: int, how: str) -> bool:
    """Check an engine that was not compiled now, and the inputs; a line says why it is not used. Raises
    EngineBuildError if an input changed."""
    check_inputs(spec, context.digest_cache)
    try:
        check_plan(spec, partial, size)
        return True
    except EngineError as error:
        what = context.state.relative(spec.engine)
        context.say(f"engines: {what} was {how}, but is not used: {error}")
        return False


def _clear(partial: Path, state: StateFolder) -> None:
    """Make `partial` an empty file. Raises PublishError."""
    try:
        new_file(partial).close()
    except OSError as error:
        where = state.relative(partial)
        raise PublishError(f"{where}: {cause(error, 'make the folder writable')}") from None


def tidy(spec: EngineSpec, state: StateFolder, digest_cache: DigestCache) -> None:
    """Remove what a killed compile of an up-to-date engine left, unless another process compiles it now or it
    waits to be published."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(spec.engine), "", lambda holder: None, lambda: True),
    ):
        if check_up_to_date(spec, state, digest_cache).current:
            Publication(state, spec.engine, spec.key).sweep()
