"""When an engine is compared with its original, and how its receipt records that.

A built or fetched engine is compared before it is published; a reused one if samples or bounds changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from ..files.engine_and_gpu_locks import gpu_lock
from .engine_spec import EngineSpec

if TYPE_CHECKING:
    from .build_context import BuildContext


def alone_on_gpu(
    spec: EngineSpec, context: BuildContext, waiting: Callable[[str], None]
) -> contextlib.AbstractContextManager[Any]:
    """Hold the lock of the GPU, if there is one."""
    uuid = context.gpu()
    if not uuid:
        return contextlib.nullcontext()
    what, timeout = context.state.relative(spec.engine), context.lock_timeout_s
    context.stage("waiting for the GPU")
    return gpu_lock(uuid, context.gpu_turn, what, waiting, context.stopping, timeout)


def receipt_details(
    spec: EngineSpec,
    context: BuildContext,
    before: Mapping[str, Any],
    engine: Path,
    sha256: str,
    waiting: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Further receipt details of an engine. before: those of its receipt; a comparison in it with
    the same samples and bounds remains valid. waiting: None if the GPU's lock is held. Raises EngineError:
    AccuracyError for an engine beyond its bound."""
    details = dict(spec.told())
    check = spec.check
    if check is None:
        return details
    accuracy = before.get("accuracy")
    proof = accuracy.get("engine") if isinstance(accuracy, dict) else None
    if not isinstance(proof, dict) or proof.get("by") != check.key():
        proof = _proof(spec, context, engine, sha256, waiting)
    figures = {**details["accuracy"], "engine": proof}
    with contextlib.suppress(EngineError):  # unused samples may be missing
        figures["by"] = proof["by"] if isinstance(proof, dict) else check.key()
    return {**details, "accuracy": figures}


def is_compared(spec: EngineSpec, details: Mapping[str, Any]) -> bool:
    """Whether an engine need not be run here: its receipt has the result, or it cannot run here."""
    check = spec.check
    if check is None or check.why_not() is not None:
        return True
    accuracy = details.get("accuracy")
    proof = accuracy.get("engine") if isinstance(accuracy, dict) else None
    return isinstance(proof, dict) and proof.get("by") == check.key()


def _proof(
    spec: EngineSpec,
    context: BuildContext,
    engine: Path,
    sha256: str,
    waiting: Callable[[str], None] | None,
) -> dict[str, Any] | str:
    check = spec.check
    assert check is not None
    why = check.why_not()
    if why is None:
        with alone_on_gpu(spec, context, waiting) if waiting else contextlib.nullcontext():
            context.stage("comparing it with its original on the GPU")
            found = check.run(spec, engine, sha256)
        if isinstance(found, dict):
            return found
        why = found
    return f"not run: {why}"


def update_receipt(
    spec: EngineSpec, sha256: str, context: BuildContext, waiting: Callable[[str], None]
) -> None:
    """Update the details in the receipt of a reused engine. Raises AccuracyError for one beyond its bound."""
    receipts = context.state.receipts
    try:
        known = receipts.find_by_bytes(spec.filename, spec.key, sha256) if spec.told() else None
    except (OSError, EngineError):
        return
    if known is None:
        return
    more = receipt_details(spec, context, known.details, spec.engine, sha256, waiting)
    details = {**known.details, **more}
    if details != known.details:
        with contextlib.suppress(OSError, EngineError):
            receipts.put(known._replace(details=details))
