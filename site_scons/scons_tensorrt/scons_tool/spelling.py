"""Settings on the command line that nobody reads, because their names are misspelled."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from pathlib import Path

import SCons.Node

from .nodes import files_read
from .store_settings import RENAMED

SHORT = 5  # letters: other words differ from such a name by a single letter
LONG = 8  # letters: two may be wrong


def misspelled(names: Iterable[str], arguments: Collection[str], variables: Collection[str]) -> list[str]:
    """What is wrong with those of several names that are close to a setting, and what to write.

    arguments: the settings of the command line; variables: those of the environment.
    """
    found = []
    for name in names:
        if name in variables:
            known = name.removeprefix("TRT_") in arguments
            what = f"write {_today(name)}=" if known else f"set {name} in the environment instead"
            found.append(f"{name}= is not read from the command line; {what}")
            continue
        right = next((known for known in (*arguments, *variables) if _close(name, known)), None)
        if right and right.removeprefix("TRT_") in arguments:
            found.append(f"{name}= is no setting; write {_today(right)}=")
        elif right:
            found.append(f"{name}= is no setting; set {right} in the environment")
    return found


def _today(name: str) -> str:
    """The argument for a setting, under its new name."""
    bare = name.removeprefix("TRT_")
    return RENAMED.get(bare, bare)


def _close(name: str, known: str) -> bool:
    one, other = (text.upper().replace("_", "").replace("-", "") for text in (name, known))
    if one == other:
        return True
    if len(other) > SHORT:
        return _distance(one, other) <= (2 if len(other) >= LONG else 1)
    moved = len(one) != len(other) or sorted(one) == sorted(other)
    return moved and one[:1] == other[:1] and _distance(one, other) == 1


def _distance(one: str, other: str) -> int:
    """Letters to add, leave out, replace, or swap with their neighbour."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]


def texts_read(top: Path) -> set[str] | None:
    """Every string that stands in an SConscript, or in a module of the tree that one imported; None
    where a text cannot be read."""
    found: set[str] = set()
    if not getattr(SCons.Node, "SConscriptNodes", ()):
        return None  # read from standard input
    for path in files_read(str(top)):
        try:
            tree = ast.parse(Path(path).read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError):
            return None
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        found.update(value.strip() for value in constants if isinstance(value, str))
    return found
