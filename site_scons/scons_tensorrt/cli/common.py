"""What several commands need: one line printed, the engines that were named, and the state folder
an engine belongs to."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX
from ..artifact.receipt import Receipt
from ..artifact.state import DEFAULT, StateFolder
from ..build.declared import declarations
from ..errors import EngineError, one_line
from ..files.digest_cache import sha256_of
from ..files.reading import open_file, walk_files
from ..files.writing import cause

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def say(text: str, stream: TextIO | None = None) -> None:
    """Print one line, whatever the terminal's encoding and whoever chose the names in it."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(one_line(text).encode(encoding, "replace").decode(encoding), file=stream, flush=True)


@contextlib.contextmanager
def writing(place: str | os.PathLike[str]) -> Iterator[None]:
    """Raises EngineError, in one line, where files at or below `place` cannot be written."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or os.fspath(place), cause(error, "name another place")
        raise EngineError(f"{where}: {why}") from None


def engines(paths: list[str]) -> Iterator[str]:
    """The engines named; a folder stands for those below it, a sidecar for its engine. Raises
    EngineError, after all that were found, where a folder could not be looked into."""
    hidden = list[str]()
    for path in paths:
        if not os.path.isdir(path):
            yield path.removesuffix(SIDECAR_SUFFIX)
            continue
        found = set[str]()
        for file, why in walk_files(path):
            if why:
                hidden.append(f"{file}: {why}")
            elif file.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX)):
                found.add(file.removesuffix(SIDECAR_SUFFIX))
        if not found and not hidden:
            raise EngineError(f"{path}: no engine in this folder")
        yield from sorted(found)
    if hidden:
        more = f", and {len(hidden) - 1} more" if len(hidden) > 1 else ""
        raise EngineError(f"{hidden[0]}{more}; what is in there was not looked at")


def known_digest(engine: Path, known: Iterable[Receipt]) -> tuple[str | None, int | None]:
    """The sha256 and size of an engine; no sha256 where no receipt is of its size, so that it need not
    be read, and neither where there is no engine. Raises OSError."""
    if not os.path.lexists(engine):
        return None, None
    with open_file(engine, follow=False) as source:
        size = os.fstat(source.fileno()).st_size
        possible = any(receipt.size == size for receipt in known)
        return sha256_of(source)[0] if possible else None, size


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
    for declaration in declarations(root):
        if declaration.engine(engine):
            return declaration.state
    return StateFolder(root, root.parent)


def add_state_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("--state-dir", metavar="DIR", help=f"default: the nearest {DEFAULT} above")
