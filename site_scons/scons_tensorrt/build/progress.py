"""How a room tells that something it does takes its time, without knowing who watches.

The graph hands a `Begin` down to whatever compiles, converts or fetches; nobody watches unless it
does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ProgressHandle(Protocol):
    """One thing that runs. Both may be called from any thread, as often as wished."""

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        """done, total: of what the unit counts, None where that is not known; words: what is being
        done. A call also says that it lives."""

    def end(self) -> None:
        """It is over, well or not; a second call does nothing."""


# begin(verb, label, short, unit): verb: "COMPILING"; label: the file as people know it; short: what
# a narrow terminal shows instead; unit: "B" for bytes, "" for steps.
BeginProgress = Callable[[str, str, str, str], ProgressHandle]


class _NoProgress:
    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        pass

    def end(self) -> None:
        pass


UNWATCHED: ProgressHandle = _NoProgress()


def no_progress(verb: str, label: str, short: str = "", unit: str = "") -> ProgressHandle:
    """A Begin for where nobody watches."""
    return UNWATCHED
