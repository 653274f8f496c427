"""The check whether an existing engine is up to date, and if not, why.

An engine is up to date if a receipt of its cache key exists, and the engine and its sidecar match that
receipt. The graph calls `check_up_to_date` before a build, the build calls it again under the engine's
lock, and the command line calls it to explain.
"""

from __future__ import annotations

import os
import stat

from ..artifact.receipt import Compared, Receipt, comparison
from ..artifact.sidecar import read_sidecar, sidecar_of
from ..artifact.state_folder import StateFolder
from ..errors import SidecarError
from ..files.digest_cache import DigestCache
from ..recipe.key_ingredients import differences
from ..values import Value
from .engine_spec import EngineSpec

NOT_DOWNLOADED = "not_downloaded"  # reason code: an earlier run found it in the shared cache


class UpToDateResult(Value):
    """code: "current", "unfinished" (compiled, but not completely published), or the reason code of a
    rebuild; reason: in words; sha256: of a current engine; receipt: of an unfinished one, or of an ONNX
    that was not downloaded; compared: the figures in its receipt."""

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
    whole = _complete_pair(spec, state, digest_cache)
    if whole:
        return whole
    receipts = state.receipts.of_key(spec.filename, spec.key)
    if not receipts:
        return _without_a_receipt(spec, state)
    receipt = _receipt_of_bytes(spec, receipts, digest_cache) or receipts[0]
    fault = _engine_fault(spec, receipt, state, digest_cache) or _sidecar_fault(spec, receipt)
    if fault is None:
        return UpToDateResult("current", "", receipt.sha256, compared=comparison(receipt.details))
    from ..artifact.publish import Publication  # only what is at fault may be unfinished

    for each in receipts:
        if Publication(state, spec.engine, spec.key).pending(each):
            return UpToDateResult("unfinished", "publishing was interrupted", receipt=each)
    return UpToDateResult(*fault)


def _complete_pair(spec: EngineSpec, state: StateFolder, digest_cache: DigestCache) -> UpToDateResult | None:
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


def _receipt_of_bytes(spec: EngineSpec, receipts: list[Receipt], digest_cache: DigestCache) -> Receipt | None:
    """The receipt of the existing engine."""
    try:
        size = os.lstat(spec.engine).st_size
        if all(receipt.size != size for receipt in receipts):
            return None
        digest = digest_cache.sha256(spec.engine, follow=False)
    except OSError:
        return None
    return next((receipt for receipt in receipts if receipt.sha256 == digest), None)


def _without_a_receipt(spec: EngineSpec, state: StateFolder) -> UpToDateResult:
    """The reason if the key has no receipt: what differs from the existing engine's receipt."""
    try:
        stated = read_sidecar(spec.engine)
    except SidecarError:
        stated = None
    known = list(state.receipts.of_file(spec.filename))
    receipt_of_bytes = next((r for r in known if r.sha256 == stated), None)
    if receipt_of_bytes is None and known and not os.path.lexists(spec.engine):
        receipt_of_bytes = known[0]
    if receipt_of_bytes is not None:
        return UpToDateResult("changed", _changes(receipt_of_bytes, spec))
    if os.path.lexists(spec.engine):
        return UpToDateResult("receipt_missing", "the engine has no receipt")
    return UpToDateResult("new", "not built before")


def _changes(receipt: Receipt, spec: EngineSpec) -> str:
    """What differs, in words. On a Jetson the SM count depends on the power mode, so both are named."""
    changed = differences(receipt.ingredients, spec.ingredients, spec.source)
    if spec.recipe.timing_cache:
        from .kernel_pinning import with_kernels

        changed = with_kernels(changed, receipt, spec)
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
        if not receipt.downloaded:
            return NOT_DOWNLOADED, "not downloaded before"
        return "engine_missing", "the engine is missing"
    except OSError as error:
        return "engine_unreadable", f"the engine is not readable ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):
        return "engine_tampered", "the engine is not a regular file"
    other = _receipt_of_bytes(spec, list(state.receipts.of_file(spec.filename)), digest_cache)
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
