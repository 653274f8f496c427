"""Check, compile (or be supplied with) and publish one engine, under its lock."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import EngineBuildError, EngineError, HardwareError, PublishError, SignatureError
from ..identity.writing import cause, new_file
from ..integrity.memo import DigestMemo
from ..integrity.publish import Publication
from ..integrity.receipt import Receipt
from ..integrity.state import StateFolder
from ..progress import Running
from .checks import check_inputs, check_plan
from .context import Supplied, Supplier, Workshop
from .job import fresh_log, is_tensorrt, linked_model, make_job
from .locks import engine_lock
from .phases import READING, Phases
from .process import Compiled, run_worker
from .proof import alone_on_gpu, tell_again, told_with_proof
from .wanted import Verdict, Wanted, judge


@dataclass(frozen=True)
class Outcome:
    """how: "reused", "built", "fetched" or "dispatched"; sha256: of the engine; seconds: of the
    compile, or of bringing it here; size: bytes. Both None when it was reused."""

    how: str
    verdict: Verdict
    sha256: str
    seconds: float | None = None
    size: int | None = None


def make(wanted: Wanted, shop: Workshop) -> Outcome:
    """Have the wanted engine at its place: reused, its publishing finished, supplied, or compiled.

    Raises EngineError; the old pair then stands as it was.
    """
    what = shop.state.relative(wanted.engine)

    def waiting(holder: str) -> None:
        shop.say(f"WAITING {what}: for {holder}")

    lock = shop.state.lock(wanted.engine)
    with engine_lock(lock, what, waiting, shop.stopping, shop.lock_timeout_s):
        verdict = judge(wanted, shop.state, shop.memo)
        publication = Publication(shop.state, wanted.engine, wanted.key)
        reused = verdict.sha256
        if verdict.receipt and publication.pending(verdict.receipt):
            publication.finish()
            reused = verdict.receipt.sha256
        if reused:
            with contextlib.suppress(OSError, EngineError):
                publication.sweep()
            tell_again(wanted, reused, shop, waiting)
            return Outcome("reused", verdict, reused)
        partial = publication.open()
        try:
            how, receipt, seconds = _obtain(wanted, shop, partial, waiting)
        except BaseException:
            publication.abandon()
            raise
        publication.commit(receipt, shop.state.receipts)
        publication.finish()
    if how == "built":
        for taker in shop.takers:
            taker.made(wanted, receipt)
    return Outcome(how, verdict, receipt.sha256, seconds, receipt.size)


def _obtain(
    wanted: Wanted, shop: Workshop, partial: Path, waiting: Callable[[str], None]
) -> tuple[str, Receipt, float]:
    """The wanted engine in `partial`: how it came, its receipt and the seconds it took."""
    for supplier in shop.suppliers:
        supplied = _supplied(supplier, wanted, shop, partial)
        if supplied:
            made = wanted.filename, wanted.key, supplied.sha256, supplied.size
            told = told_with_proof(wanted, shop, supplied.details, partial, supplied.sha256, waiting)
            details = {**supplied.details, **told}
            receipt = Receipt(*made, wanted.ingredients, details)
            return supplied.how, receipt, supplied.seconds
    times = is_tensorrt(wanted)  # kernels on the GPU, when it compiles
    with alone_on_gpu(wanted, shop, waiting) if times else contextlib.nullcontext():
        receipt, seconds = _compile(wanted, shop, partial)
        sha256, turn = receipt.sha256, None if times else waiting
        told = told_with_proof(wanted, shop, {}, partial, sha256, turn)
    receipt = receipt._replace(details={**receipt.details, **told})
    return "built", receipt, seconds


def _supplied(supplier: Supplier, wanted: Wanted, shop: Workshop, partial: Path) -> Supplied | None:
    """What the supplier brings, checked as a compile is; else `partial` is empty again."""
    supplied = supplier.supply(wanted, partial, shop)
    if supplied:
        check_inputs(wanted, shop.memo)
        try:
            check_plan(wanted, partial, supplied.size)
            return supplied
        except EngineError as error:
            what = shop.state.relative(wanted.engine)
            shop.say(f"engines: {what} was {supplied.how}, and is not taken: {error}")
    try:
        new_file(partial).close()
    except OSError as error:
        where = shop.state.relative(partial)
        raise PublishError(f"{where}: {cause(error, 'make the folder writable')}") from None
    return None


def tidy(wanted: Wanted, state: StateFolder, memo: DigestMemo) -> None:
    """Remove what a killed compile of an engine that is current left, unless one runs now or a
    finished one waits for its place."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(wanted.engine), "", lambda holder: None, lambda: True),
    ):
        if judge(wanted, state, memo).current:
            Publication(state, wanted.engine, wanted.key).sweep()


