"""`prune`: remove engines and files that are not declared any more, as `scons engines-prune` does."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..recipe.engines_file import NAME
from .common import add_command, add_json
from .run_scons import EVENTS, own_entries, run_for_json, run_scons

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    prune = add_command(
        commands,
        "prune",
        "list or remove engines and files that are not declared any more",
        ("", "--yes --keep 2 --older 30"),
        "List what the SConstruct or engines.toml in this folder does not declare any more, as `scons "
        "engines-prune` does; with --yes, remove it.",
    )
    prune.add_argument("--yes", action="store_true", help="remove what is listed")
    prune.add_argument("--keep", metavar="N", help="keep the last N engines of each model and precision")
    prune.add_argument("--older", metavar="DAYS", help="remove only what was written DAYS ago or earlier")
    add_json(prune, "print the files as JSON, and the run's lines to standard error")
    prune.set_defaults(run=_prune)


def _prune(arguments: argparse.Namespace) -> int:
    if arguments.json and EVENTS not in os.environ:
        return run_for_json(_row, "files")
    given = {"KEEP": arguments.keep, "OLDER": arguments.older, "PRUNE": "yes" if arguments.yes else None}
    settings = {name: value for name, value in given.items() if value}
    return run_scons("engines-prune", [], settings, own_entries(), NAME)


def _row(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """What --json prints of an event of a file."""
    if event["event"] != "engine.prune":
        return None
    return {"file": event["engine"], **{name: event[name] for name in ("outcome", "reason", "bytes")}}
