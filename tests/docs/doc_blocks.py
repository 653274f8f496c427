"""Fenced blocks and inline commands of the pages.

A block is run, is shown (`text`), or has a line above it that says why it is not run:
`<!-- not run: needs BitBake -->`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
RUN = ("sh", "console", "python", "make")
SHOWN = ("text", "toml", "cmake", "meson")

_FENCE = re.compile(r"^( *)(```+|~~~+)(.*)$")
_NOT_RUN = re.compile(r"^ *<!-- not run: *(.*?) *-->$")


@dataclass(frozen=True)
class Block:
    """A fenced block. reason: why it is not run; None where it is."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPO)}:{self.line}"

    def commands(self) -> str:
        """What a reader types: of a console, the lines behind `$ `."""
        if self.language != "console":
            return self.text
        return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith("$ "))


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks, in order. Raises ValueError for one that is not closed."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        match = _FENCE.match(line)
        if match is None:
            continue
        if start is None:
            start, fence, language = number, match[2], match[3].strip()
        elif match[2] == fence and not match[3]:
            text = textwrap.dedent("\n".join(lines[start + 1 : number]) + "\n")
            above = _NOT_RUN.match(lines[start - 1]) if start else None
            found.append(Block(page, start + 1, language, text, above[1] if above else None))
            start = None
    if start is not None:
        raise ValueError(f"{page.name}:{start + 1}: a block that is not closed")
    return found


def inline(page: Path) -> list[str]:
    """Code spans of the page, outside its fenced blocks, each on one line."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^ *(```+)[^\n]*\n.*?^ *\1$", "", text, flags=re.M | re.S)
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", text)]
