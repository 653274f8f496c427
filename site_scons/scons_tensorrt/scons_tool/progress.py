"""Show the progress of compiles, conversions and downloads.

On a terminal, a bar for each at the bottom (`footer.py`); in a log or in CI, a line for each every ten
seconds; with `-s` or `-q`, nothing. The thread runs only while something is in progress, and the
library that draws is imported for the first bar, so a null build pays for neither.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from ..build.progress import UNWATCHED, ProgressHandle
from .console import Console
from .progress_row import ProgressRow

if TYPE_CHECKING:
    from .footer import Footer

TICK_S = 0.2
SHOWN_AFTER_S = 0.4  # shorter ones would only flash
LINE_EVERY_S = 10.0


class Progress:
    """The progress of a run. line_every_s: seconds between two lines of one task in a log."""

    def __init__(self, console: Console, line_every_s: float = LINE_EVERY_S) -> None:
        self._console = console
        self._line_every_s = line_every_s
        self._terminal = terminal(sys.stdout) if console.speaks else None
        self._footer: Footer | None = None
        self._running: list[_Bar] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, verb: str, label: str, short: str = "", unit: str = "") -> ProgressHandle:
        """Show something until its `end`; see `scons_tensorrt.build.progress`."""
        if not self._console.speaks:
            return UNWATCHED
        bar = _Bar(self, verb, label, short or label, unit)
        with self._changed:
            bar.line_due = bar.began + self._line_every_s
            self._running.append(bar)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
                self._thread.start()
        return bar

    def close(self) -> None:
        """Remove the bars and restore the terminal."""
        with self._changed:
            self._running.clear()
            self._show()
            self._changed.notify_all()

    def ended(self, bar: _Bar) -> None:
        with self._changed:
            if bar in self._running:
                self._running.remove(bar)
                if self._footer and self._footer.rows:
                    self._show()  # before its result line
                self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while self._running:
                self._show()
                self._changed.wait(TICK_S)
            self._thread = None

    def _show(self) -> None:
        now = time.monotonic()
        due = [bar for bar in self._running if now - bar.began >= SHOWN_AFTER_S]
        if self._terminal is not None and self._on_terminal([bar.shown(now) for bar in due]):
            return
        for bar in due:
            if now >= bar.line_due:
                bar.line_due += self._line_every_s
                row = bar.shown(now)
                doing = f": {row.doing}" if row.doing else ""
                self._console.line(f"{bar.verb} {bar.label} ({row.seconds:.0f} s){doing}")

    def _on_terminal(self, rows: list[ProgressRow]) -> bool:
        """Show the rows on the terminal; False if it cannot."""
        if self._footer is None:
            if not rows:
                return True
            try:
                from .footer import Footer  # the library that draws, as late as the first bar
            except ImportError:
                self._terminal = None
                return False
            assert self._terminal is not None
            self._footer = Footer(self._terminal, sys.stdout.encoding or "utf-8")
        try:
            return self._footer.show(rows)
        except OSError:  # the terminal is gone
            self._terminal = None
            return False


class _Bar:
    def __init__(self, progress: Progress, verb: str, label: str, short: str, unit: str) -> None:
        self._progress = progress
        self.verb, self.label, self._short, self._unit = verb, label, short, unit
        self.began = self._heard = time.monotonic()
        self.line_due = 0.0
        self._doing: tuple[int | None, int | None, str] = (None, None, "")

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        self._doing = (done, total, words)
        self._heard = time.monotonic()

    def end(self) -> None:
        self._progress.ended(self)

    def shown(self, now: float) -> ProgressRow:
        done, total, words = self._doing
        if done is None or not total:
            done = total = None
        seconds, quiet_s = now - self.began, now - self._heard
        texts = (self.verb, self.label, self._short, self._unit, words)
        return ProgressRow(*texts, done, total, seconds, quiet_s)


def terminal(stream: TextIO) -> int | None:
    """The descriptor of a terminal that can show bars; None for a log, CI or a dumb terminal."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return None
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    try:
        return stream.fileno() if stream.isatty() else None
    except (OSError, ValueError, AttributeError):
        return None
