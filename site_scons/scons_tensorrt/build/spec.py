"""The spec of an engine, and the check whether the existing engine is up to date.

An engine is up to date if a receipt of its key exists, and the engine and its sidecar match that
receipt. The graph calls `check_up_to_date` before a build, the build calls it again under the engine's
lock, and the command line calls it to explain.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..artifact.receipt import Compared, Receipt, comparison, make_key
from ..artifact.sidecar import read_sidecar, sidecar_of
from ..artifact.state import StateFolder
from ..errors import SidecarError
from ..files.digest_cache import DigestCache
from ..hardware.resolve import Hardware
from ..recipe.key import differences, input_name
from ..recipe.onnx.summary import check_data
from ..recipe.options import Recipe
from ..values import Value


class AccuracyCheck(Protocol):
    """The comparison of an engine with its original, on the GPU that it is for.

    key: of samples and bounds; why_not: a known reason not to run it; run: the figures of the engine, with
    that key as `by`, or the reason why it was not run. Raises EngineError; AccuracyError beyond a bound.
    """

    def key(self) -> str: ...

    def why_not(self) -> str | None: ...

    def run(self, spec: EngineSpec, engine: Path, sha256: str) -> dict[str, Any] | str: ...


class EngineSpec(Value):
    """The spec of an engine. engine: its path; ingredients: see `recipe.key`; onnx, external: the input
    files; source: the label of the ONNX; told: further details for the receipt, which are not in the key;
    samples: of a calibrator, see worker/onnx/calibration_batches.py; check: if `accuracy=` is declared."""

    engine: Path
    recipe: Recipe
    hardware: Hardware
    ingredients: Mapping[str, str]
    onnx: Path
    source: str
    external: Mapping[str, Path]
    told: Callable[[], Mapping[str, Any]] = dict
    samples: Path | None = None
    check: AccuracyCheck | None = None

    @property
    def filename(self) -> str:
        return self.engine.name

    @property
    def key(self) -> str:
        return make_key(self.filename, self.ingredients)

    def inputs(self) -> dict[str, Path]:
        """Every input file by its ingredient name."""
        files = {"input onnx": self.onnx}
        files.update({f"input data {name}": path for name, path in self.external.items()})
        files.update({f"input plugin {path.name}": path for path in self.recipe.plugins})
        if self.samples:
            files[f"input samples {self.samples.name}"] = self.samples
        return files


class LastBuild(Value):
    """The input files of an engine. external: by location, with the least size in bytes; samples: of a
    calibrator, with their label; exact: locations of data that must have exactly that size."""

    onnx: Path
    source: str
    external: Mapping[str, tuple[Path, int]]
    samples: tuple[Path, str] | None = None
    exact: Sequence[str] = ()


def engine_spec(
    engine: Path,
    recipe: Recipe,
    hardware: Hardware,
    fields: Mapping[str, str],
    made: LastBuild,
    digest: Callable[[Path, str], str],
    told: Callable[[], Mapping[str, Any]] = dict,
) -> EngineSpec:
    """The spec with the present input files. fields: the ingredients that are not files; digest: of a path
    and its label. Raises RecipeError, and EngineError as `digest` does."""
    ingredients = dict(fields)
    ingredients[input_name("onnx")] = digest(made.onnx, made.source)
    for location, (path, least) in made.external.items():
        label = f"external data {location!r} of {made.source}"
        ingredients[input_name("data", location)] = digest(path, label)
        check_data(path, label, least, location in made.exact)
    for path in recipe.plugins:
        ingredients[input_name("plugin", path.name)] = digest(path, f"plugin {path.name}")
    if made.samples:
        samples, label = made.samples
        ingredients[input_name("samples", samples.name)] = digest(samples, label)
    return EngineSpec(
        engine=engine,
        recipe=recipe,
        hardware=hardware,
        ingredients=ingredients,
        onnx=made.onnx,
        source=made.source,
        external={location: path for location, (path, _) in made.external.items()},
        told=told,
        samples=made.samples and made.samples[0],
    )


class UpToDateResult(Value):
    """code: "current", "unfinished" (compiled, but not completely published), or the reason code of a
    rebuild; reason: in words; sha256: of a current engine; receipt: of an unfinished one; compared: the
    figures in its receipt."""

    code: str
    reason: str
    sha256: str | None = None
    receipt: Receipt | None = None
    compared: Compared | None = None

    @property
    def current(self) -> bool:
        return self.code == "current"

    @property
    def reusable(self) -> bool:
        return self.code in ("current", "unfinished")


def check_up_to_date(spec: EngineSpec, state: StateFolder, digest_cache: DigestCache) -> UpToDateResult:
    """Whether the engine is up to date, and if not, why."""
    whole = _whole(spec, state, digest_cache)
    if whole:
        return whole
    receipts = state.receipts.get(spec.filename, spec.key)
    if not receipts:
        return _unknown(spec, state)
    receipt = _of_these_bytes(spec, receipts, digest_cache) or receipts[0]
    fault = _engine_fault(spec, receipt, state, digest_cache) or _sidecar_fault(spec, receipt)
    if fault is None:
        return UpToDateResult("current", "", receipt.sha256, compared=comparison(receipt.details))
    from ..artifact.publish import Publication  # only what is at fault may be unfinished

    for each in receipts:
        if Publication(state, spec.engine, spec.key).pending(each):
            return UpToDateResult("unfinished", "publishing was interrupted", receipt=each)
    return UpToDateResult(*fault)


def _whole(spec: EngineSpec, state: StateFolder, digest_cache: DigestCache) -> UpToDateResult | None:
    """The result if engine, sidecar and receipt agree, at the cost of a stat each; else None."""
    try:
        stated = read_sidecar(spec.engine)
        size = os.lstat(spec.engine).st_size
        verified = state.receipts.find_verified(spec.filename, spec.key, stated, digest_cache)
        if verified is None or verified.size != size:
            return None
        if digest_cache.sha256(spec.engine, follow=False) != stated:
            return None
        return UpToDateResult("current", "", stated, compared=verified.compared)
    except (SidecarError, OSError):
        return None


def _of_these_bytes(spec: EngineSpec, receipts: list[Receipt], digest_cache: DigestCache) -> Receipt | None:
    """The receipt of the existing engine."""
    try:
        size = os.lstat(spec.engine).st_size
        if all(receipt.size != size for receipt in receipts):
            return None
        digest = digest_cache.sha256(spec.engine, follow=False)
    except OSError:
        return None
    return next((receipt for receipt in receipts if receipt.sha256 == digest), None)


def _unknown(spec: EngineSpec, state: StateFolder) -> UpToDateResult:
    """The reason if the key has no receipt: what differs from the existing engine's receipt."""
    try:
        stated = read_sidecar(spec.engine)
    except SidecarError:
        stated = None
    known = list(state.receipts.all_of(spec.filename))
    made_this = next((r for r in known if r.sha256 == stated), None)
    if made_this is None and known and not os.path.lexists(spec.engine):
        made_this = known[0]
    if made_this is not None:
        return UpToDateResult("changed", _changes(made_this, spec))
    if os.path.lexists(spec.engine):
        return UpToDateResult("receipt_missing", "the engine has no receipt")
    return UpToDateResult("new", "not built before")


