"""What several commands need: one line printed, the engines that were named, and the tree, state folder
and declaration an engine belongs to."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import EngineError, one_line
from ..identity.filename import SIDECAR_SUFFIX, SUFFIX
from ..identity.reading import read_small
from ..integrity.state import DEFAULT, StateFolder

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

LARGEST = 64 << 20  # bytes of declared.json


def say(text: str, stream: TextIO | None = None) -> None:
    """Print one line, whatever the terminal's encoding and whoever chose the names in it."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(one_line(text).encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def engines(paths: list[str]) -> Iterator[str]:
    """The engines named; a folder stands for those below it, a sidecar for its engine."""
    for path in paths:
        if not os.path.isdir(path):
            yield path.removesuffix(SIDECAR_SUFFIX)
            continue
        found = {
            str(file).removesuffix(SIDECAR_SUFFIX)
            for pattern in (f"*{SUFFIX}", f"*{SUFFIX}{SIDECAR_SUFFIX}")
            for file in Path(path).rglob(pattern)
        }
        if not found:
            raise EngineError(f"{path}: no engine in this folder")
        yield from sorted(found)


def state_folder(engine: Path, named: str | None) -> StateFolder:
    """The state folder that knows an engine: the one named, or the nearest above it; of the tree
    that declares the engine, of several that share the folder."""
    folder = engine.absolute().parent
    if named:
        return _of_tree(engine, Path(os.path.abspath(named)))
    for top in (folder, *folder.parents):
        if (top / DEFAULT / "receipts").is_dir():
            return _of_tree(engine, top / DEFAULT)
    raise EngineError(f"{engine}: no {DEFAULT}/ above it; name one with --state-dir")


def _of_tree(engine: Path, root: Path) -> StateFolder:
    for file in (root / "declared.json", *sorted((root / "declared").glob("*.json"))):
        state = StateFolder(root, Path(os.path.normpath(root / _read_declared(file)[0])))
        if state.declared == file and declared_as(engine, state) is not None:
            return state
    return StateFolder(root, root.parent)


def _read_declared(file: Path) -> tuple[str, list[Any]]:
    """The tree, as seen from the state folder, and its engines; none where the file is damaged."""
    try:
        data = json.loads(read_small(file, LARGEST))
        top, engines = data.get("top", ".."), data["engines"]
        if isinstance(top, str) and "\0" not in top and isinstance(engines, list):
            return top, engines
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return "..", []


def declared_as(engine: Path, state: StateFolder) -> dict[str, Any] | None:
    """What the last run declared of this engine; its ingredients are texts."""
    label = state.relative(engine)
    for item in _read_declared(state.declared)[1]:
        if isinstance(item, dict) and item.get("engine") == label:
            fields = item.get("ingredients")
            sound = isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values())
            return item if sound else None
    return None


def add_state_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("--state-dir", metavar="DIR", help=f"default: the nearest {DEFAULT} above")
