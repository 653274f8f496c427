"""`init`: write an engines.toml for the ONNX files of a folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, RecipeError, plural
from ..recipe.engines_file import NAME, distinct_name, dump_engines, propose_shapes
from .common import add_command, program, say, writing
from .run_scons import HEADER, SCONSTRUCTS

if TYPE_CHECKING:
    from .common import Commands

IGNORED = ("engines/", ".trt/", ".sconsign.dblite")
_SKIPPED = {"engines", "node_modules", "site-packages", "build", "dist"}


def add(commands: Commands) -> None:
    init = add_command(
        commands,
        "init",
        "write an engines.toml for the ONNX files below this folder",
        ("", "models --sconstruct"),
        "Write an engines.toml for the ONNX files below this folder, with proposed shapes for dynamic "
        "inputs, and add what is built to .gitignore.",
    )
    init.add_argument("folder", nargs="?", default=".", help="where to look for ONNX files (default: here)")
    init.add_argument("--sconstruct", action="store_true", help="also write a SConstruct that reads it")
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> int:
    files = [NAME, *(["SConstruct"] if arguments.sconstruct else [])]
    there = [file for file in (*files, *SCONSTRUCTS) if os.path.lexists(file)]
    if there:
        raise EngineError(f"{there[0]} exists; remove it, or edit it")
    if not os.path.isdir(arguments.folder):
        raise EngineError(f"{arguments.folder}: not a folder; name the folder of the ONNX files")
    engines: dict[str, dict[str, Any]] = {}
    for path in _models(arguments.folder):
        table = _table(path)
        if table:
            engines[distinct_name(path, engines)] = table
    if not engines:
        raise EngineError(f"{arguments.folder}: no ONNX files below this folder; copy one here")
    with writing("."):
        Path(NAME).write_text(dump_engines(engines), encoding="utf-8")
        say(f"WROTE {NAME} ({plural(len(engines), 'engine')})")
        if arguments.sconstruct:
            Path("SConstruct").write_text(f'{HEADER}env.EnginesFromFile("{NAME}")\n', encoding="utf-8")
            say("WROTE SConstruct")
        _ignore()
    say(f"next: {'scons engines' if arguments.sconstruct else f'{program()} build'}")
    return 0


def _models(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        yield from (
            os.path.normpath(os.path.join(place, f)) for f in sorted(files) if f.lower().endswith(".onnx")
        )


def _table(path: str) -> dict[str, Any] | None:
    from ..recipe.onnx.read_onnx import read_onnx

    try:
        path.encode()
        summary = read_onnx(path)
    except UnicodeEncodeError:
        say(f"{path}: left out: its name is not UTF-8 here; rename it", sys.stderr)
        return None
    except (RecipeError, OSError) as error:
        say(f"{path}: left out: {error}", sys.stderr)
        return None
    return {"onnx": path, "shapes": propose_shapes(summary.inputs)}


def _ignore() -> None:
    """Add what is built to .gitignore."""
    file = Path(".gitignore")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [line for line in IGNORED if line not in text.splitlines()]
    if missing:
        text += "\n" * (bool(text) and not text.endswith("\n")) + "".join(f"{line}\n" for line in missing)
        file.write_text(text, encoding="utf-8")
        say(f"WROTE .gitignore ({', '.join(missing)})")
