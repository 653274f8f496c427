"""`report`: the page of the last build, out of the state folder alone; for CI, annotations and JUnit."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.state import DEFAULT, StateFolder
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from .common import say, writing

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    report = commands.add_parser("report", help="an HTML page of the last build, and more for CI")
    report.add_argument("tree", nargs="?", default=".", help="where the SConstruct is; default: here")
    report.add_argument("--state-dir", metavar="DIR", help=f"default: {DEFAULT} in the tree")
    report.add_argument("--out", metavar="DIR", help="default: report/ in the state folder")
    report.add_argument("--github", action="store_true", help="print annotations of GitHub Actions")
    report.add_argument("--junit", metavar="FILE", help="write the outcomes as JUnit XML")
    report.add_argument("--full", action="store_true", help="hash every engine and believe no stat")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from ..report import write_report  # as late as it is asked for
    from ..report.ci import github, junit, step_summary, unfit

    top = Path(os.path.abspath(arguments.tree))
    root = Path(os.path.abspath(arguments.state_dir)) if arguments.state_dir else top / DEFAULT
    if not root.is_dir():
        raise EngineError(f"{root}: no state folder; run scons engines, or name one with --state-dir")
    state = StateFolder(root, top)
    near = top if state.inside else Path("/")
    place = Path(os.path.abspath(arguments.out)) if arguments.out else root / "report"
    with writing(place):
        written = write_report(state, DigestCache(state.digests, near, arguments.full), place)
        report = written.data
        if arguments.junit:
            Path(arguments.junit).write_bytes(junit(report))
    if arguments.github:
        for line in github(report):
            print(line)
        step_summary(report, os.environ.get("GITHUB_STEP_SUMMARY"))
    else:
        say(f"engines: report of {len(report['engines'])} engines in {place / written.file}")
    if written.note:
        print(f"engines: {written.note}", file=sys.stderr)
    return 1 if unfit(report) else 0
