"""The kernels of an engine with `timing_cache=`: those its compile must use, and how to record them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact.publish import Publication
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..errors import RecipeError
from ..files.engine_and_gpu_locks import engine_lock
from ..files.reading import read_small
from ..files.untrusted_json import mapping
from ..files.writing import new_file
from ..recipe.timing_cache_file import LARGEST, TimingFile, compare, read_timing_file, tactic_of
from ..worker.trt.job import PinnedKernels
from .accuracy_details import alone_on_gpu
from .build_context import BuildContext
from .engine_spec import TIMINGS, EngineSpec
from .inputs_held_open import changed

DETAIL = "kernels"  # of a receipt: text by key, see recipe/timing_cache_file.py


@dataclass
class Recording:
    """A compile that records kernels. known: what to begin with, None for nothing; cache: the serialized
    timing cache after the compile."""

    label: str
    known: TimingFile | None
    cache: bytes = b""

    def take(self, model: Path) -> None:
        """Read what the worker wrote. Raises OSError."""
        self.cache = read_small(_beside(model, "recorded"), LARGEST, follow=False)


def pinned_kernels(
    spec: EngineSpec, state: StateFolder, model: Path, recording: Recording | None
) -> PinnedKernels | None:
    """The part of a job that says which kernels to use, or to record. model: of `linked_model`, in whose
    folder the serialized cache is written. Raises RecipeError, EngineBuildError and OSError."""
    path = spec.recipe.timing_cache
    if recording:
        label, known, record = recording.label, recording.known, str(_beside(model, "recorded"))
    elif path is None:
        return None
    else:
        label, record = label_of(path, state), None
        known, data = read_timing_file(path, label)
        if hashlib.sha256(data).hexdigest() != spec.ingredients[TIMINGS]:
            raise changed(path, "compiled")
        known.check_hardware(spec.hardware.signature, label)
    if known is None:
        return PinnedKernels(label, None, {}, record)
    start = _beside(model, "timings")
    with new_file(start) as out:
        out.write(known.cache)
    tactics = {key: tactic_of(text) for key, text in known.kernels.items()}
    return PinnedKernels(label, str(start), tactics, record)


def label_of(path: Path, state: StateFolder) -> str:
    """The name of a file in messages."""
    label = state.relative(path)
    return path.name if label.startswith("/") else label


def _beside(model: Path, end: str) -> Path:
    return model.with_name(f"{model.name}.{end}")


def beside(model: Path) -> set[str]:
    """The names of the files beside a model that this module uses."""
    return {_beside(model, end).name for end in ("timings", "recorded")}


def record_kernels(
    spec: EngineSpec,
    recording: Recording,
    context: BuildContext,
    compiled: Callable[[EngineSpec, BuildContext, Path, Recording], tuple[Receipt, float]],
) -> TimingFile:
    """Compile an engine, which is not kept, to record its kernels. spec: without `timing_cache`; compiled:
    `compile_engine`. Raises EngineError."""
    what = context.state.relative(spec.engine)

    def waiting(holder: str) -> None:
        context.say(f"WAITING {what}: for {holder}")

    lock = context.state.lock(spec.engine)
    with engine_lock(lock, what, waiting, context.stopping, context.lock_timeout_s):
        publication = Publication(context.state, spec.engine, spec.key)
        partial = publication.open()
        try:
            with alone_on_gpu(spec, context, waiting):
                receipt, _ = compiled(spec, context, partial, recording)
        finally:
            publication.abandon()
    hardware = spec.hardware.signature.key_fields()
    before = recording.known.kernels if recording.known else {}
    found = mapping(receipt.details.get(DETAIL))
    return TimingFile(hardware, {**before, **_with_names(before, found)}, recording.cache)


def _with_names(before: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str]:
    """The kernels found; a layer that was not timed again keeps its name."""
    texts = {key: str(text) for key, text in found.items()}
    same = {k: t for k, t in before.items() if k in texts and tactic_of(t) == tactic_of(texts[k])}
    return {**texts, **{key: text for key, text in same.items() if " " not in texts[key]}}


def with_kernels(changes: list[str], receipt: Receipt, spec: EngineSpec) -> list[str]:
    """The changes since a receipt in words. A changed timing cache also says how its kernels differ."""
    before, path = mapping(receipt.details.get(DETAIL)), spec.recipe.timing_cache
    if not before or path is None:
        return changes
    try:
        now = read_timing_file(path, path.name)[0].kernels
    except RecipeError:
        return changes
    told = compare(before, now).describe(len(now))
    return [f"{each} ({told})" if each.startswith("timing_cache changed") else each for each in changes]
