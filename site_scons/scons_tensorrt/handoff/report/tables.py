"""What tables are made of, and the one of engines: a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import words
from .html import Html, breakable, el

ALWAYS = ("reused", "built", "failed")  # counts that are told where they are none, too
OUTCOMES = {
    "built": ("b-built", "built"),
    "reused": ("b-reused", "reused"),
    "fetched": ("b-reused", "fetched"),
    "dispatched": ("b-built", "dispatched"),
    "failed": ("b-failed", "failed"),
    "none": ("", "not asked for"),
}


def cell(label: str, *content: Any, value: Any = None, **attributes: Any) -> Html:
    """A cell; label: its column, which a phone shows beside it; value: what it is sorted by."""
    return el("td", el("div", *content), data_label=label, data_v=value, role="cell", **attributes)


def bar(part: float | None, whole: float | None, kind: str = "bar") -> Html | None:
    """A part of a whole as a bar; what it shows stands in words beside it."""
    if part is None or not whole:
        return None
    percent = min(100.0, 100 * part / whole)
    back = el("rect", width="100%", height=6, rx=3, class_="back")
    front = el("rect", width=f"{percent:.2f}%", height=6, rx=3, class_=kind)
    return el("svg", back, front, height=6, class_="cellbar", aria_hidden="true")


def legend(colours: Mapping[str, str]) -> Html:
    """What colours mean: class → words."""

    def key(kind: str, word: str) -> Html:
        mark = el("rect", width=12, height=12, rx=2, class_=kind)
        return el("li", el("svg", mark, aria_hidden="true"), word)

    return el("ul", [key(*each) for each in colours.items()], class_="legend")


def badge(engine: Mapping[str, Any]) -> Html:
    """The outcome in a word, or what is worse."""
    if engine["on_disk"] != "intact" and engine["outcome"] != "failed":
        return el("span", engine["on_disk"], class_="badge b-failed")
    kind, word = OUTCOMES[engine["outcome"]]
    return el("span", word, class_=f"badge {kind}")


def table(heads: list[tuple[str, str]], rows: list[Html], kind: str, caption: str) -> Html:
    """heads: (title, class) of each column."""
    cells = [
        el("th", title, scope="col", class_=name or None, role="columnheader") for title, name in heads
    ]
    return el(
        "table",
        el("caption", caption, class_="hidden"),
        el("thead", el("tr", cells, role="row"), role="rowgroup"),
        el("tbody", rows, role="rowgroup"),
        class_=kind,
        role="table",
    )


def engines(report: Mapping[str, Any]) -> Html:
    """Every engine in a line."""
    found = report["engines"]
    largest = max((each["size"] or 0 for each in found), default=0)
    longest = max((_seconds(each) or 0 for each in found), default=0)
    several = len(hardware(report)) > 1
    heads = [("Engine", ""), ("Precision", ""), *([("For", "")] if several else []), ("Outcome", "")]
    heads += [("Size", "num"), ("Compile", "num"), ("Accuracy", "num"), ("SHA-256", "")]
    rows = [_engine(n, each, largest, longest, several) for n, each in enumerate(found)]
    tools = el(
        "div",
        el("label", "Show only what has these words", for_="filter", class_="hidden"),
        el("input", id="filter", type="search", placeholder="Filter: name, precision, failed, …"),
        el("span", id="filtered", class_="soft", role="status"),
        class_="tools js-only",
    )
    note = (
        "Size and compile time are held against the build of the same name before it. Accuracy is that "
        "of the ONNX that was compiled against its original: error, and the part of its bound it uses. "
        "The engine itself was not run: that takes its GPU."
    )
    return el(
        "div", el("p", note, class_="note"), tools, table(heads, rows, "cards sortable", "Engines")
    )


def _seconds(engine: Mapping[str, Any]) -> float | None:
    """Of this run's compile, or of the one that made what was reused."""
    if engine["compile_s"] is not None:
        return float(engine["compile_s"])
    return engine["receipt"]["duration_s"] if engine["receipt"] else None


def _before(engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """The build before the one that is there; empty where there is none."""
    builds = engine["builds"]
    at = next((n for n, build in enumerate(builds) if build["current"]), None)
    return builds[at + 1] if at is not None and at + 1 < len(builds) else {}


def hardware(report: Mapping[str, Any]) -> list[str]:
    """What engines are for, each once."""
    return list(dict.fromkeys(_place(each) for each in report["engines"]))


def _place(engine: Mapping[str, Any]) -> str:
    name, title = engine["hardware"]["name"], engine["hardware"]["title"]
    return f"{name} ({title})" if name else str(title)


def _engine(
    index: int, engine: Mapping[str, Any], largest: float, longest: float, several: bool
) -> Html:
    before, seconds = _before(engine), _seconds(engine)
    filename = engine["engine"].rpartition("/")[2]
    link = el("a", engine["name"], href=f"#e{index}")
    title = el(
        "th", link, el("span", breakable(filename), class_="sub mono"), scope="row", role="rowheader"
    )
    size = cell(
        "Size", words.size(engine["size"]), _since(engine["size"], before.get("size")),
        bar(engine["size"], largest), value=engine["size"] or "", class_="num",
    )  # fmt: skip
    time = cell(
        "Compile", words.duration(seconds), _since(seconds, before.get("duration_s")),
        bar(seconds, longest, "bar2"), value="" if seconds is None else seconds, class_="num",
    )  # fmt: skip
    why = engine["reason"] if engine["outcome"] not in ("reused", "none") else None
    return el(
        "tr",
        title,
        cell("Precision", engine["precision"]),
        several and cell("For", breakable(engine["hardware"]["name"] or engine["hardware"]["title"])),
        cell("Outcome", badge(engine), why and el("span", why, class_="sub")),
        size,
        time,
        _accuracy(engine),
        cell("SHA-256", el("code", (engine["sha256"] or words.NONE)[:12], class_="whole")),
        role="row",
    )


def _since(now: float | None, before: float | None) -> Html | None:
    if not before or now is None:
        return None
    return el("span", words.change(now, before), class_="sub")


def _accuracy(engine: Mapping[str, Any]) -> Html:
    found = engine["accuracy"]
    if not found:
        return cell("Accuracy", words.NONE, value="", class_="num")
    worst = found["outputs"][0]
    used = f"{100 * worst['used']:.1f} % of bound"
    text = el("span", used, class_="sub")
    return cell(
        "Accuracy", words.figure(worst["error"]), text, bar(worst["used"], 1.0, "bar2"),
        value=worst["used"], class_="num",
    )  # fmt: skip
