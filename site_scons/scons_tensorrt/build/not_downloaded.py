"""What is known of an input file that was found in the shared engine cache and not downloaded."""

from __future__ import annotations

from collections.abc import Callable

from ..recipe.onnx.summary import OnnxSummary
from ..values import Value


def _nothing() -> None:
    pass


class AbsentFile(Value):
    """summary: of an ONNX; bring: downloads or makes the file. Raises EngineError."""

    sha256: str
    summary: OnnxSummary | None = None
    bring: Callable[[], None] = _nothing
