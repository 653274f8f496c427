"""Check, compile and publish one engine, under its lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .. import __version__
from ..errors import EngineBuildError, EngineError, HardwareError, PublishError, SignatureError
from ..identity.host import CUDA_VARIABLES
from ..identity.runtime import Interpreter
from ..integrity.memo import DigestMemo
from ..integrity.plan import read_header, why_not_whole
from ..integrity.publish import Publication
from ..integrity.receipt import Receipt
from ..integrity.state import StateFolder
from .locks import engine_lock, gpu_lock
from .process import Compiled, run_worker
from .wanted import Verdict, Wanted, judge


@dataclass(frozen=True)
class Workshop:
    """What every compile of a run shares.

    gpu: the UUID of the GPU that TensorRT would time kernels on, None where there is none to
    ask; lock_timeout_s: seconds; stopping: whether the run was asked to end; say: a line for
    people; progress: events of a running compile with its engine.
    """

    state: StateFolder
    memo: DigestMemo
    interpreter: Interpreter
    gpu: Callable[[], str | None] = lambda: None
    lock_timeout_s: float | None = None
    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda text: None
    progress: Callable[[Wanted, Mapping[str, Any]], None] = lambda wanted, event: None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Outcome:
    """built: False when it was reused; compile_s: seconds of the compile, None unless built."""

    built: bool
    verdict: Verdict
    receipt: Receipt
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
        if verdict.receipt and verdict.code == "unfinished" and publication.pending(verdict.receipt):
            publication.finish()
        if verdict.receipt and verdict.reusable:
            with contextlib.suppress(OSError):
                publication.sweep()
            return Outcome(False, verdict, verdict.receipt)
        uuid = shop.gpu() if _is_tensorrt(wanted) else None
        with contextlib.ExitStack() as stack:
            if uuid:
                timeout = shop.lock_timeout_s
                stack.enter_context(gpu_lock(uuid, what, waiting, shop.stopping, timeout))
            receipt, seconds = _compile(wanted, shop, publication)
        return Outcome(True, verdict, receipt, seconds)


def tidy(wanted: Wanted, state: StateFolder) -> None:
    """Remove what a killed compile of an engine that is current left, unless one runs now."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(wanted.engine), "", lambda holder: None, lambda: True),
    ):
        Publication(state, wanted.engine, wanted.key).sweep()


def _compile(wanted: Wanted, shop: Workshop, publication: Publication) -> tuple[Receipt, float]:
    log = shop.state.log(wanted.engine)
    partial = publication.open()
    started = time.time()
    try:
        with _fresh_log(log), _links(wanted, shop.state) as model:
            before = _stamps(wanted)
            _check_inputs(wanted, shop.memo, before)
            job = _job(wanted, shop, model, partial)
            made = run_worker(
                job["python"],
                job,
                log,
                shop.stopping,
                lambda event: _hear(wanted, shop, event),
                wanted.recipe.timeout_s,
            )
        _check_plan(wanted, partial, made)
        _check_inputs(wanted, shop.memo, before)
    except EngineError as error:
        publication.abandon()
        if isinstance(error, EngineBuildError):
            raise EngineBuildError(f"{error}; log: {shop.state.relative(log)}") from None
        if isinstance(error, (SignatureError, HardwareError)) and _is_tensorrt(wanted):
            raise _elsewhere(wanted, error, shop.state) from None
        raise
    except BaseException:
        publication.abandon()
        raise
    receipt = _receipt(wanted, shop, made, started, log)
    publication.commit(receipt, shop.state.receipts)
    publication.finish()
    return receipt, made.duration_s


def _hear(wanted: Wanted, shop: Workshop, event: Mapping[str, Any]) -> None:
    if event.get("event") == "note":
        shop.say(f"engines: {event.get('text')}")
    else:
        shop.progress(wanted, event)


def _job(wanted: Wanted, shop: Workshop, model: Path, partial: Path) -> dict[str, Any]:
    """The worker's spec: JSON, every path absolute."""
    signature = wanted.hardware.signature
    runtime = shop.interpreter.runtime(signature.product)
    return {
        "python": runtime.python,
        "product": signature.product,
        "runtime_version": signature.runtime_version,
        "package_folder": runtime.folder,
        "library_path": shop.environment.get("LD_LIBRARY_PATH"),
        "environment": _gpu_choice(shop) if _is_tensorrt(wanted) else {},
        "timing_cache": _timing_cache(wanted, shop.state),
        "folder": str(model.parent),
        "onnx": model.name,
        "output": str(partial),
        "architectures": list(signature.architectures or ()),
        "recipe": wanted.recipe.to_json(),
        "plugins": [str(path) for path in wanted.recipe.plugins],
        "hardware": signature.to_json(),
    }


