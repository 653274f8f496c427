"""When an engine is run against its original, and what its receipt tells of it: after a compile or a
fetch, before it is published; and when a reused one is to be compared by other samples or bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from ..files.locks import gpu_lock
from .spec import EngineSpec

if TYPE_CHECKING:
    from .context import BuildContext


def alone_on_gpu(
    spec: EngineSpec, context: BuildContext, waiting: Callable[[str], None]
) -> contextlib.AbstractContextManager[Any]:
    """The lock of the GPU, where there is one."""
    uuid = context.gpu()
    if not uuid:
        return contextlib.nullcontext()
    what, timeout = context.state.relative(spec.engine), context.lock_timeout_s
    return gpu_lock(uuid, context.gpu_turn, what, waiting, context.stopping, timeout)


def receipt_details(
    spec: EngineSpec,
    context: BuildContext,
    before: Mapping[str, Any],
    engine: Path,
    sha256: str,
    waiting: Callable[[str], None] | None,
) -> dict[str, Any]:
    """What is told of an engine of these bytes now. before: what its receipt tells; a comparison by the
    same samples and bounds stands. waiting: None when the GPU's lock is held. Raises EngineError, for
    an engine beyond its bound AccuracyError."""
    told = dict(spec.told())
    check = spec.check
    if check is None:
        return told
    accuracy = before.get("accuracy")
    proof = accuracy.get("engine") if isinstance(accuracy, dict) else None
    if not isinstance(proof, dict) or proof.get("by") != check.key():
        proof = _proof(spec, context, engine, sha256, waiting)
    figures = {**told["accuracy"], "engine": proof}
    with contextlib.suppress(EngineError):  # samples that nobody needed may be missing
        figures["by"] = proof["by"] if isinstance(proof, dict) else check.key()
    return {**told, "accuracy": figures}


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
            found = check.run(spec, engine, sha256)
        if isinstance(found, dict):
            return found
        why = found
    return f"not run: {why}"


def update_receipt(
    spec: EngineSpec, sha256: str, context: BuildContext, waiting: Callable[[str], None]
) -> None:
    """Let the receipt of an engine that is reused tell what is told of it now. Raises EngineError for
    one that is beyond its bound by now."""
    receipts = context.state.receipts
    try:
        known = receipts.of_bytes(spec.filename, spec.key, sha256) if spec.told() else None
    except (OSError, EngineError):
        return  # what was told before stands
    if known is None:
        return
    told = {
        **known.details,
        **receipt_details(spec, context, known.details, spec.engine, sha256, waiting),
    }
    if told != known.details:
        with contextlib.suppress(OSError, EngineError):
            receipts.put(known._replace(details=told))
