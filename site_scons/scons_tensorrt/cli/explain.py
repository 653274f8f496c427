"""`explain`: what an engine was made from, and how that differs from what is wanted now."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EngineError
from ..identity.filename import SIDECAR_SUFFIX, EngineFilename
from ..integrity.memo import sha256_file
from ..integrity.receipt import Receipt
from ..integrity.state import StateFolder
from ..recipe.key import differences, input_name
from .common import add_state_dir, declared_as, say, state_folder

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    explain = commands.add_parser("explain", help="what an engine was made from")
    explain.add_argument("path", help="an engine")
    add_state_dir(explain)
    explain.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    engine = Path(arguments.path.removesuffix(SIDECAR_SUFFIX))
    name = EngineFilename.parse(engine.name)
    state = state_folder(engine, arguments.state_dir)
    known = list(state.receipts.all_of(engine.name))
    if not known:
        raise EngineError(f"{engine}: no receipt in {state.root} says what it was made from")
    digest = sha256_file(engine, follow=False) if os.path.lexists(engine) else None
    receipt = next((r for r in known if r.sha256 == digest), None)
    say(f"{engine}: {name.model} for sm{name.sm}{'+' if name.plus else ''}, {name.precision}")
    if receipt is None:
        what = "missing" if digest is None else f"of bytes that no receipt knows ({digest[:12]})"
        say(f"  the file is {what}; the newest receipt tells of one that is gone:")
        receipt = known[0]
    for label, value in _receipt_rows(receipt):
        say(f"  {label:20}{value}")
    changes = _against_declared(engine, receipt, state)
    for change in changes or ():
        say(f"  now wanted          {change}")
    if changes == []:
        plugins = any(name.startswith(input_name("plugin")) for name in receipt.ingredients)
        say(f"  now wanted          as it was made{' (plugins were not looked at)' * plugins}")
    return 0 if receipt.sha256 == digest else 1


def _receipt_rows(receipt: Receipt) -> Iterator[tuple[str, str]]:
    details = receipt.details
    yield "sha256", receipt.sha256
    yield "size", f"{receipt.size} bytes"
    yield "key", receipt.key
    yield "made", f"{details.get('started', '?')} in {details.get('duration_s', '?')} s"
    worker = details.get("worker")
    if isinstance(worker, dict):
        yield "by", ", ".join(f"{name} {version}" for name, version in sorted(worker.items()))
    why = details.get("not_reproducible_because")
    yield "reproducible", "yes" if details.get("reproducible") else f"no: {why}"
    inputs = details.get("inputs")
    for item in inputs if isinstance(inputs, list) else ():
        if isinstance(item, dict):
            yield f"input {item.get('role')}", f"{item.get('name')} {item.get('sha256')}"
    for name, text in receipt.ingredients.items():
        if not name.startswith("input "):
            yield name.removeprefix("option ").removeprefix("hardware "), text


def _against_declared(engine: Path, receipt: Receipt, state: StateFolder) -> list[str] | None:
    """How the last run's declaration differs from a receipt; None where nothing declares it."""
    found = declared_as(engine, state)
    if found is None:
        return None
    wanted, source = dict(found["ingredients"]), str(found.get("source"))
    onnx = state.top / str(found.get("onnx", source))
    wanted.update({k: v for k, v in receipt.ingredients.items() if k.startswith("input ")})
    samples = state.top / str(found.get("samples"))
    for name, path in _input_files(receipt, onnx, samples):
        wanted[name] = sha256_file(path) if path.is_file() else "missing"
    return differences(receipt.ingredients, wanted, source)


def _input_files(receipt: Receipt, onnx: Path, samples: Path) -> Iterator[tuple[str, Path]]:
    """The ONNX, its external data and a calibrator's samples; plugins are not looked at."""
    for name in receipt.ingredients:
        if name == input_name("onnx"):
            yield name, onnx
        elif name.startswith(input_name("data") + " "):
            yield name, onnx.parent / name.removeprefix(input_name("data") + " ")
        elif name.startswith(input_name("samples") + " "):
            yield name, samples
