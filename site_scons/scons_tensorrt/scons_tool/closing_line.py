"""The closing line of a run: `engines: N reused, N built, N failed in S s`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .console import Console

if TYPE_CHECKING:
    from ..cache.transfer_counts import Sum

_ALWAYS = ("reused", "built", "failed")
_UNLESS_ZERO = ("fetched", "found", "dispatched")
_COUNTED = (*_ALWAYS, *_UNLESS_ZERO, "interrupted", "would build")


class Summary:
    """Counts the outcomes of engines, in all and for each hardware. dry: under `-n`."""

    def __init__(self, console: Console, dry: bool) -> None:
        self._console = console
        self._dry = dry
        self._began = time.time()
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._boards: dict[str, dict[str, int]] = {}
        self.moved: Mapping[str, Sum] = {}  # to and from the shared cache, see cache/transfer_counts.py
        self._earlier: list[float | None] = []  # durations of the last builds of what would be built

    def add(self, board: str, outcome: str) -> None:
        """Count an engine. board: its hardware; outcome: such as "built"."""
        self._counts[outcome] += 1
        self._boards.setdefault(board, dict.fromkeys(_COUNTED, 0))[outcome] += 1

    def would_take(self, earlier_s: float | None) -> None:
        """Add the duration of the last build of what would be built, None if no receipt has it."""
        self._earlier.append(earlier_s)

    def print(self, not_reached: int = 0) -> None:
        """Print the line, after one for each hardware if there are several. not_reached: the number of
        engines that an interrupted run did not reach."""
        counts, seconds = self._counts, time.time() - self._began
        boards = self._boards if len(self._boards) > 1 else {}
        for board, of_it in boards.items():
            self._console.line(f"engines: {board}: {_text(of_it)}{self._would(of_it)}")
        more = self._would(counts, self._estimate())
        if not_reached:
            more = f" (stopped: {not_reached} not reached)"
        self._console.line(f"engines: {_text(counts)} in {seconds:.1f} s{more}")
        fields: dict[str, Any] = _to_show(counts)
        if boards:
            fields["hardware"] = {board: _to_show(of_it) for board, of_it in boards.items()}
        if self.moved:
            fields["bytes"] = {name: each.size for name, each in self.moved.items()}
        times = {"started": self._console.stamp(self._began), "seconds": round(seconds, 3)}
        self._console.event("engine.compile.summary", **fields, **times)

    def _would(self, counts: Mapping[str, int], more: str = "") -> str:
        return f" (dry run: {counts['would build']} would be built{more})" if self._dry else ""

    def _estimate(self) -> str:
        """The total time of the last builds of what would be built."""
        steps = len(self._earlier) - self._counts["would build"]
        text = f", {steps} converted or checked" if steps else ""
        known = [seconds for seconds in self._earlier if seconds is not None]
        if known:
            of = f"{len(known)} of {len(self._earlier)} known"
            return f"{text}; {sum(known):.0f} s by earlier receipts, {of}"
        return f"{text}; no earlier receipt says how long that takes" if self._earlier else text


def _text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {word}" for word, number in _to_show(counts).items())


def _to_show(counts: Mapping[str, int]) -> dict[str, int]:
    words = [*_ALWAYS[:2], *(word for word in _UNLESS_ZERO if counts[word]), _ALWAYS[2]]
    words += ["interrupted"] * bool(counts["interrupted"])
    return {word: counts[word] for word in words}
