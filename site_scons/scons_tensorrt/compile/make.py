"""Check, compile and publish one engine, under its lock."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import EngineBuildError, EngineError, HardwareError, SignatureError
from ..identity.runtime import Interpreter
from ..integrity.memo import DigestMemo
from ..integrity.publish import Publication
from ..integrity.receipt import Receipt
from ..integrity.state import StateFolder
from .checks import check_inputs, check_plan, stamps_of
from .job import fresh_log, is_tensorrt, linked_model, make_job
from .locks import engine_lock, gpu_lock
from .process import Compiled, run_worker
from .wanted import Verdict, Wanted, judge


@dataclass(frozen=True)
class Workshop:
    """What every compile of a run shares.

    gpu: the UUID of the GPU that TensorRT would time kernels on, None where there is none to
    ask; gpu_turn: of the run's own threads; lock_timeout_s: seconds; stopping: whether the run
    was asked to end; say: a line for people; progress: events of a running compile.
    """

    state: StateFolder
    memo: DigestMemo
    interpreter: Interpreter
    gpu: Callable[[], str | None] = lambda: None
    gpu_turn: threading.Lock = field(default_factory=threading.Lock)
    lock_timeout_s: float | None = None
    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda text: None
    progress: Callable[[Wanted, Mapping[str, Any]], None] = lambda wanted, event: None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Outcome:
    """built: False when it was reused; sha256: of the engine; compile_s: seconds of the compile,
    None unless built."""

    built: bool
    verdict: Verdict
    sha256: str
    compile_s: float | None = None


def make(wanted: Wanted, shop: Workshop) -> Outcome:
    """Have the wanted engine at its place: reused, its publishing finished, or compiled.

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
            _tell(wanted, reused, shop.state)
            return Outcome(False, verdict, reused)
        uuid = shop.gpu() if is_tensorrt(wanted) else None
        with contextlib.ExitStack() as stack:
            if uuid:
                timeout = shop.lock_timeout_s
                stack.enter_context(gpu_lock(uuid, shop.gpu_turn, what, waiting, shop.stopping, timeout))
            receipt, seconds = _compile(wanted, shop, publication)
        return Outcome(True, verdict, receipt.sha256, seconds)


def _tell(wanted: Wanted, sha256: str, state: StateFolder) -> None:
    """Let the receipt of an engine that is reused tell what is told of it now."""
    with contextlib.suppress(OSError, EngineError):  # what was told before stands
        now = wanted.told()
        for receipt in state.receipts.get(wanted.filename, wanted.key) if now else ():
            told = {**receipt.details, **now}
            if receipt.sha256 == sha256 and told != receipt.details:
                state.receipts.put(receipt._replace(details=told))


def tidy(wanted: Wanted, state: StateFolder, memo: DigestMemo) -> None:
    """Remove what a killed compile of an engine that is current left, unless one runs now or a
    finished one waits for its place."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(wanted.engine), "", lambda holder: None, lambda: True),
    ):
        if judge(wanted, state, memo).current:
            Publication(state, wanted.engine, wanted.key).sweep()


def _compile(wanted: Wanted, shop: Workshop, publication: Publication) -> tuple[Receipt, float]:
    log = shop.state.log(wanted.engine)
    partial = publication.open()
    started = time.time()
    heard: dict[str, Any] = {}
    try:
        fresh_log(log)
        with linked_model(wanted, shop.state) as (model, held):
            before = stamps_of(held)
            check_inputs(wanted, shop.memo, held)
            runtime = shop.interpreter.runtime(wanted.hardware.signature.product)
            job = make_job(wanted, shop.state, runtime, shop.environment, model, partial)
            made = run_worker(
                job["python"],
                job,
                log,
                shop.stopping,
                lambda event: _hear(wanted, shop, event, heard),
                wanted.recipe.timeout_s,
            )
            check_inputs(wanted, shop.memo, held, before)
        check_plan(wanted, partial, made)
    except EngineError as error:
        publication.abandon()
        if isinstance(error, EngineBuildError):
            raise EngineBuildError(f"{error}; log: {shop.state.relative(log)}") from None
        if isinstance(error, (SignatureError, HardwareError)) and is_tensorrt(wanted):
            raise _elsewhere(wanted, error, shop.state) from None
        raise
    except BaseException:
        publication.abandon()
        raise
    receipt = _receipt(wanted, shop, made, started, log, heard)
    publication.commit(receipt, shop.state.receipts)
    publication.finish()
    return receipt, made.duration_s


def _hear(wanted: Wanted, shop: Workshop, event: Mapping[str, Any], heard: dict[str, Any]) -> None:
    """heard: gets what the receipt shall tell."""
    if event.get("event") == "note":
        shop.say(f"engines: {event.get('text')}")
    elif event.get("event") == "calibration":
        heard["calibration"] = {name: event.get(name) for name in ("cache", "sha256", "samples")}
    else:
        shop.progress(wanted, event)


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
    details = {
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
    details.update(wanted.told())
    details.update(heard)
    return Receipt(wanted.filename, wanted.key, made.sha256, made.size, wanted.ingredients, details)
