"""What the page adds to report.json: the verdict, the attention list, and changes since the previous
build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import plural
from ..files.untrusted_json import mapping, text
from ..values import Value
from . import number_format
from .engine_data import FIT, IN_STORE
from .history import MOVED, WORDS

PAGE = 100  # rows of a table, and details, that the page shows at a time
ALWAYS = ("reused", "built", "failed")  # counts that are shown even when zero
# Outcome → (style class, label).
OUTCOMES = {
    "built": ("b-built", "built"),
    "reused": ("b-reused", "reused"),
    "fetched": ("b-reused", "fetched"),
    "found": ("b-reused", "found in the store"),
    "dispatched": ("b-built", "dispatched"),
    "failed": ("b-failed", "failed"),
    "none": ("", "not requested"),
}


class ReleaseVerdict(Value):
    """Whether the engines can be released, in one sentence. kind: good, careful or bad."""

    kind: str
    sign: str
    text: str
    advice: str


class Attention(Value):
    """An engine or step that needs attention. link: index of the engine; kind: "w" for a warning."""

    title: str
    name: str
    why: str
    link: int | None = None
    kind: str = ""


def hardware(report: Mapping[str, Any]) -> list[str]:
    """The hardware of the engines, each once."""
    kinds = [each["hardware"] for each in report["engines"]]
    texts = (f"{k['name']} ({k['title']})" if k["name"] else str(k["title"]) for k in kinds)
    return list(dict.fromkeys(texts))


def first(items: Sequence[Any]) -> Sequence[Any]:
    """What the page shows of a list before anything is clicked."""
    return items[:PAGE]


def rest(items: Sequence[Any]) -> Sequence[Any]:
    """What it shows on further pages."""
    return items[PAGE:]


def verdict(report: Mapping[str, Any]) -> ReleaseVerdict:
    """Whether this set of engines can be released."""
    engines = report["engines"]
    failed = [each for each in engines if each["outcome"] == "failed"]
    unfit = [each for each in engines if each["on_disk"] not in FIT and each not in failed]
    of = plural(len(engines), "engine")
    if failed or unfit:
        kinds = {"failed": len(failed), "missing or damaged": len(unfit)}
        found = f"{' and '.join(f'{n} {what}' for what, n in kinds.items() if n)} of {of}"
        return ReleaseVerdict("bad", "✗", found, "Do not release these engines; see below.")
    if not engines:
        return ReleaseVerdict("careful", "!", "No engine is declared", "There is nothing to release.")
    tampered = sum(bool(each["integrity"]) for each in engines)
    if tampered:
        found = f"All {of} intact; {tampered} altered and replaced"
        return ReleaseVerdict("careful", "!", found, "Find out who altered them; see below.")
    unknown = sum(each["receipt"] is None for each in engines)
    if unknown:
        found = f"All {of} intact; {unknown} without a matching receipt"
        return ReleaseVerdict("careful", "!", found, "Run scons engines to rebuild them.")
    left = sum(each["on_disk"] == IN_STORE for each in engines)
    if left:
        found = f"All {of} intact or in the store; {left} not downloaded"
        return ReleaseVerdict("good", "✓", found, "Their signed entries were checked, but not their bytes.")
    return ReleaseVerdict("good", "✓", f"All {of} intact", "Each file matches its sidecar and receipt.")


def tiles(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures of the run with their labels."""
    run, engines, kept = report["run"], report["engines"], report["kept"]
    compiled = [each["compile_s"] for each in engines if each["compile_s"] is not None]
    return [
        *((str(run[word]), word) for word in WORDS if run[word] or word in ALWAYS),
        (
            number_format.size(sum(each["size"] or 0 for each in engines if each["on_disk"] != IN_STORE)),
            "on disk",
        ),
        *(
            (number_format.size(run["bytes"][name]), name.replace("_", " "))
            for name in MOVED
            if run["bytes"].get(name)
        ),
        *([(number_format.size(kept["size"]), "of replaced engines kept")] if kept["engines"] else ()),
        (number_format.duration(sum(compiled)) if compiled else number_format.NONE, "total compile time"),
        (number_format.duration(run["seconds"]), "wall time"),
    ]


