"""When each conversion, accuracy gate and compile of the run took place: a row an engine, or, for
many, as many lanes as ran at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import format

MOST_ROWS = 40
_KINDS = {
    "convert": "converting",
    "check": "checking accuracy",
    "compile": "compiling",
    "failed": "failed",
}


def timeline(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The chart as its template draws it; None where nothing took time."""
    spans = report["run"]["spans"]
    if not spans:
        return None
    whole = max([report["run"]["seconds"], *(s["started_s"] + s["duration_s"] for s in spans)])
    rows = _rows(spans, report["engines"])
    note = "A row for each engine: what was made for it, from the start of the run."
    if len(rows) > MOST_ROWS:
        rows = [("", lane) for lane in _lanes(spans)]
        note = f"{format.plural(len(spans), 'step')}; as many rows as ran at once."
    kinds = {_kind(span) for span in spans}
    return {
        "note": note,
        "legend": {f"s-{kind}": word for kind, word in _KINDS.items() if kind in kinds},
        "ticks": [_tick(seconds, whole) for seconds in _ticks(whole)],
        "rows": [
            {
                "label": label,
                "words": "; ".join(map(_words, row[:20])),
                "spans": [_bar(span, whole) for span in row],
            }
            for label, row in rows
        ],
    }


def _kind(span: Mapping[str, Any]) -> str:
    return "failed" if span["outcome"] == "failed" else str(span["kind"])


def _rows(spans: list[dict[str, Any]], engines: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Spans by the engine they were for; what several engines share stands with the first."""
    owners: dict[str, str] = {}
    for engine in engines:
        place = f", {engine['hardware']['name']}" if engine["hardware"]["name"] else ""
        label = f"{engine['name']} {engine['precision']}{place}"
        owners.setdefault(engine["engine"], label)
        if ".trt/onnx/" in engine["onnx"] or "/onnx/" in engine["onnx"]:
            owners.setdefault(engine["onnx"], label)
            owners.setdefault(engine["onnx"].removesuffix(".onnx") + ".accuracy.json", label)
    rows: dict[str, list[Any]] = {}
    for span in spans:
        rows.setdefault(owners.get(span["of"], span["of"]), []).append(span)
    return list(rows.items())


def _lanes(spans: list[dict[str, Any]]) -> list[list[Any]]:
    """The fewest rows in which no span lies over another."""
    lanes: list[list[Any]] = []
    for span in spans:
        free = (each for each in lanes if _end(each[-1]) <= span["started_s"] + 0.002)
        lane = next(free, None)
        if lane is None:
            lanes.append([span])
        else:
            lane.append(span)
    return lanes


def _end(span: Mapping[str, Any]) -> float:
    return float(span["started_s"] + span["duration_s"])


def _ticks(whole: float) -> list[float]:
    """Round numbers of seconds, some five of them."""
    step = 0.001
    for factor in (2, 2.5, 2) * 12:
        if whole / step <= 6:
            break
        step *= factor
    return [step * n for n in range(int(whole / step) + 1)]


def _at(seconds: float, whole: float) -> str:
    return f"{100 * seconds / (whole or 1):.3f}%"


def _tick(seconds: float, whole: float) -> dict[str, str]:
    anchor = "end" if seconds > 0.95 * whole else "start" if seconds == 0 else "middle"
    return {"at": _at(seconds, whole), "anchor": anchor, "label": f"{seconds:g} s"}


def _bar(span: Mapping[str, Any], whole: float) -> dict[str, str]:
    wide = 100 * span["duration_s"] / (whole or 1)
    return {
        "at": _at(span["started_s"], whole),
        "width": f"{max(wide, 0.25):.3f}%",
        "kind": _kind(span),
        "title": f"{span['of']}: {_words(span)}",
    }


def _words(span: Mapping[str, Any]) -> str:
    lasted = f"{format.duration(span['duration_s'])} from {format.duration(span['started_s'])}"
    waited = span["duration_s"] - (span["compile_s"] or span["duration_s"])
    more = f", {format.duration(waited)} of it waiting" if waited > 0.5 else ""
    return f"{_KINDS[_kind(span)]} {lasted}{more}"
