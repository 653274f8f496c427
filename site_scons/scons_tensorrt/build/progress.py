"""The interface by which compiles, conversions and transfers report progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ProgressHandle(Protocol):
    """One running task. Methods may be called from any thread, any number of times."""

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        """done, total: in units, None if unknown; words: the current activity. A call also shows that the
        task is alive."""

    def end(self) -> None:
        """The task succeeded or failed."""


# begin(verb, label, short, unit): verb: for example "COMPILING"; label: of the file; short: for a narrow
# terminal; unit: "B" for bytes, "" for steps.
BeginProgress = Callable[[str, str, str, str], ProgressHandle]


class _NoProgress:
    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        pass

    def end(self) -> None:
        pass


# stage(words): what this thread does next, for the profile of a run. It ends the stage before.
BeginStage = Callable[[str], None]


def no_stage(words: str) -> None:
    """A BeginStage that records nothing."""


UNWATCHED: ProgressHandle = _NoProgress()


def no_progress(verb: str, label: str, short: str = "", unit: str = "") -> ProgressHandle:
    """A BeginProgress that shows nothing."""
    return UNWATCHED
