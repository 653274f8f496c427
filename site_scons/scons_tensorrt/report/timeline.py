"""The timeline: when each conversion, accuracy gate and compile of the run took place.

One row per engine or, for many engines, one row per parallel lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import plural
from . import number_format

MAX_ROWS = 40
MAX_BARS = 500  # of a lane
_KINDS = {
    "convert": "converting",
    "check": "checking accuracy",
    "compile": "compiling",
    "failed": "failed",
}


def timeline(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The data of the chart; None for a run without steps or compiles."""
    spans = report["run"]["spans"]
    if not spans:
        return None
    total = max([report["run"]["seconds"], *(s["started_s"] + s["duration_s"] for s in spans)])
    rows = _rows(spans, report["engines"])
    note = "One row per engine, from the start of the run."
    if len(rows) > MAX_ROWS:
        rows = [("", _merged(lane, total / MAX_BARS)) for lane in _lanes(spans)]
        note = f"{plural(len(spans), 'step')}; one row per parallel job."
    kinds = {_kind(span) for span in spans}
    return {
        "note": note,
        "legend": {f"s-{kind}": word for kind, word in _KINDS.items() if kind in kinds},
        "ticks": [_tick(seconds, total) for seconds in _ticks(total)],
        "rows": [
            {
                "label": label,
                "words": "; ".join(map(_describe, row[:20])),
                "spans": [_bar(span, total) for span in row],
            }
            for label, row in rows
        ],
    }


def _kind(span: Mapping[str, Any]) -> str:
    return "failed" if span["outcome"] == "failed" else str(span["kind"])


def _rows(spans: list[dict[str, Any]], engines: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Spans by engine; a shared step is listed with the first engine that needs it."""
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
    """The fewest rows in which no spans overlap."""
    lanes: list[list[Any]] = []
    for span in spans:
        free = (each for each in lanes if _end(each[-1]) <= span["started_s"] + 0.002)
        lane = next(free, None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(span)
    return lanes


def _merged(lane: list[Any], longest: float) -> list[Any]:
    """The spans of a lane, with neighbours of one kind that end within `longest` seconds as one: 10,000
    compiles are more bars than a screen has pixels. `more`: how many a span stands for, besides the first."""
    found: list[Any] = []
    for span in lane:
        last = found[-1] if found else None
        if last and _kind(last) == _kind(span) and _end(span) - last["started_s"] <= longest:
            lasted, more = _end(span) - last["started_s"], last.get("more", 0) + 1
            found[-1] = {**last, "duration_s": lasted, "compile_s": None, "more": more}
        else:
            found.append(span)
    return found


def _end(span: Mapping[str, Any]) -> float:
    return float(span["started_s"] + span["duration_s"])


def _ticks(total: float) -> list[float]:
    """About five round numbers of seconds."""
    step = 0.001
    for factor in (2, 2.5, 2) * 12:
        if total / step <= 6:
            break
        step *= factor
    return [step * n for n in range(int(total / step) + 1)]


def _at(seconds: float, total: float) -> str:
    return f"{100 * seconds / (total or 1):.3f}%"


def _tick(seconds: float, total: float) -> dict[str, str]:
    anchor = "end" if seconds > 0.95 * total else "start" if seconds == 0 else "middle"
    return {"at": _at(seconds, total), "anchor": anchor, "label": f"{seconds:g} s"}


def _bar(span: Mapping[str, Any], total: float) -> dict[str, str]:
    wide = 100 * span["duration_s"] / (total or 1)
    more = f" and {span['more']} more" if "more" in span else ""
    return {
        "at": _at(span["started_s"], total),
        "width": f"{max(wide, 0.25):.3f}%",
        "kind": _kind(span),
        "title": f"{span['of']}{more}: {_describe(span)}",
    }


def _describe(span: Mapping[str, Any]) -> str:
    took = f"{number_format.duration(span['duration_s'])} from {number_format.duration(span['started_s'])}"
    waited = span["duration_s"] - (span["compile_s"] or span["duration_s"])
    more = f", {number_format.duration(waited)} of that waiting" if waited > 0.5 else ""
    return f"{_KINDS[_kind(span)]} {took}{more}"
