"""Values out of parsed JSON that may be damaged, hostile or from another version: one of a wrong type
counts as missing."""

from __future__ import annotations

import math
from typing import Any


def text(value: Any, longest: int = 4096) -> str:
    """A string, cut to `longest` characters; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= longest else value[:longest] + "…"


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an int too large for a float
        return None


def seconds(value: Any) -> float | None:
    """A duration: a finite number of at least 0; None for anything else."""
    found = number(value)
    return found if found is not None and found >= 0 else None


def mapping(value: Any) -> dict[str, Any]:
    """An object; empty for anything else."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """An array; empty for anything else."""
    return value if isinstance(value, list) else []


def plain(value: Any, depth: int = 12) -> Any:
    """`value` as strict JSON allows it: NaN, infinities, unknown types and deep nesting become null."""
    if isinstance(value, dict) and depth:
        return {str(key): plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        return [plain(each, depth - 1) for each in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    return number(value)
