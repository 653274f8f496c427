"""`reproduce`: recompile engines and compare the bytes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..build.declared_engines import find_declared_engine
from ..build.engine_spec import EngineSpec
from ..errors import EngineError
from ..files.digest_cache import sha256_file
from ..hardware.choose_hardware import Hardware
from ..hardware.runtime import Interpreter
from ..hardware.signature import HardwareSignature
from ..recipe.options import Recipe
from .common import (
    LEFT,
    add_command,
    add_json,
    add_python,
    add_state_dir,
    engines,
    find_receipt,
    print_json,
    say,
    state_folder,
    was_left,
)

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    reproduce = add_command(
        commands,
        "reproduce",
        "recompile engines and compare the bytes",
        ("engines", "engines --json"),
        "Recompile engines from their receipts and compare the bytes. Prints EQUAL, DIFFERENT, or FAILED "
        "if nothing was compared; the exit status is 0 if all are equal.",
    )
    reproduce.add_argument("path", nargs="+", metavar="PATH", help="engine file, or a folder of engines")
    add_state_dir(reproduce)
    add_python(reproduce)
    add_json(reproduce)
    reproduce.set_defaults(run=_reproduce)


def _reproduce(arguments: argparse.Namespace) -> int:
    status, rows = 0, []
    for path in engines(arguments.path):
        try:
            word, why = _compare(Path(path), arguments)
        except (EngineError, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else error
            word, why = "FAILED", f"not compared: {type(error).__name__}: {text}"
        if not arguments.json:
            say(f"{word} {path}: {why}" if why else f"{word} {path}")
        rows.append({"engine": path, "outcome": word, "reason": why or None})
        status |= word != "EQUAL"
    if arguments.json:
        print_json({"engines": rows})
    return status


def _compare(engine: Path, arguments: argparse.Namespace) -> tuple[str, str]:
    """Recompile an engine; returns EQUAL, DIFFERENT or FAILED, and why. Raises EngineError and OSError."""
    from ..build.reproduce import compile_again

    state = state_folder(engine, arguments.state_dir)
    known = list(state.receipts.of_file(engine.name))
    receipt, digest, size = find_receipt(engine, known)
    if size is None and was_left(engine, arguments.state_dir):
        return "FAILED", f"not compared: {LEFT}"
    if size is None:
        return "FAILED", "not compared: the engine is missing; rebuild it"
    if receipt is None:
        what = f"size, {size} bytes" if digest is None else "sha256"
        return "FAILED", f"not compared: no receipt has its {what}; rebuild it"
    spec = _recorded_spec(engine, receipt, state)
    for name, path in spec.inputs().items():
        if not path.is_file() or sha256_file(path) != receipt.ingredients.get(name):
            return "FAILED", f"not compared: {path} changed since the build; rebuild the engine"
    interpreter = Interpreter(arguments.python or os.environ.get("TRT_PYTHON"))
    made = compile_again(spec, interpreter, state.log(engine).with_suffix(".again.log"))
    if made.sha256 == receipt.sha256:
        return "EQUAL", ""
    why = made.not_reproducible_because or receipt.details.get("not_reproducible_because")
    difference = f"sha256 was {receipt.sha256[:12]}, is now {made.sha256[:12]}"
    return "DIFFERENT", f"{difference} ({why})" if why else difference


def _recorded_spec(engine: Path, receipt: Receipt, state: StateFolder) -> EngineSpec:
    """The spec in the receipt, with the input paths of the last run."""
    found = find_declared_engine(engine, state)
    if found is None:
        raise EngineError("the last run did not declare it, so its input paths are not known")
    now = found.spec()
    try:
        hardware = receipt.details["hardware"]
        signature = HardwareSignature.from_json(hardware["signature"], engine.name)
        pinned = now.recipe.plugins, now.recipe.timing_cache
        recipe = Recipe.from_json(found.name, receipt.details["recipe"], *pinned)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise EngineError(f"its receipt is from another version ({error!r}); rebuild it") from None
    kind = Hardware(hardware.get("name"), signature, "its receipt")
    return now._replace(recipe=recipe, hardware=kind, ingredients=receipt.ingredients)
