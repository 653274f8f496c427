"""`bom`: list what is in the engines of a manifest, or name what its bills of materials lack."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import plural
from .common import add_command, add_json, print_json, say

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    bom = add_command(
        commands,
        "bom",
        "list what is in the engines of a manifest, and what its bills of materials lack",
        ("dist/manifest.json", "--check dist/manifest.json"),
        "List the components of the engines of a manifest, from the bills of materials beside it. With "
        "--check, name each minimum element of docs/handoff.md that is missing; the status is then 1.",
    )
    bom.add_argument("manifest", metavar="FILE", help="manifest, such as dist/manifest.json")
    bom.add_argument("--check", action="store_true", help="name what is missing")
    add_json(bom)
    bom.set_defaults(run=_bom)


def _bom(arguments: argparse.Namespace) -> int:
    from ..release.bom.check import load, missing

    bills = load(arguments.manifest)
    lacks = list(missing(bills)) if arguments.check else []
    if arguments.json:
        parts = [{"name": each.name, "kind": each.kind, "version": each.version} for each in bills.listed()]
        print_json({"components": parts, "missing": [each._asdict() for each in lacks]})
        return int(bool(lacks))
    if arguments.check:
        for each in lacks:
            others = f" and {len(each.components) - 1} more" if each.components[1:] else ""
            say(f"MISSING {each.element}: of {each.components[0]}{others}; {each.step}")
        if not lacks:
            say(f"OK {bills.path}: nothing is missing for {plural(len(bills.manifest.engines), 'engine')}")
        return int(bool(lacks))
    for part in bills.listed():
        words = part.kind, part.name, part.version, *part.licences
        say("  ".join(word for word in words if word))
    return 0
