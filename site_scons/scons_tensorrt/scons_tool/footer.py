"""Bars at the foot of a terminal, below everything that anyone prints.

Rich draws them; where they stand is decided here, because others print meanwhile: SCons from
several threads, and the compilers that it starts, which write to the terminal and know nothing of
Python's sys.stdout. What rich and tqdm do (go up some lines and draw over) breaks the lines of
such. So the terminal's scrolling region ends above the bars, as apt does it: whoever prints, prints
and scrolls above. Each redraw is one write that ends where it found the cursor: nothing flickers.
Below the cursor stands nothing but bars; after a resize, which moves them, that is what is erased.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from .progress_row import ProgressRow

LEAST = (40, 6)  # columns, lines: in a smaller terminal lines are told instead
STOPPED_S = 1.0  # no redraw for so long: others may have used the terminal
SAVE, RESTORE = "\x1b7", "\x1b8"
WHOLE_SCREEN, ERASE_BELOW, ERASE_RIGHT = "\x1b[r", "\x1b[J", "\x1b[K"
DOWN = "\x1bD"  # scrolls at the bottom, keeps the column


class Footer:
    """rows: lines that are taken from the terminal now. Calls must not overlap."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.rows = 0
        self._descriptor = descriptor
        self._encoding = encoding
        self._size = (0, 0)
        self._shown_at = 0.0
        self._sheet = _Sheet(encoding)
        self._console = Console(file=self._sheet, force_terminal=True)

    def show(self, bars: Sequence[ProgressRow]) -> bool:
        """Draw these and no others. False where they cannot be shown: the terminal is too small, or
        another program has it. Raises OSError when it is gone."""
        columns, lines = os.get_terminal_size(self._descriptor)
        if columns < LEAST[0] or lines < LEAST[1] or _in_background(self._descriptor):
            self._write(self._leave())
            return False
        texts = self._draw(bars, columns, lines // 2) if bars else []
        now = time.monotonic()
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
        """Give the lines back, and erase what stood there."""
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

    def _draw(self, bars: Sequence[ProgressRow], columns: int, most: int) -> list[str]:
        more = len(bars) - most
        if more > 0:
            bars = bars[: most - 1]
        grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, max_width=columns // 3)
        if columns >= 60:
            grid.add_column(width=12 if columns < 90 else 20)
        grid.add_column(no_wrap=True, ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        for bar in bars:
            cells: list[RenderableType] = [
                Text(bar.verb, "bold"),
                Text(bar.short),
                _bar(bar),
                Text(bar.doing, "dim"),
                Text(f"{int(bar.seconds) // 60}:{int(bar.seconds) % 60:02}"),
            ]
            grid.add_row(*(cells if columns >= 60 else cells[:2] + cells[3:]))
        # A character in the last column would let some terminals wrap.
        self._console.print(grid, width=columns - 1)
        texts = self._sheet.take().splitlines()
        return [*texts, f"and {more + 1} more"] if more > 0 else texts


def _in_background(descriptor: int) -> bool:
    """Whether this is a job that its shell has put behind another."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # no terminal of this session's: nobody shares it
        return False


def _bar(bar: ProgressRow) -> ProgressBar:
    """Of known steps how many; else, and when nothing is heard, a pulse that only says it lives."""
    if bar.total is None or bar.done is None or bar.pulses:
        return ProgressBar(pulse=True, animation_time=bar.seconds)
    return ProgressBar(total=bar.total, completed=bar.done)


class _Sheet(io.StringIO):
    """Where rich writes; by its encoding rich chooses the characters of a bar."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def take(self) -> str:
        """What was written since the last call."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text
