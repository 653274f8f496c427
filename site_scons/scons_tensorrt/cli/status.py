"""`status`: list every engine of a source tree and whether it is up to date.

Checks the engines that the last run declared, as `scons` would, and writes nothing. Reports a
SConstruct that changed since that run, and engine files that it did not declare: those for other
hardware, and orphans.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.kept_engines import KeptFolder
from ..artifact.receipt import Receipt
from ..artifact.state_folder import DEFAULT
from ..artifact.verify_pair import check_pair
from ..build.declared_engines import Declaration
from ..build.reuse_local_engine import ReusableEngines, cache_size_here
from ..build.up_to_date import NOT_DOWNLOADED
from ..errors import EngineError, ReceiptError, plural
from ..values import Value
from .common import add_command, add_json, declared_trees, engines_of_model, print_json, say, say_all

if TYPE_CHECKING:
    from .common import Commands

FINE = ("current", "foreign")
_STATES = {
    "current": "current",
    "unfinished": "unfinished",
    "new": "missing",
    "engine_missing": "missing",
    NOT_DOWNLOADED: "missing",
    "engine_truncated": "tampered",
    "engine_tampered": "tampered",
    "engine_unreadable": "tampered",
    "sidecar_missing": "tampered",
    "sidecar_malformed": "tampered",
    "sidecar_mismatch": "tampered",
}


class Row(Value):
    """state: current, stale, missing, tampered, unfinished, failing, foreign or orphaned; code: the
    reason code; hardware: the name of a declared engine's, None for the default host."""

    engine: str
    name: str | None
    hardware: str | None
    state: str
    code: str
    reason: str


def add(commands: Commands) -> None:
    status = add_command(
        *(commands, "status", "list all engines and whether they are up to date"), ("", "face --json")
    )
    status.add_argument(
        "path", nargs="?", default=".", metavar="DIR|MODEL", help="source tree, or model name (default: .)"
    )
    status.add_argument(
        "--state-dir",
        metavar="DIR",
        help=f"state folder (default: $TRT_STATE_DIR, or the nearest {DEFAULT}/ above)",
    )
    status.add_argument(
        "--full", action="store_true", help="hash every file instead of trusting an unchanged stat"
    )
    add_json(status)
    status.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    model = arguments.path
    if os.path.isdir(model) or not engines_of_model(model, arguments.state_dir):
        model = None
    found = declared_trees(Path("." if model else arguments.path), arguments.state_dir, arguments.full)
    trees = [(tree, [*_declared(tree, model), *_others(tree, model)]) for tree in found]
    if model:
        trees = [(tree, [row for row in rows if row.name]) for tree, rows in trees]
    if arguments.json:
        listed = [
            {
                "top": str(tree.state.top),
                "outdated": tree.outdated(),
                "engines": [row._asdict() for row in rows],
                "kept": {"count": len(kept := _kept(tree)), "bytes": sum(kept)},
            }
            for tree, rows in trees
        ]
        print_json({"trees": listed})
    else:
        for tree, rows in trees:
            if len(trees) > 1:
                say(f"{tree.state.top}:")
            _print(rows)
            kept = _kept(tree)
            if kept:
                size = f"{sum(kept) / 1e6:.1f} MB"
                where = tree.state.relative(tree.state.kept)
                say(f"{plural(len(kept), 'replaced engine')} kept in {where}/ ({size})")
            outdated = tree.outdated()
            if outdated:
                say(f"engines: {outdated}")
    fine = all(row.state in FINE for _, rows in trees for row in rows)
    return int(not fine or any(tree.outdated() for tree, _ in trees))


def _declared(tree: Declaration, model: str | None) -> Iterator[Row]:
    """Each declared engine; of one model, unless that is None."""
    kept = ReusableEngines(tree.state, tree.digest_cache, cache_size_here())
    for engine in tree.engines:
        if model not in (None, engine.name):
            continue
        try:
            up_to_date = engine.up_to_date()
            code, reason = up_to_date.code, up_to_date.reason
            found = None
            if not up_to_date.reusable:
                with contextlib.suppress(EngineError):  # an input may be missing, and be made first
                    found = kept.find(engine.spec(), code)
            if found:
                reason = f"{reason}; the next build reuses one ({found.origin})"
            state = _STATES.get(code) or ("stale" if os.path.lexists(engine.path) else "missing")
        except EngineError as error:
            state, code, reason = "failing", type(error).__name__, str(error)
        yield Row(engine.label, engine.name, engine.hardware, state, code, reason)


def _kept(tree: Declaration) -> list[int]:
    """The size of each kept engine, in bytes."""
    with contextlib.suppress(OSError):
        return [kept.size for kept in KeptFolder(tree.state.kept, 0).engines()]
    return []


def _others(tree: Declaration, model: str | None) -> Iterator[Row]:
    """Undeclared engines, and sidecars without an engine, in the folders of declared engines. model: only
    those for other hardware of this one."""
    known = {str(engine.path) for engine in tree.engines}
    models = {engine.path.name.partition("__")[0] for engine in tree.engines}
    found = {path for folder in tree.folders for path in _engines_in(folder)}
    for path in sorted(map(Path, found - known)):
        label, name = tree.state.relative(path), path.name.partition("__")[0]
        if model not in (None, name):
            continue
        receipts = list[Receipt]()
        with contextlib.suppress(ReceiptError):
            receipts += tree.state.receipts.of_file(path.name)
        check = check_pair(path, tree.digest_cache, receipts)
        if check.fault:
            yield Row(label, None, None, "tampered", check.code, f"{check.fault}; not declared")
        elif name in models and (fields := _parsed(path.name)):
            sm = f"sm{fields.sm}{'+' * fields.plus}"
            what = f"{sm}, {fields.platform}, {fields.runtime}, {fields.precision}"
            why = f"for {what}, not requested by the last run"
            yield Row(label, name, None, "foreign", "foreign", why)
        else:
            yield Row(label, None, None, "orphaned", "orphaned", "not declared")


def _engines_in(folder: str | Path, inner: bool = True) -> Iterator[str]:
    """The paths of engines, and of those that have only a sidecar, in a folder. inner: also in its folders,
    of named hardware."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX)):
                yield entry.path.removesuffix(SIDECAR_SUFFIX)
            if inner and entry.is_dir():
                yield from _engines_in(entry.path, inner=False)


def _parsed(name: str) -> EngineFilename | None:
    try:
        return EngineFilename.parse(name)
    except EngineError:
        return None


def _print(rows: list[Row]) -> None:
    width = max((len(row.engine) for row in rows), default=0)
    say_all(f"{row.state:11}{row.engine:{width}}  {row.reason}".rstrip() for row in rows)
    counts = Counter(row.state for row in rows)
    text = ", ".join(f"{number} {state}" for state, number in counts.items())
    say(f"{plural(len(rows), 'engine')}{': ' * bool(rows)}{text}")
