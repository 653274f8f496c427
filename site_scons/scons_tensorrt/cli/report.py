"""`report`: write the HTML report of the last build; for CI, GitHub annotations and JUnit XML."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.state_folder import DEFAULT, StateFolder
from ..errors import EngineError, plural
from ..files.digest_cache import DigestCache
from .common import add_command, add_json, say, writing

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    report = add_command(
        commands,
        "report",
        "write the report of the last build: HTML, JSON, JUnit, GitHub",
        ("", "--github --junit engines.xml"),
    )
    report.add_argument("tree", nargs="?", default=".", metavar="DIR", help="source tree (default: .)")
    report.add_argument(
        "--state-dir", metavar="DIR", help=f"state folder (default: {DEFAULT}/ in the source tree)"
    )
    report.add_argument(
        "--full", action="store_true", help="hash every engine instead of trusting an unchanged stat"
    )
    report.add_argument("--out", metavar="DIR", help="output folder (default: report/ in the state folder)")
    report.add_argument("--junit", metavar="FILE", help="write JUnit XML to FILE")
    report.add_argument("--github", action="store_true", help="print GitHub Actions annotations")
    add_json(report, "print what report.json has")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from ..report import write_report
    from ..report.ci_formats import github, junit, step_summary, unfit

    top = Path(os.path.abspath(arguments.tree))
    root = Path(os.path.abspath(arguments.state_dir)) if arguments.state_dir else top / DEFAULT
    if not root.is_dir():
        raise EngineError(
            f"{root}: no such state folder; run `scons engines`, or specify one with --state-dir"
        )
    state = StateFolder(root, top)
    near = top if state.inside else Path("/")
    place = Path(os.path.abspath(arguments.out)) if arguments.out else root / "report"
    with writing(place):
        written = write_report(state, DigestCache(state.digests, near, arguments.full), place)
        report = written.data
        if arguments.junit:
            Path(arguments.junit).write_bytes(junit(report))
    if arguments.json:
        print(json.dumps(report, indent=1, sort_keys=True))
    elif arguments.github:
        for line in github(report):
            print(line)
        step_summary(report, os.environ.get("GITHUB_STEP_SUMMARY"))
    else:
        say(f"engines: report of {plural(len(report['engines']), 'engine')} in {place / written.file}")
    if written.note:
        print(f"engines: {written.note}", file=sys.stderr)
    return 1 if unfit(report) else 0