def _compile(wanted: Wanted, shop: Workshop, partial: Path, copy: bool = False) -> tuple[Receipt, float]:
    """copy: compile private copies of the inputs, once links to them proved too little."""
    log = shop.state.log(wanted.engine)
    started = time.time()
    heard: dict[str, Any] = {}
    running = shop.begin("COMPILING", shop.state.relative(wanted.engine), _short(wanted), "")
    running.update(words=READING)
    phases = Phases()
    try:
        fresh_log(log)
        with linked_model(wanted, shop.state, shop.memo, copy) as (model, pinned):
            runtime = shop.interpreter.runtime(wanted.hardware.signature.product)
            job = make_job(wanted, shop.state, runtime, shop.environment, model, partial, pinned)
            refusal = None
            try:
                made = run_worker(
                    job["python"],
                    job,
                    log,
                    shop.stopping,
                    lambda event: _hear(shop, event, heard, phases, running),
                    wanted.recipe.timeout_s,
                    tuple(pinned.descriptors.values()),
                )
            except EngineBuildError as error:
                refusal = error  # of these inputs, or of what stood there for a moment
            sure = pinned.check()
            check_inputs(wanted, shop.memo)
            if refusal and sure:
                raise refusal
        if sure:
            check_plan(wanted, partial, made.size)
    except EngineBuildError as error:
        if error.lasting:
            for taker in shop.takers:
                taker.refused(wanted, error)
        told = EngineBuildError(f"{error}; log: {shop.state.relative(log)}")
        told.lasting = error.lasting
        raise told from None
    except (SignatureError, HardwareError) as error:
        if is_tensorrt(wanted):
            raise _elsewhere(wanted, error, shop.state) from None
        raise
    finally:
        running.end()
    if not sure:
        return _compile(wanted, shop, partial, copy=True)
    return _receipt(wanted, shop, made, started, log, heard), made.duration_s


def _short(wanted: Wanted) -> str:
    return f"{wanted.recipe.model} {wanted.recipe.precision}"


def _hear(
    shop: Workshop,
    event: Mapping[str, Any],
    heard: dict[str, Any],
    phases: Phases,
    running: Running,
) -> None:
    """heard: gets what the receipt shall tell."""
    if event.get("event") == "note":
        shop.say(f"engines: {event.get('text')}")
    elif event.get("event") == "calibration":
        heard["calibration"] = {name: event.get(name) for name in ("cache", "sha256", "samples")}
    else:
        doing = phases.hear(event)
        running.update(doing.done, doing.total, doing.words)


def _elsewhere(wanted: Wanted, error: EngineError, state: StateFolder) -> SignatureError:
    """TensorRT compiles only on the hardware it compiles for: say which, and what to do."""
    hardware = f"{wanted.hardware.name or 'its own host'} ({wanted.hardware.signature.describe()})"
    places = f"{state.relative(wanted.engine.parent)}/ and {state.relative(state.root)}/"
    return SignatureError(
        f"it can be compiled only on {hardware}, and here {error}. Build it there and bring "
        f"{places} over, or name other HARDWARE="
    )


def _receipt(
    wanted: Wanted,
    shop: Workshop,
    made: Compiled,
    started: float,
    log: Path,
    heard: Mapping[str, Any],
) -> Receipt:
    signature = wanted.hardware.signature
    inputs = [
        {
            "role": name.split(" ")[1],
            "name": shop.state.relative(path),
            "sha256": wanted.ingredients[name],
        }
        for name, path in wanted.inputs().items()
    ]
    for item in inputs:
        if os.path.isabs(item["name"]):
            item["name"] = os.path.basename(item["name"])
    details: dict[str, Any] = {
        "hardware": {"name": wanted.hardware.name, "signature": signature.to_json()},
        "recipe": wanted.recipe.to_json(),
        "inputs": inputs,
        "builder": {"scons_tensorrt": __version__},
        "worker": {"python": made.python, signature.product: made.version},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(made.duration_s, 3),
        "peak_memory_bytes": made.peak_memory_bytes,
        "log": os.path.relpath(log, shop.state.root),
        "reproducible": made.not_reproducible_because is None,
        "not_reproducible_because": made.not_reproducible_because,
    }
    details.update(heard)
    return Receipt(wanted.filename, wanted.key, made.sha256, made.size, wanted.ingredients, details)
