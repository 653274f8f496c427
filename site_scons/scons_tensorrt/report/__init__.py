"""Build reports: a self-contained HTML page, JSON, JUnit XML and GitHub annotations.

A report needs only the state folder. The alias `engines-report` writes one at the end of a run, and the
command `report` wherever the state folder is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..artifact.state_folder import StateFolder
from ..files.digest_cache import DigestCache
from ..files.writing import replacing
from ..values import Value
from .collect_data import collect

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
    with replacing(place / DATA, durable=False) as out:
        out.writelines(each.encode("utf-8") for each in _lines(report))
    try:
        from .render_page import render
    except ImportError:
        return Written(report, DATA, NO_PAGE)
    with replacing(place / PAGE, durable=False) as out:
        out.writelines(each.encode("utf-8", "replace") for each in render(report))
    return Written(report, PAGE, "")


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The lines of report.json: one for each engine, run and network."""
    encode = json.JSONEncoder(sort_keys=True, allow_nan=False).encode
    before = "{"
    for key in sorted(report):
        value, ends = report[key], ("", "")
        items: Iterable[str]
        if isinstance(value, list):
            ends, items = ("[", "]"), map(encode, value)
        elif isinstance(value, dict):
            ends, items = ("{", "}"), (f"{encode(name)}: {encode(value[name])}" for name in sorted(value))
        else:
            items = [encode(value)]
        yield f"{before}\n{encode(key)}: {ends[0]}"
        between = ""
        for item in items:
            yield f"{between}\n {item}" if ends[0] else item
            between = ","
        yield ends[1]
        before = ","
    yield "\n}\n"