def _changes(receipt: Receipt, spec: EngineSpec) -> str:
    """What differs, in words. On a Jetson the SM count depends on the power mode, so both are named."""
    changed = differences(receipt.ingredients, spec.ingredients, spec.source)
    now = spec.hardware.signature.recorded.get("power_mode")
    try:
        then = receipt.details["hardware"]["signature"]["recorded"]["power_mode"]
    except (KeyError, TypeError):
        then = None
    if then and now and any(change.startswith("hardware sm_count ") for change in changed):
        changed.append(f"power mode then {then}, now {now}")
    return "; ".join(changed)


def _engine_fault(
    spec: EngineSpec, receipt: Receipt, state: StateFolder, digest_cache: DigestCache
) -> tuple[str, str] | None:
    engine = spec.engine
    try:
        found = os.lstat(engine)
        if stat.S_ISLNK(found.st_mode):
            return "engine_tampered", "the engine is a symbolic link, which is never followed"
        size = found.st_size
        if size == receipt.size:
            digest = digest_cache.sha256(engine, follow=False)
            if digest == receipt.sha256:
                return None
    except FileNotFoundError:
        return "engine_missing", "the engine is missing"
    except OSError as error:
        return "engine_unreadable", f"the engine is not readable ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):
        return "engine_tampered", "the engine is not a regular file"
    other = _of_these_bytes(spec, list(state.receipts.all_of(spec.filename)), digest_cache)
    if other is not None:
        return "engine_other", "the engine is from another build: " + _changes(other, spec)
    if size == 0:
        return "engine_truncated", "the engine is empty"
    if size < receipt.size:
        return "engine_truncated", f"the engine is truncated: {size} of {receipt.size} bytes"
    if size > receipt.size:
        return (
            "engine_tampered",
            f"the engine has {size} bytes, not the {receipt.size} it was built with",
        )
    moved = f"sha256 {receipt.sha256[:12]} → {digest[:12]}"
    return "engine_tampered", f"the engine was modified after it was built: {moved}"


def _sidecar_fault(spec: EngineSpec, receipt: Receipt) -> tuple[str, str] | None:
    try:
        stated = read_sidecar(spec.engine)
    except SidecarError as error:
        words = str(error).removeprefix(f"{sidecar_of(spec.engine)}: sidecar ")
        code = "sidecar_missing" if words == "missing" else "sidecar_malformed"
        return code, "its sidecar " + words if words.startswith("names") else f"its sidecar is {words}"
    if stated != receipt.sha256:
        return "sidecar_mismatch", f"its sidecar belongs to another engine: {stated[:12]}"
    return None
