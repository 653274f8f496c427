"""Making such a file: in a child process of the interpreter that has onnx, then brought to its place."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .. import __version__
from ..compile.context import Supplied
from ..compile.job import fresh_log
from ..compile.locks import engine_lock
from ..compile.process import Program, run_program
from ..compile.wanted import Verdict
from ..errors import AccuracyError, EngineBuildError, EngineError, PublishError, RecipeError
from ..identity.writing import cause, remove_tree, sync_file, sync_folder, unlink_link
from ..integrity.memo import DigestMemo, sha256_file
from ..integrity.receipt import Receipt
from ..integrity.state import DATA_SUFFIX, StateFolder
from ..progress import Begin, unwatched
from ..record import Record
from .code import copy_export
from .snapshot import CODE, named_as_given, snapshot
from .step import StepWanted, judge_step

ROOM = "scons_tensorrt.convert.worker"
SIGNING_KEY = "TRT_SIGNING_KEY"
CONVERTER = Program(
    modules=(
        "scons_tensorrt.compile.worker.failure",
        "scons_tensorrt.compile.worker.link",
        "scons_tensorrt.compile.worker.records",
        f"{ROOM}.main",
    ),
    done={"facts": dict},
    options=("-B",),
    argument="2",
    later=tuple(
        f"{ROOM}.{name}"
        for name in (
            "walks tensors sources samples batches precision quantize accuracy engine export".split()
        )
    ),
)


class StepSupplier(Protocol):
    """As `compile.context` has it, for files made of an ONNX. Its `sha256` and `size` are of the file
    itself; data beside it is told by `data_sha256` in the details."""

    def supply_step(self, wanted: StepWanted, made: Path, shop: Converting) -> Supplied | None:
        """Write the file to `made`, which is not there yet, and its data beside it."""


class StepTaker(Protocol):
    """As `compile.context.Taker`."""

    def made_step(self, wanted: StepWanted, receipt: Receipt) -> None:
        """Told what was made here."""


@dataclass(frozen=True)
class Converting:
    """What every step of a run shares. python: the interpreter that has onnx and onnxruntime."""

    state: StateFolder
    memo: DigestMemo
    python: str
    lock_timeout_s: float | None
    stopping: Callable[[], bool]
    say: Callable[[str], None]
    suppliers: Sequence[StepSupplier] = ()
    begin: Begin = unwatched
    takers: Sequence[StepTaker] = ()


class Step(Record):
    """how: "reused", "made" or "fetched"."""

    how: str
    verdict: Verdict
    receipt: Receipt


def make_step(wanted: StepWanted, shop: Converting) -> Step:
    """Have the wanted file at its place. Raises EngineError; an old file then stands as it was."""
    state = shop.state
    what = state.relative(wanted.target)

    def waiting(holder: str) -> None:
        shop.say(f"WAITING {what}: for {holder}")

    lock = state.lock(wanted.target)
    with engine_lock(lock, what, waiting, shop.stopping, shop.lock_timeout_s):
        verdict = judge_step(wanted, state, shop.memo)
        if verdict.current and verdict.sha256:
            receipt = state.receipts.of_bytes(wanted.target.name, wanted.key, verdict.sha256)
            if receipt:
                return Step("reused", verdict, receipt)
        folder = state.partial(wanted.target) / "step"
        try:
            unlink_link(folder.parent)
            finished = _finish(wanted, shop, folder)
            if finished:
                return Step("reused", verdict, finished)
            remove_tree(folder)
            folder.mkdir(parents=True)
            receipt = _fetch(wanted, shop, folder)
            how = "fetched" if receipt else "made"
            receipt = receipt or _make(wanted, shop, folder)
        except OSError as error:
            where = state.relative(error.filename or state.root)
            raise PublishError(
                f"{where}: {cause(error, 'make room or make the folder writable, then run again')}"
            ) from None
        finally:
            remove_tree(folder)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
    if how == "made":
        for taker in shop.takers:
            taker.made_step(wanted, receipt)
    return Step(how, verdict, receipt)


def _finish(wanted: StepWanted, shop: Converting, folder: Path) -> Receipt | None:
    """Bring a file to its place that was whole, with its receipt, when an earlier run was killed."""
    made, data = folder / wanted.target.name, _data_of(folder / wanted.target.name)
    receipts = shop.state.receipts.get(wanted.target.name, wanted.key)
    if not receipts or folder.is_symlink() or made.is_symlink() or not made.is_file():
        return None
    sha256 = sha256_file(made, follow=False)
    receipt = next((each for each in receipts if each.sha256 == sha256), None)
    if receipt is None:
        return None
    stated = receipt.details.get("data_sha256")
    there = next(
        (path for path in (data, wanted.data) if path.is_file() and not path.is_symlink()), None
    )
    if stated is not None and (there is None or sha256_file(there, follow=False) != stated):
        return None
    _bring(wanted, [path for path in (data, made) if path.exists()], keep=stated is not None)
    return receipt


def tidy_step(target: Path, state: StateFolder) -> None:
    """Remove what a killed conversion of a file that is current left, unless one runs now."""
    with (
        contextlib.suppress(OSError, EngineError),
        engine_lock(state.lock(target), "", lambda holder: None, lambda: True),
    ):
        folder = state.partial(target)
        unlink_link(folder)
        remove_tree(folder / "step")
        folder.rmdir()


def _fetch(wanted: StepWanted, shop: Converting, folder: Path) -> Receipt | None:
    made = folder / wanted.target.name
    for supplier in shop.suppliers:
        supplied = supplier.supply_step(wanted, made, shop)
        if supplied:
            return _publish(wanted, shop, made, supplied.sha256, supplied.size, dict(supplied.details))
        for path in (made, _data_of(made)):
            path.unlink(missing_ok=True)
    return None


def _make(wanted: StepWanted, shop: Converting, folder: Path) -> Receipt:
    state, log = shop.state, shop.state.log(wanted.target)
    fresh_log(log)
    made = folder / wanted.target.name
    inputs = folder / "inputs"
    places, samples = snapshot(wanted, inputs, state.top)
    job = {
        "kind": wanted.kind,
        "options": dict(wanted.options),
        "target": str(made),
        "temporary": str(folder / "temporary"),
        "onnx": places,
        "samples": samples,
        **copy_export(wanted, inputs / CODE, state.top),
    }
    (folder / "temporary").mkdir()
    started = time.time()
    verb = "CHECKING" if wanted.kind == "accuracy" else "CONVERTING"
    short = " ".join(wanted.target.name.split(".")[:2])
    running = shop.begin(verb, state.relative(wanted.target), short, "")
    try:
        facts, seconds = run_program(CONVERTER, shop.python, job, log, shop.stopping, _environment())
    except (RecipeError, AccuracyError) as error:
        told = named_as_given(str(error), wanted, inputs)
        raise type(error)(f"{wanted.source}: {told}") from None
    except EngineBuildError as error:
        told = named_as_given(str(error), wanted, inputs)
        raise EngineBuildError(f"{wanted.source}: {told}; log: {state.relative(log)}") from None
    finally:
        running.end()
    if not made.is_file():
        raise EngineBuildError(f"{wanted.source}: the converter left no {made.name}")
    details: dict[str, Any] = {
        "kind": wanted.kind,
        "facts": dict(facts["facts"]),
        "inputs": {name: text for name, text in wanted.ingredients.items() if name.startswith("input ")},
        "builder": {"scons_tensorrt": __version__},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": round(seconds, 3),
    }
    if _data_of(made).exists():
        details["data_sha256"] = sha256_file(_data_of(made))
    return _publish(wanted, shop, made, sha256_file(made), made.stat().st_size, details)


def _environment() -> dict[str, str]:
    """This process's, without the key that signs manifests: functions of others run there."""
    return {name: text for name, text in os.environ.items() if name != SIGNING_KEY}


def _data_of(made: Path) -> Path:
    return made.with_name(made.name + DATA_SUFFIX)


def _publish(
    wanted: StepWanted,
    shop: Converting,
    made: Path,
    sha256: str,
    size: int,
    details: Mapping[str, Any],
) -> Receipt:
    """Data first, then the ONNX that refers to it; a cut between the two is judged as tampered
    with, and made again."""
    data = _data_of(made)
    there = [path for path in (data, made) if path.exists()]
    receipt = Receipt(wanted.target.name, wanted.key, sha256, size, wanted.ingredients, details)
    for path in there:
        sync_file(path)
    shop.state.receipts.put(receipt)
    _bring(wanted, there, keep=data in there)
    return receipt


def _bring(wanted: StepWanted, there: list[Path], keep: bool) -> None:
    """Rename what was made to its place. keep: whether there is data beside the ONNX."""
    folder = wanted.target.parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in there:
        os.replace(path, folder / path.name)
    if not keep:
        wanted.data.unlink(missing_ok=True)
    sync_folder(folder)
