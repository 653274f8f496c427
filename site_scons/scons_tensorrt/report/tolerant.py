"""JSON of our own that may be damaged, of an older version, or somebody else's: each value is what it
should be, or nothing."""

from __future__ import annotations

import math
from typing import Any


def text(value: Any, longest: int = 4096) -> str:
    """A text, cut to `longest` characters; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= longest else value[:longest] + "…"


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number that no float holds
        return None


def seconds(value: Any) -> float | None:
    """A duration: a finite number from 0 on."""
    found = number(value)
    return found if found is not None and found >= 0 else None


def mapping(value: Any) -> dict[str, Any]:
    """An object; empty for anything else."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """An array; empty for anything else."""
    return value if isinstance(value, list) else []


def plain(value: Any, depth: int = 12) -> Any:
    """The same as strict JSON can hold it: what is no number becomes null."""
    if isinstance(value, dict) and depth:
        return {str(key): plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        return [plain(each, depth - 1) for each in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    return number(value)
