"""Sizes as a person writes them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?) ?(?:([kMGT])(i?))?B?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of `500`, `1.5G` (10^9) or `5Gi` (2^30). Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text}: not a size such as 500G")
    power = " kmgt".index((found[2] or " ").lower())
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)
