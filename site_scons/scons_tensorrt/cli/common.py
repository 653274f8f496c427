"""Shared by the commands: printing, the engines named on the command line, and their state folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX
from ..artifact.receipt import Receipt
from ..artifact.state_folder import DEFAULT, StateFolder
from ..build.declared_engines import Declaration, declarations
from ..errors import EngineError, one_line
from ..files.digest_cache import sha256_of
from ..files.reading import open_file, walk_files
from ..files.writing import cause

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

WIDTH = 78  # of help, in columns


PROGRAM = "scons-tensorrt"
LEFT = "not downloaded (FETCH=); run `scons engines`"  # of an engine, see `was_left`


def program() -> str:
    """How this command was called."""
    return PROGRAM if os.path.basename(sys.argv[0]) == PROGRAM else "python3 -m scons_tensorrt"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see `{self.prog} --help`", sys.stderr)
        sys.exit(2)


def add_command(
    commands: Commands, name: str, summary: str, examples: Sequence[str], description: str = ""
) -> argparse.ArgumentParser:
    """A subcommand. summary: its line in the list of commands; examples: arguments that its help shows."""
    text = description or f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(text, WIDTH),
        epilog="\n".join(["examples:", *(f"  %(prog)s {example}".rstrip() for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(wrong=command.error)
    return command


def say(text: str, stream: TextIO | None = None) -> None:
    """Print one line. Characters that the terminal cannot encode are replaced."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    line = one_line(text) + "\n"  # one write, also where nothing is buffered
    print(line.encode(encoding, "replace").decode(encoding), end="", file=stream, flush=True)


def say_all(texts: Iterable[str]) -> None:
    """Print lines as `say` does, in one write."""
    encoding = sys.stdout.encoding or "utf-8"
    lines = "".join(one_line(text) + "\n" for text in texts)
    print(lines.encode(encoding, "replace").decode(encoding), end="", flush=True)


def add_json(command: argparse.ArgumentParser, text: str = "print JSON") -> None:
    command.add_argument("--json", action="store_true", help=text)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one JSON object, with its `schema`: docs/json.md lists the keys."""
    print(json.dumps({"schema": 1, **data}, indent=1))


@contextlib.contextmanager
def writing(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of writing files at or below `place` into a one-line EngineError."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or os.fspath(place), cause(error, "choose another path")
        raise EngineError(f"{where}: {why}") from None


def engines(paths: list[str]) -> Iterator[str]:
    """The engines at `paths`: a folder means all engines below it, a sidecar its engine.

    Raises EngineError at the end if a folder could not be read.
    """
    unreadable = list[str]()
    for path in paths:
        if not os.path.isdir(path):
            yield path.removesuffix(SIDECAR_SUFFIX)
            continue
        found = set[str]()
        for file, why in walk_files(path):
            if why:
                unreadable.append(f"{file}: {why}")
            elif file.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX)):
                found.add(file.removesuffix(SIDECAR_SUFFIX))
        if not found and not unreadable:
            raise EngineError(f"{path}: no engines in this folder")
        yield from sorted(found)
    if unreadable:
        more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        raise EngineError(f"{unreadable[0]}{more}; its contents were not checked")


def find_receipt(engine: Path, known: list[Receipt]) -> tuple[Receipt | None, str | None, int | None]:
    """The receipt in `known` of an engine's bytes, their sha256 and size; None for what is not known.

    The file is not read if no receipt has its size. Raises OSError.
    """
    if not os.path.lexists(engine):
        return None, None, None
    with open_file(engine, follow=False) as source:
        size = os.fstat(source.fileno()).st_size
        possible = any(receipt.size == size for receipt in known)
        digest = sha256_of(source)[0] if possible else None
    return next((receipt for receipt in known if receipt.sha256 == digest), None), digest, size


def state_folder(engine: Path, named: str | None) -> StateFolder:
    """The state folder of an engine: the one named, or the nearest above it.

    If several source trees share the folder, it is opened for the tree that declares the engine.
    """
    if named:
        return _of_tree(engine, Path(os.path.abspath(named)))
    return _of_tree(engine, nearest_state_folder(engine, engine.absolute().parent, "receipts"))


def was_left(engine: str | os.PathLike[str], named: str | None = None) -> bool:
    """Whether an engine is not here because a build found it in the shared cache and did not download it.
    named: the state folder."""
    path = Path(os.path.abspath(engine))
    if os.path.lexists(path):
        return False
    try:
        receipts = state_folder(path, named or os.environ.get("TRT_STATE_DIR")).receipts
        newest = next(receipts.of_file(path.name), None)
        return newest is not None and not newest.downloaded
    except (EngineError, OSError):  # no state folder, as on a device, or none that can be read
        return False


def engines_of_model(name: str, named: str | None) -> list[Path]:
    """The engines of a model that the last run declared; none if `name` is a path. named: the state folder.
    Raises EngineError for a name that no engine has."""
    if os.sep in name or name.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX)) or os.path.lexists(name):
        return []
    here = Path.cwd()
    root = Path(os.path.abspath(named)) if named else nearest_state_folder(Path(name), here)
    declared = [engine for tree in declarations(root) for engine in tree.engines]
    found = [Path(os.path.relpath(engine.path)) for engine in declared if engine.name == name]
    if not found:
        known = ", ".join(sorted({engine.name for engine in declared})) or "none"
        raise EngineError(f"{name}: neither a file nor the name of a declared model; known: {known}")
    return found


def declared_trees(path: Path, named: str | None, full: bool = False) -> list[Declaration]:
    """The declaration of the source tree that contains `path`, a folder; if none does, those of all trees
    that use the state folder. named: the state folder; full: hash every file. Raises EngineError."""
    place, named = Path(os.path.abspath(path)), named or os.environ.get("TRT_STATE_DIR")
    root = Path(os.path.abspath(named)) if named else nearest_state_folder(place, place)
    trees = list(declarations(root, full))
    if not trees:
        raise EngineError(f"{root}: no engines declared; run `scons engines`")
    return [tree for tree in trees if place.is_relative_to(tree.state.top)] or trees


def nearest_state_folder(place: Path, folder: Path, with_folder: str = "") -> Path:
    """The nearest state folder in `folder` and those above it. with_folder: one that it must contain."""
    for top in (folder, *folder.parents):
        if (top / DEFAULT / with_folder).is_dir():
            return top / DEFAULT
    raise EngineError(f"{place}: no {DEFAULT}/ here or in a parent folder; specify one with --state-dir")


def _of_tree(engine: Path, root: Path) -> StateFolder:
    for declaration in declarations(root):
        if declaration.engine(engine):
            return declaration.state
    return StateFolder(root, root.parent)


def add_python(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--python", metavar="PATH", help="Python interpreter with TensorRT (default: $TRT_PYTHON)"
    )


def add_state_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state-dir", metavar="DIR", help=f"state folder (default: the nearest {DEFAULT}/ above the engine)"
    )
