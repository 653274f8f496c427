"""Progress bars on the last lines of a terminal.

`rich.progress` draws them. Its live display cannot place them: it moves the cursor up and draws over
its last frame, which breaks the lines of everyone who does not print through rich. That is SCons's
child processes, which write to the terminal themselves. So, as apt does, the terminal's scrolling
region ends above the bars, and all other output scrolls there. Each redraw is one write that
leaves the cursor where it was. Below the cursor stand only bars, so after a resize everything there
may be erased.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import progress
from rich.console import Console
from rich.table import Column

if TYPE_CHECKING:
    from .progress_task import ProgressTask

LEAST = (40, 6)  # columns, lines; in a smaller terminal, lines are printed as in a log
WIDE = 60  # columns from which on there is room for the bars themselves
STOPPED_S = 1.0  # after so long without a redraw, others may have used the terminal
SAVE, RESTORE = "\x1b7", "\x1b8"
WHOLE_SCREEN, ERASE_BELOW, ERASE_RIGHT = "\x1b[r", "\x1b[J", "\x1b[K"
DOWN = "\x1bD"  # scrolls at the bottom, keeps the column


class ProgressBars:
    """rows: the lines that it takes from the terminal now; began: of the run, in `time.monotonic`.
    Calls must not overlap."""

    def __init__(self, descriptor: int, encoding: str, began: float) -> None:
        self.rows = 0
        self._descriptor = descriptor
        self._encoding = encoding
        self._began = began
        self._size = (0, 0)
        self._shown_at = 0.0

    def show(self, tasks: Sequence[ProgressTask], done: int, requested: int, now: float) -> bool:
        """Draw a bar for each of the tasks and no others, below a row of how many engines are done.
        False if they cannot be shown: the terminal is too small, or another program has it. Raises
        OSError when it is closed."""
        columns, lines = os.get_terminal_size(self._descriptor)
        if columns < LEAST[0] or lines < LEAST[1] or _in_background(self._descriptor):
            self._write(self._leave())
            return False
        texts = self._draw(tasks, done, requested, now, columns, lines // 2) if tasks else []
        out = ""
        moved = (columns, lines) != self._size or now - self._shown_at > STOPPED_S
        if len(texts) != self.rows or (moved and self.rows):
            out = self._leave() + self._enter(len(texts))
        self._size, self._shown_at = (columns, lines), now
        if texts:
            first = lines - len(texts) + 1
            out += f"{SAVE}\x1b[1;{first - 1}r"
            out += "".join(f"\x1b[{first + i};1H{t}{ERASE_RIGHT}" for i, t in enumerate(texts))
            out += RESTORE
        self._write(out)
        return True

    def _leave(self) -> str:
        """Give the lines back, and erase them."""
        rows, self.rows = self.rows, 0
        return f"{SAVE}{WHOLE_SCREEN}{RESTORE}{ERASE_BELOW}" if rows else ""

    def _enter(self, rows: int) -> str:
        """Make sure that the last lines are below the cursor."""
        self.rows = rows
        return DOWN * rows + f"\x1b[{rows}A" if rows else ""

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _draw(
        self, tasks: Sequence[ProgressTask], done: int, requested: int, now: float, columns: int, most: int
    ) -> list[str]:
        """The rows, at most `most`."""
        # A character in the last column would let some terminals wrap.
        console = Console(force_terminal=True, width=columns - 1)
        bars = progress.Progress(*_columns(columns), console=console, expand=True, get_time=lambda: now)

        def add(verb: str, short: str, doing: str, done: int, total: int | None, began: float) -> None:
            number = bars.add_task(verb, completed=done, total=total, short=short, doing=doing)
            bars.tasks[number].start_time = began

        counted = requested > 1 or len(tasks) > most
        shown = tasks[: most - counted]
        if counted:
            more = f"+{len(tasks) - len(shown)} more" if len(shown) < len(tasks) else ""
            add("engines", f"{done}/{requested}", more, done, requested, self._began)
        for task in shown:
            done, total, doing = task.shown(now)  # without a total, the bar pulses
            add(task.verb, task.short, doing, done, total, task.began)
        with console.capture() as captured:
            console.print(bars.get_renderable())
        return captured.get().splitlines()


def _columns(width: int) -> list[progress.ProgressColumn]:
    """The columns of a row, on a terminal of this width."""
    verb = Column(no_wrap=True, min_width=len("CONVERTING"))  # the longest, so that rows do not shift
    short, doing = Column(no_wrap=True, max_width=width // 3), Column(no_wrap=True, ratio=1)
    bar = [progress.BarColumn(12 if width < 90 else 20)] if width >= WIDE else []
    return [
        progress.TextColumn("{task.description}", style="bold", markup=False, table_column=verb),
        progress.TextColumn("{task.fields[short]}", markup=False, table_column=short),
        *bar,
        progress.TextColumn("{task.fields[doing]}", style="dim", markup=False, table_column=doing),
        progress.TimeElapsedColumn(Column(no_wrap=True)),
    ]


def _in_background(descriptor: int) -> bool:
    """Whether this is a background job of the shell on this terminal."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # not the controlling terminal, so no shell shares it
        return False
