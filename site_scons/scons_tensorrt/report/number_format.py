"""Format numbers and times for people."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from .history import parse_time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
NONE = "–"


def size(count: float | None) -> str:
    """Bytes: 20358780 → 19.4 MiB."""
    if count is None:
        return NONE
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Seconds: 2.933 → 2.93 s, 75 → 1 min 15 s."""
    if seconds is None:
        return NONE
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def count(value: float | None) -> str:
    """Whole numbers: 4194304 → 4.19 M."""
    if value is None:
        return NONE
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= max(least, 1e4):
            return f"{value / least:.3g} {unit}"
    return f"{value:g}"


def change(now: float | None, before: float | None) -> str:
    """Relative change: +3.2 %, −1.0 %, same."""
    if now is None or not before:
        return NONE
    percent = (now / before - 1) * 100
    if abs(percent) < 0.05:
        return "same"
    return f"{'+' if percent > 0 else '−'}{abs(percent):.1f} %"


def moment(stamp: str, exact: bool = False) -> str:
    """2026-11-25T03:52:43Z → 25 Nov 2026, 03:52 UTC; exact: with seconds."""
    seconds = parse_time(stamp)
    if seconds is None:
        return stamp or NONE
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{at.day} {at:%b %Y, %H:%M:%S} UTC" if exact else f"{at.day} {at:%b %Y, %H:%M} UTC"


def shape(sizes: Any) -> str:
    """A shape: 1×3×224×224, `?` for a dimension known only at run time."""
    if not isinstance(sizes, list):
        return "rank unknown"
    return "×".join("?" if each is None else str(each) for each in sizes) or "scalar"


def profile(ranges: Any) -> str:
    """(min, opt, max) of an input, or its one shape."""
    if not isinstance(ranges, list) or len(ranges) != 3:
        return NONE
    low, opt, high = map(shape, ranges)
    return opt if low == high else f"{low} … {opt} … {high}"


def figure(value: float | None) -> str:
    """An error or a bound, to three digits."""
    return NONE if value is None else f"{value:.3g}"
