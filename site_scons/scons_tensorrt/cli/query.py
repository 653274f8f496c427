"""`query`: which engines depend on a file, how two engines differ, and what another TensorRT would change.

Reads what the last run declared, and receipts; runs neither SCons nor TensorRT.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.state_folder import DEFAULT
from ..build.declared_engines import Declaration
from ..errors import EngineError, plural
from .common import add_command, add_json, declared_trees, print_json, say
from .query_diff import diff

if TYPE_CHECKING:
    from ..build.what_if import WantedRuntime, WhatIf
    from .common import Commands

_DONE = {"same": "unchanged", "reuse": "reused", "rebuild": "rebuilt", "refuse": "refused"}


def add(commands: Commands) -> None:
    query = add_command(
        *(commands, "query", "ask which engines depend on a file, or why two differ"),
        ("dependents models/face.onnx", "what-if --runtime rtx1.8"),
    )
    jobs = query.add_subparsers(required=True, metavar="QUESTION")
    depend = add_command(
        *(jobs, "dependents", "list the engines that depend on a file"),
        ("models/face.onnx", "engines.toml --json"),
        "List the engines that depend on a file or a folder: an ONNX, its external data, a plugin, samples, "
        "a script, a hardware file or a SConscript; by themselves, or through an ONNX step.",
    )
    depend.add_argument("path", metavar="FILE", help="file or folder")
    depend.set_defaults(run=_dependents)
    differ = add_command(
        *(jobs, "diff", "show how two engines differ"),
        ("face", "face --json"),
        "Show in what two engines differ: inputs, options, hardware and result, from their receipts. Of one "
        "engine: its present build and the one before.",
    )
    differ.add_argument(
        "paths",
        nargs="+",
        metavar="ENGINE|MODEL",
        help="one or two engines; a model name is all of its engines",
    )
    differ.set_defaults(run=diff)
    other = add_command(
        *(jobs, "what-if", "show what another TensorRT or hardware would change"),
        ("--runtime rtx1.8", "--hardware rtx_sm89 --json"),
        "Show which engines would be rebuilt, under which filename, and which options would be refused, if "
        "TensorRT or the hardware were another. Neither needs to be here.",
    )
    other.add_argument(
        "--runtime", metavar="VERSION", type=_runtime, help="10.16 for TensorRT, rtx1.8 for TensorRT for RTX"
    )
    other.add_argument("--hardware", metavar="NAME", help="hardware name or file, as in HARDWARE=")
    other.set_defaults(run=_what_if)
    for job in (depend, differ, other):
        add_json(job)
        job.add_argument(
            "--state-dir",
            metavar="DIR",
            help=f"state folder (default: $TRT_STATE_DIR, or the nearest {DEFAULT}/)",
        )


def _runtime(text: str) -> WantedRuntime:
    from ..build.what_if import WantedRuntime

    try:
        return WantedRuntime.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# Which engines depend on a file.


def _dependents(arguments: argparse.Namespace) -> int:
    from ..build.dependents import dependents

    path = Path(arguments.path)
    trees = declared_trees(Path(), arguments.state_dir)
    found = [(tree, each) for tree in trees for each in dependents(tree, Path(os.path.abspath(path)))]
    if not found and not os.path.lexists(path):
        raise EngineError(f"{path}: no such file, and no engine is declared with it; check the path")
    rows = [
        {"engine": each.engine.label, "name": each.engine.name, "role": each.role, "through": each.through}
        for _, each in found
    ]
    if arguments.json:
        print_json({"file": str(path), "outdated": _outdated(trees), "engines": rows})
        return 0
    width = max((len(str(row["engine"])) for row in rows), default=0)
    for row in rows:
        through = f", through {row['through']}" if row["through"] else ""
        say(f"{row['engine']:{width}}  {row['role']}{through}")
    declared = plural(sum(len(tree.engines) for tree in trees), "engine")
    say(f"{len(rows)} of {declared} need {path}" if len(rows) != 1 else f"1 of {declared} needs {path}")
    _say_outdated(trees)
    return 0


def _outdated(trees: Iterable[Declaration]) -> str | None:
    return next(filter(None, (tree.outdated() for tree in trees)), None)


def _say_outdated(trees: Iterable[Declaration]) -> None:
    outdated = _outdated(trees)
    if outdated:
        say(f"engines: {outdated}")


# What another TensorRT, or other hardware, would change.


def _what_if(arguments: argparse.Namespace) -> int:
    from ..build.what_if import option_changes, what_if

    hardware, runtime = arguments.hardware, arguments.runtime
    if not (hardware or runtime):
        arguments.wrong("name a --runtime, such as 10.16, or a --hardware")
    trees = declared_trees(Path(), arguments.state_dir)
    found = [each for tree in trees for each in what_if(tree, hardware, runtime)]
    options = option_changes(found)
    if arguments.json:
        rows = [
            {
                "engine": each.engine.label,
                "name": each.engine.name,
                "outcome": each.outcome,
                "filename": each.filename,
                "reasons": each.reasons,
                "notes": each.notes,
            }
            for each in found
        ]
        print_json({"engines": rows, **options, "outdated": _outdated(trees)})
        return 0
    shared = _shared(found)
    if shared:
        say(f"all: {'; '.join(shared)}")
    for each in found:
        moved = f" → {each.filename}" if each.filename not in (None, each.engine.path.name) else ""
        why = "; ".join([*(reason for reason in each.reasons if reason not in shared), *each.notes])
        say(f"{each.outcome:8} {each.engine.label}{moved}{f': {why}' if why else ''}")
    for word, names in options.items():
        if names:
            say(f"options {word} then: {', '.join(names)}")
    counts = Counter(each.outcome for each in found)
    text = ", ".join(f"{number} {_DONE[word]}" for word, number in counts.items())
    say(f"{plural(len(found), 'engine')}: {text}")
    _say_outdated(trees)
    return 0


def _shared(found: list[WhatIf]) -> list[str]:
    """What changes of each of several engines, which is printed once."""
    changed = [each.reasons for each in found if each.outcome in ("reuse", "rebuild")]
    if len(changed) < 2:
        return []
    return [reason for reason in changed[0] if all(reason in reasons for reasons in changed)]
