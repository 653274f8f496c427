"""Which output of an accuracy gate is the worst: the one that uses the largest share of its bound."""

from __future__ import annotations

import math


def share_of_bound(error: float | None, bound: float | None) -> float:
    """error / bound: 1.0 is just allowed. 0.0 where one of the two is not known."""
    if not error or bound is None:
        return 0.0
    share = error / bound if bound else math.inf
    return math.inf if math.isnan(share) else share
