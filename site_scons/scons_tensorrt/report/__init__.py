"""Build reports: a self-contained HTML page, JSON, JUnit XML and GitHub annotations.

A report needs only the state folder. The alias `engines-report` writes one at the end of a run, and the
command `report` wherever the state folder is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact.state_folder import StateFolder
from ..files.digest_cache import DigestCache
from ..files.writing import write_atomic
from ..values import Value
from .gather import collect

PAGE, DATA = "index.html", "report.json"
NO_PAGE = "index.html was not written: it needs jinja2 (pip install jinja2)"


class Written(Value):
    """data: the contents of report.json; file: the page, or report.json without jinja2; note: a warning."""

    data: Mapping[str, Any]
    file: str
    note: str


def write_report(state: StateFolder, memo: DigestCache, place: Path, run: str | None = None) -> Written:
    """Write the page and the data of a run into the folder `place`.

    run: the run ID, None for the last run. Raises EngineError if no build was recorded, and OSError.
    """
    report = collect(state, memo, run, place / DATA)
    text = json.dumps(report, sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_atomic(place / DATA, text.encode("utf-8"), durable=False)
    try:
        from .page import render
    except ImportError:
        return Written(report, DATA, NO_PAGE)
    write_atomic(place / PAGE, render(report).encode("utf-8", "replace"), durable=False)
    return Written(report, PAGE, "")
