"""What a step does next, for its progress line and for the profile of the run."""

from __future__ import annotations

from collections.abc import Callable

_told: list[Callable[[str], None]] = []


def tell(told: Callable[[str], None]) -> None:
    """Let `begin` call `told`. Before that, as in a test, it does nothing."""
    _told[:] = [told]


def begin(words: str) -> None:
    """What comes next, such as "running the samples"."""
    for told in _told:
        told(words)
