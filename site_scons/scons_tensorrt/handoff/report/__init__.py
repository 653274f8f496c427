"""What a build did, for people and for CI: one HTML page that needs no network, the same as JSON, JUnit
and GitHub's annotations.

Made of the state folder alone: at the end of a run by the alias `engines-report`, or by the command
`report` wherever the state folder was brought to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...identity.writing import write_atomic
from ...integrity.memo import DigestMemo
from ...integrity.state import StateFolder
from .gather import gather
from .page import render

PAGE, DATA = "index.html", "report.json"


def write_report(
    state: StateFolder, memo: DigestMemo, place: Path, run: str | None = None
) -> Mapping[str, Any]:
    """Write page and data of a run into the folder `place`; returns what report.json holds.

    run: its id, None for the last. Raises EngineError where nothing was built yet, and OSError.
    """
    report = gather(state, memo, run, place / DATA)
    text = json.dumps(report, sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_atomic(place / DATA, text.encode("utf-8"), durable=False)
    write_atomic(place / PAGE, render(report).encode("utf-8", "replace"), durable=False)
    return report