def attention(report: Mapping[str, Any]) -> list[Attention]:
    """Failures first."""
    numbered = enumerate(report["engines"])
    ordered = sorted(numbered, key=lambda pair: pair[1]["outcome"] != "failed")
    found = [item for index, each in ordered for item in _of_engine(index, each)]
    for step in report["steps_failed"]:
        if "fails" not in step:  # else listed with its engine
            found.append(Attention("Failed step", step["step"], f"{step['error_class']}: {step['reason']}"))
    return found


def _of_engine(index: int, each: Mapping[str, Any]) -> Iterator[Attention]:
    name = each["engine"]
    if each["outcome"] == "failed":
        yield Attention("Failed", name, f"{each['error_class'] or 'Failed'}: {each['reason']}", index)
    elif each["on_disk"] == "missing":
        why = "the run did not reach it" if each["outcome"] == "none" else each["fault"]
        yield Attention("Missing", name, f"{why}; run scons engines", index)
    elif each["on_disk"] not in FIT:
        fix = "run scons engines to rebuild it"
        yield Attention("Damaged", name, f"{each['fault']}; {fix}", index)
    elif each["integrity"]:
        replaced = "" if each["outcome"] == "none" else " and replaced"
        yield Attention(f"Altered{replaced}", name, each["reason"], index, "w")


def compile_seconds(engine: Mapping[str, Any]) -> float | None:
    """Compile time of the engine, from this run or the run that built it."""
    if engine["compile_s"] is not None:
        return float(engine["compile_s"])
    return engine["receipt"]["duration_s"] if engine["receipt"] else None


def previous_build(engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """The build before the one on disk; without figures if there is none."""
    builds = engine["builds"]
    at = next((n for n, build in enumerate(builds) if build["current"]), len(builds))
    return builds[at + 1] if at + 1 < len(builds) else {"size": None, "duration_s": None}


def step_line(step: Any) -> str:
    """An ONNX step of a receipt, with its facts."""
    fields = mapping(step)
    found = mapping(fields.get("facts"))
    facts = {k: v for k, v in found.items() if isinstance(v, (str, int, float)) and not isinstance(v, bool)}
    facts.update(mapping(found.get("converter")))
    more = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"{text(fields.get('kind'))}: {text(fields.get('file'))}{f' ({more})' if more else ''}"


def history(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The runs, newest first, and the data of the table's bars."""
    found = report["runs"][::-1]
    most = max((_total(run) for run in found), default=0)
    counted = [word for word in WORDS if word in ALWAYS or any(run[word] for run in found)]
    return {
        "counted": counted,
        "heads": [(word.capitalize(), "num") for word in counted],
        "legend": {f"f-{word}": word for word in counted},
        "longest": max((run["seconds"] for run in found), default=0),
        "rows": [
            {"run": run, "total": _total(run), "parts": _stack(run, most), "words": counts(run)}
            for run in found
        ],
    }


def _total(run: Mapping[str, Any]) -> int:
    return sum(run[word] for word in WORDS)


def counts(run: Mapping[str, Any]) -> str:
    """The outcomes of a run: 3 reused, 1 built, 0 failed."""
    return ", ".join(f"{run[word]} {word}" for word in WORDS if run[word] or word in ALWAYS)


def _stack(run: Mapping[str, Any], most: int) -> list[dict[str, str]]:
    """The outcomes of a run as the parts of one bar."""
    parts, at = [], 0.0
    for word in WORDS:
        wide = 100 * run[word] / most if most else 0
        if wide:
            parts.append({"x": f"{at:.2f}%", "width": f"{wide:.2f}%", "word": word})
        at += wide
    return parts
