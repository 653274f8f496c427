"""The runs so far, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import words
from .history import WORDS
from .html import Html, el
from .tables import ALWAYS, bar, cell, legend, table


def runs(report: Mapping[str, Any]) -> Html:
    """The runs, the newest first."""
    found = report["runs"][::-1]
    longest = max((run["seconds"] for run in found), default=0)
    most = max((_total(run) for run in found), default=0)
    counted = [word for word in WORDS if word in ALWAYS or any(run[word] for run in found)]
    shown = report["run"]["run"]
    rows = [_run(run, longest, most, counted, run["run"] == shown) for run in found]
    counts = [(word.capitalize(), "num") for word in counted]
    heads = [("Build", ""), ("Outcome", ""), *counts, ("Seconds", "num")]
    note = f"The last {words.plural(len(found), 'run')} that asked for engines, the newest first."
    return el(
        "div",
        el("p", note, class_="note"),
        legend({f"f-{word}": word for word in counted}),
        table(heads, rows, "cards sortable", "Builds so far"),
    )


def _total(run: Mapping[str, Any]) -> int:
    return sum(run[word] for word in WORDS)


def _run(run: Mapping[str, Any], longest: float, most: int, counted: list[str], shown: bool) -> Html:
    this = el("span", "this build", class_="sub") if shown else None
    cut = None if run["whole"] else el("span", "did not come to its end", class_="sub")
    started = run["started"]
    moment = words.moment(started, True)
    title = el("th", moment, this, cut, scope="row", role="rowheader", data_v=started)
    counts = [cell(word.capitalize(), run[word], value=run[word], class_="num") for word in counted]
    lasted = cell(
        "Seconds", words.duration(run["seconds"]), bar(run["seconds"], longest, "bar2"),
        value=run["seconds"], class_="num",
    )  # fmt: skip
    stack = cell("Outcome", _stack(run, most), value=_total(run))
    return el("tr", title, stack, counts, lasted, role="row")


def _stack(run: Mapping[str, Any], most: int) -> Html:
    """What became of the engines as one bar."""
    parts, at = [], 0.0
    for word in WORDS:
        wide = 100 * run[word] / most if most else 0
        if wide:
            kind = {"x": f"{at:.2f}%", "width": f"{wide:.2f}%", "class_": f"f-{word}"}
            parts.append(el("rect", y=6, height=10, **kind))
        at += wide
    told = ", ".join(f"{run[word]} {word}" for word in WORDS if run[word] or word in ALWAYS)
    return el("svg", parts, height=22, role="img", aria_label=told, class_="cellbar")
