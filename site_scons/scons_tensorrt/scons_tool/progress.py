"""Show the progress of compiles, conversions and downloads.

On a terminal, a bar for each at the bottom (`progress_bars.py`); elsewhere, a line for each every ten
seconds; with `-s` or `-q`, nothing. The thread runs only while something is in progress, and rich is
imported for the first bar, so a null build pays for neither.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..build.progress import UNWATCHED, ProgressHandle
from .console import Console, terminal
from .progress_task import ProgressTask

if TYPE_CHECKING:
    from .progress_bars import ProgressBars

TICK_S = 0.2
SHOWN_AFTER_S = 0.4  # shorter ones would only flash
LINE_EVERY_S = 10.0


class Progress:
    """The progress of a run.

    counts: returns how many engines are done, and how many are requested; line_every_s: seconds
    between two lines of one task in a log.
    """

    def __init__(
        self,
        console: Console,
        counts: Callable[[], tuple[int, int]] = lambda: (0, 0),
        line_every_s: float = LINE_EVERY_S,
    ) -> None:
        self._line_every_s = line_every_s
        self._console = console
        self._counts = counts
        self._terminal = terminal(sys.stdout) if console.speaks else None
        self._began = time.monotonic()
        self._footer: ProgressBars | None = None
        self._running: list[ProgressTask] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, verb: str, label: str, short: str = "", unit: str = "") -> ProgressHandle:
        """Show a task until its `end`: a `BeginProgress`."""
        if not self._console.speaks:
            return UNWATCHED
        task = ProgressTask(verb, label, short or label, unit, self._ended)
        task.line_due = task.began + self._line_every_s
        with self._changed:
            self._running.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
                self._thread.start()
        return task

    def close(self) -> None:
        """Remove the bars and restore the terminal."""
        with self._changed:
            self._running.clear()
            self._show()
            self._changed.notify_all()

    def _ended(self, task: ProgressTask) -> None:
        """Remove the bar of a task, before its result is printed."""
        with self._changed:
            if task in self._running:
                self._running.remove(task)
                if self._footer and self._footer.rows:
                    self._show()
                self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while self._running:
                self._show()
                self._changed.wait(TICK_S)
            self._thread = None

    def _show(self) -> None:
        now = time.monotonic()
        due = [task for task in self._running if now - task.began >= SHOWN_AFTER_S]
        if self._terminal is not None and self._on_terminal(self._terminal, due, now):
            return
        for task in due:
            if now >= task.line_due:
                task.line_due += self._line_every_s
                doing = task.shown(now)[2]
                text = f"{task.verb} {task.label} ({now - task.began:.0f} s)"
                self._console.line(f"{text}: {doing}" if doing else text)

    def _on_terminal(self, descriptor: int, tasks: list[ProgressTask], now: float) -> bool:
        """Show the bars on the terminal; False if it cannot."""
        if self._footer is None and not tasks:
            return True
        try:
            if self._footer is None:
                from .progress_bars import ProgressBars  # imports rich

                self._footer = ProgressBars(descriptor, sys.stdout.encoding or "utf-8", self._began)
            return self._footer.show(tasks, *self._counts(), now)
        except (ImportError, OSError):  # no rich, or the terminal is closed
            self._terminal = None
            return False
