"""What a build did, for people and for CI: one HTML page that needs no network, the same as JSON, JUnit
and GitHub's annotations.

Made of the state folder alone: at the end of a run by the alias `engines-report`, or by the command
`report` wherever the state folder was brought to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..artifact.state import StateFolder
from ..files.digest_cache import DigestCache
from ..files.writing import write_atomic
from .gather import gather

PAGE, DATA = "index.html", "report.json"


NO_PAGE = "index.html was not written: it needs jinja2 (pip install jinja2)"


class Written(NamedTuple):
    """data: what report.json holds; file: the page, or report.json where jinja2 is not installed."""

    data: Mapping[str, Any]
    file: str
    note: str


def write_report(state: StateFolder, memo: DigestCache, place: Path, run: str | None = None) -> Written:
    """Write the page and the data of a run into the folder `place`.

    run: its id, None for the last. Raises EngineError where nothing was built yet, and OSError.
    """
    report = gather(state, memo, run, place / DATA)
    text = json.dumps(report, sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_atomic(place / DATA, text.encode("utf-8"), durable=False)
    try:
        from .page import render
    except ImportError:
        return Written(report, DATA, NO_PAGE)
    write_atomic(place / PAGE, render(report).encode("utf-8", "replace"), durable=False)
    return Written(report, PAGE, "")
