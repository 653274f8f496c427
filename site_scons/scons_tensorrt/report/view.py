"""What the page shows that report.json does not hold: the verdict, what needs attention, changes since
the build before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import format
from .history import WORDS

ALWAYS = ("reused", "built", "failed")  # counts that are shown when they are zero, too
# Outcome → style class and words.
OUTCOMES = {
    "built": ("b-built", "built"),
    "reused": ("b-reused", "reused"),
    "fetched": ("b-reused", "fetched"),
    "dispatched": ("b-built", "dispatched"),
    "failed": ("b-failed", "failed"),
    "none": ("", "not asked for"),
}


class UpToDateResult(NamedTuple):
    """One sentence that a person who reads no further can act on. kind: good, careful or bad."""

    kind: str
    sign: str
    text: str
    advice: str


class Attention(NamedTuple):
    """An engine or step that needs attention. link: the engine's index; kind: "w" for a warning."""

    title: str
    name: str
    why: str
    link: int | None = None
    kind: str = ""


class EngineRow(NamedTuple):
    """seconds: of the compile that made the bytes; *_change: against the build before."""

    filename: str
    why: str
    seconds: float | None
    size_change: str
    time_change: str


def hardware(report: Mapping[str, Any]) -> list[str]:
    """What the engines are for, each kind once."""
    kinds = [each["hardware"] for each in report["engines"]]
    texts = (f"{k['name']} ({k['title']})" if k["name"] else str(k["title"]) for k in kinds)
    return list(dict.fromkeys(texts))


def verdict(report: Mapping[str, Any]) -> UpToDateResult:
    """Whether this set of engines can be released."""
    engines = report["engines"]
    failed = [each for each in engines if each["outcome"] == "failed"]
    unfit = [each for each in engines if each["on_disk"] != "intact" and each not in failed]
    of = format.plural(len(engines), "engine")
    if failed or unfit:
        counts = {"failed": len(failed), "missing or damaged": len(unfit)}
        text = f"{' and '.join(f'{n} {what}' for what, n in counts.items() if n)} of {of}"
        return UpToDateResult("bad", "✗", text, "Do not release this set; what to do stands below.")
    if not engines:
        return UpToDateResult("careful", "!", "No engine is declared", "There is nothing to release.")
    tampered = sum(bool(each["integrity"]) for each in engines)
    if tampered:
        text = f"All {of} intact; {tampered} had been altered and replaced"
        return UpToDateResult("careful", "!", text, "Find out who altered it: see below.")
    unknown = sum(each["receipt"] is None for each in engines)
    if unknown:
        text = f"All {of} intact, of {unknown} no receipt says what they were made from"
        return UpToDateResult("careful", "!", text, "Run scons engines: it makes those again.")
    return UpToDateResult("good", "✓", f"All {of} intact", "Each file is what its checksum and receipt say.")


def tiles(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures of the run with their labels."""
    run, engines = report["run"], report["engines"]
    compiled = [each["compile_s"] for each in engines if each["compile_s"] is not None]
    return [
        *((str(run[word]), word) for word in WORDS if run[word] or word in ALWAYS),
        (format.size(sum(each["size"] or 0 for each in engines)), "on disk"),
        (format.duration(sum(compiled)) if compiled else format.NONE, "compiling, all together"),
        (format.duration(run["seconds"]), "from start to end"),
    ]


def attention(report: Mapping[str, Any]) -> list[Attention]:
    """Failures first."""
    numbered = enumerate(report["engines"])
    ordered = sorted(numbered, key=lambda pair: pair[1]["outcome"] != "failed")
    found = [item for index, each in ordered for item in _of_engine(index, each)]
    for step in (each for each in report["steps_failed"] if "fails" not in each):  # else told above
        found.append(Attention("Failed step", step["step"], f"{step['error_class']}: {step['reason']}"))
    return found


def _of_engine(index: int, each: Mapping[str, Any]) -> Iterator[Attention]:
    name = each["engine"]
    if each["outcome"] == "failed":
        yield Attention("Failed", name, f"{each['error_class'] or 'Failed'}: {each['reason']}", index)
    elif each["on_disk"] == "missing":
        why = "the run did not come to it" if each["outcome"] == "none" else each["fault"]
        yield Attention("Missing", name, f"{why}; run scons engines", index)
    elif each["on_disk"] != "intact":
        fix = "run scons engines: it makes this pair alone again"
        yield Attention("Damaged", name, f"{each['fault']}; {fix}", index)
    elif each["integrity"]:
        again = "" if each["outcome"] == "none" else " and replaced"
        yield Attention(f"Altered{again}", name, each["reason"], index, "w")


def compile_seconds(engine: Mapping[str, Any]) -> float | None:
    """Of this run's compile, or of the one that made what was reused."""
    if engine["compile_s"] is not None:
        return float(engine["compile_s"])
    return engine["receipt"]["duration_s"] if engine["receipt"] else None


def engine_rows(report: Mapping[str, Any]) -> list[EngineRow]:
    """What the table of engines adds, in the report's order."""
    return [_engine_row(each) for each in report["engines"]]


def _engine_row(engine: Mapping[str, Any]) -> EngineRow:
    builds = engine["builds"]
    at = next((n for n, build in enumerate(builds) if build["current"]), None)
    before = builds[at + 1] if at is not None and at + 1 < len(builds) else {}
    seconds = compile_seconds(engine)
    return EngineRow(
        engine["engine"].rpartition("/")[2],
        engine["reason"] if engine["outcome"] not in ("reused", "none") else "",
        seconds,
        _change(engine["size"], before.get("size")),
        _change(seconds, before.get("duration_s")),
    )


def _change(now: float | None, before: float | None) -> str:
    return format.change(now, before) if before and now is not None else ""


def history(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The runs, newest first, with what the table's bars need."""
    found = report["runs"][::-1]
    most = max((_total(run) for run in found), default=0)
    counted = [word for word in WORDS if word in ALWAYS or any(run[word] for run in found)]
    counts = [(word.capitalize(), "num") for word in counted]
    return {
        "counted": counted,
        "heads": [("Build", ""), ("Outcome", ""), *counts, ("Seconds", "num")],
        "legend": {f"f-{word}": word for word in counted},
        "longest": max((run["seconds"] for run in found), default=0),
        "rows": [
            {"run": run, "total": _total(run), "parts": _stack(run, most), "words": _counts(run)}
            for run in found
        ],
    }


def _total(run: Mapping[str, Any]) -> int:
    return sum(run[word] for word in WORDS)


def _counts(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{run[word]} {word}" for word in WORDS if run[word] or word in ALWAYS)


def _stack(run: Mapping[str, Any], most: int) -> list[dict[str, str]]:
    """What became of the engines, as the parts of one bar."""
    parts, at = [], 0.0
    for word in WORDS:
        wide = 100 * run[word] / most if most else 0
        if wide:
            parts.append({"x": f"{at:.2f}%", "width": f"{wide:.2f}%", "word": word})
        at += wide
    return parts