def _gpu_choice(shop: Workshop) -> dict[str, str]:
    """What chooses the GPU must reach the worker, or it compiles on another than was probed."""
    return {name: shop.environment[name] for name in CUDA_VARIABLES if name in shop.environment}


def _timing_cache(wanted: Wanted, state: StateFolder) -> str | None:
    """One for each full signature; RTX times nothing, and one would make it look for a GPU."""
    if not _is_tensorrt(wanted) or "DISABLE_TIMING_CACHE" in wanted.recipe.flags:
        return None
    fields = json.dumps(wanted.hardware.signature.key_fields(), sort_keys=True)
    name = hashlib.sha256(fields.encode()).hexdigest()[:16]
    return str(state.root / "timing" / f"{name}.cache")


def _is_tensorrt(wanted: Wanted) -> bool:
    return wanted.hardware.signature.product == "tensorrt"


def _elsewhere(wanted: Wanted, error: EngineError, state: StateFolder) -> SignatureError:
    """TensorRT compiles only on the hardware it compiles for: say which, and what to do."""
    hardware = f"{wanted.hardware.name or 'its own host'} ({wanted.hardware.signature.describe()})"
    places = f"{state.relative(wanted.engine.parent)}/ and {state.relative(state.root)}/"
    return SignatureError(
        f"it can be compiled only on {hardware}, and here {error}. Build it there and bring "
        f"{places} over, or name other HARDWARE="
    )


@contextlib.contextmanager
def _links(wanted: Wanted, state: StateFolder) -> Iterator[Path]:
    """The model's path under a constant name, its external data where it expects them.

    The parser keeps the model's basename, and that reaches the engine's bytes.
    """
    folder = state.partial(wanted.engine) / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        name = "model.onnx"
        while name in {PurePosixPath(location).parts[0] for location in wanted.external}:
            name = f"_{name}"
        (folder / name).symlink_to(wanted.onnx)
        for location, path in wanted.external.items():
            link = folder / location
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):  # two spellings of one location
                link.symlink_to(path)
    except OSError as error:
        where = state.relative(error.filename or state.root)
        raise PublishError(f"{where}: {error.strerror}; make the state folder writable") from None
    try:
        yield folder / name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _fresh_log(log: Path) -> Iterator[None]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError as error:
        raise PublishError(f"{log}: {error.strerror}; make the state folder writable") from None
    yield


def _check_plan(wanted: Wanted, partial: Path, made: Compiled) -> None:
    """What TensorRT leaves unsaid: a short write, other architectures than were asked for."""
    signature = wanted.hardware.signature
    try:
        size = partial.stat().st_size
        fault = why_not_whole(partial)
        header = read_header(partial)
    except OSError as error:
        raise EngineBuildError(f"the compiler left no engine ({error.strerror})") from None
    if fault is None and size != made.size:
        fault = f"it has {size} bytes, and the compiler wrote {made.size}"
    if fault is None and header.product not in (None, signature.product):
        fault = f"it is a plan of {header.product}"
    if fault is not None:
        raise EngineBuildError(f"the compiler left no whole engine: {fault}")
    wanted_sms = signature.architectures
    if wanted_sms and header.architectures and set(wanted_sms) != set(header.architectures):
        raise SignatureError(f"architectures: wanted {wanted_sms}, the plan has {header.architectures}")


def _stamps(wanted: Wanted) -> dict[str, tuple[int, ...]]:
    """What changes when an input is written to or swapped, even if the old bytes come back."""
    stamps: dict[str, tuple[int, ...]] = {}
    for name, path in wanted.inputs().items():
        try:
            stat = os.stat(path)
        except OSError:
            continue  # the digest will say it
        moved = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        # A hard link made meanwhile (a VariantDir's copy) moves the ctime too, and no byte.
        stamps[name] = (*moved, stat.st_ctime_ns, stat.st_nlink)
    return stamps


def _check_inputs(wanted: Wanted, memo: DigestMemo, before: Mapping[str, tuple[int, ...]]) -> None:
    after = _stamps(wanted)
    for name, path in wanted.inputs().items():
        old, new = before.get(name), after.get(name)
        same = old is not None and new is not None and old[:4] == new[:4]
        if same and old and new and old[4] != new[4]:
            same = old[5] != new[5]
        try:
            same = same and memo.sha256(path) == wanted.ingredients[name]
        except OSError:
            same = False
        if not same:
            raise EngineBuildError(f"{path.name} changed while it was compiled; run again")


def _receipt(wanted: Wanted, shop: Workshop, made: Compiled, started: float, log: Path) -> Receipt:
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
    return Receipt(wanted.filename, wanted.key, made.sha256, made.size, wanted.ingredients, details)
