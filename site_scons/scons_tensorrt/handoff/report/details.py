"""What stands behind a line: an engine in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import words
from .html import Html, el
from .tables import badge, cell, table
from .tolerant import listing, mapping, text


def engines(report: Mapping[str, Any]) -> Html:
    """Every engine, folded."""
    note = "All that its receipt tells. The sums are those of the files as they are now."
    button = el("button", "Open all details", id="open-all", type="button")
    return el(
        "div",
        el("p", note, class_="note"),
        el("div", button, class_="tools js-only"),
        [_engine(n, each, report) for n, each in enumerate(report["engines"])],
    )


def _engine(index: int, engine: Mapping[str, Any], report: Mapping[str, Any]) -> Html:
    facts = [(el("dt", name), el("dd", value)) for name, value in _facts(engine) if value]
    network = engine["network"]
    if network:
        link = el("a", engine["onnx"], href=f"#n-{network[:16]}")
        facts.append((el("dt", "Network"), el("dd", link)))
    facts.append((el("dt", "Engine inspector"), el("dd", report["engine_inspector"])))
    sub = el("span", f"{engine['precision']}, {engine['hardware']['title']}", class_="sub")
    return el(
        "details",
        el("summary", engine["name"], " ", badge(engine), sub),
        el("div", el("dl", facts), _outputs(engine), _builds(engine), class_="inside"),
        id=f"e{index}",
    )


def _facts(engine: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "File", el("code", engine["engine"])
    yield "SHA-256", engine["sha256"] and el("code", engine["sha256"])
    state = {"intact": "intact: its bytes are those its sidecar states"}
    yield "On disk", state.get(engine["on_disk"], f"{engine['on_disk']}: {engine['fault']}")
    yield (
        "Size",
        engine["size"] is not None and f"{words.size(engine['size'])} ({engine['size']:,} bytes)",
    )
    error = f"{engine['error_class']}: " if engine["error_class"] else ""
    yield "In this build", f"{engine['outcome']}: {error}{engine['reason']}"
    yield "Made from", engine["source"]
    yield "Hardware", _pairs(engine["hardware"]["fields"])
    yield "Shapes", _shapes(engine["shapes"])
    options = {k: v for k, v in engine["options"].items() if not k.startswith("shapes ")}
    yield "Options", _pairs(options)
    receipt = engine["receipt"]
    if receipt is None:
        yield "Receipt", "none of these bytes"
        return
    took = words.duration(receipt["duration_s"])
    memory = receipt["peak_memory_bytes"]
    peak = f", {words.size(memory)} of memory at most" if memory else ""
    yield "Compiled", f"{words.moment(receipt['started'])}, in {took}{peak}"
    yield "Compiled with", ", ".join(f"{k} {v}" for k, v in sorted(receipt["made_with"].items()))
    why = receipt["not_reproducible_because"]
    yield "Reproducible", "yes" if receipt["reproducible"] else f"no: {why or 'not known why'}"
    yield "Inputs", [_input(each) for each in receipt["inputs"]]
    yield "ONNX made by", [_step(mapping(each)) for each in listing(receipt["made_by"])]
    yield "Log", receipt["log"] and el("code", receipt["log"])
    yield "Key", el("code", receipt["key"])


def _pairs(fields: Mapping[str, str]) -> Html | None:
    if not fields:
        return None
    return el("ul", [el("li", f"{k} {v}") for k, v in fields.items()], class_="chips")


def _shapes(profiles: list[Any]) -> Html | str:
    found = [mapping(each) for each in profiles]
    if not any(found):
        return "those of the ONNX, all static"
    return el(
        "ul",
        [el("li", f"{name} {words.profile(r)}") for each in found for name, r in each.items()],
        class_="chips",
    )


def _input(each: Mapping[str, str]) -> Html:
    return el("div", f"{each['role']} {each['name']} ", el("code", each["sha256"]))


def _step(step: Mapping[str, Any]) -> Html:
    facts = {
        key: value
        for key, value in mapping(step.get("facts")).items()
        if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    }
    for key, value in mapping(mapping(step.get("facts")).get("converter")).items():
        facts[key] = value
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    return el("div", f"{text(step.get('kind'))}: {text(step.get('file'))}", told and f" ({told})")


def _outputs(engine: Mapping[str, Any]) -> Html | None:
    found = engine["accuracy"]
    if not found:
        return None
    heads = [("Output", ""), ("Error", "num"), ("Bound", "num"), ("Cosine", "num"), ("Largest", "num")]
    rows = [
        el(
            "tr",
            el("th", each["output"], scope="row", role="rowheader"),
            *(
                cell(label, words.figure(each[name]), class_="num")
                for label, name in (("Error", "error"), ("Bound", "bound"))
            ),
            cell(
                "Cosine", words.NONE if each["cosine"] is None else f"{each['cosine']:.6f}", class_="num"
            ),
            cell("Largest", words.figure(each["max_abs"]), class_="num"),
            cell("Mean", words.figure(each["mean_abs"]), class_="num"),
            role="row",
        )
        for each in found["outputs"][:50]
    ]
    samples = found["samples"]
    of = f" of {words.plural(int(samples), 'sample')}" if samples else ""
    caption = f"Accuracy of the ONNX, {found['metric']}{of}; the engine: {found['engine'] or 'not run'}"
    return el("div", el("h3", caption), table([*heads, ("Mean", "num")], rows, "cards", "Accuracy"))


def _builds(engine: Mapping[str, Any]) -> Html | None:
    builds = engine["builds"]
    if len(builds) < 2:
        return None
    heads = [
        ("Compiled", ""),
        ("Size", "num"),
        ("Time", "num"),
        ("SHA-256", ""),
        ("What had changed", ""),
    ]
    rows = []
    for build, before in zip(builds, [*builds[1:], None]):
        now = el("span", "the one that is there", class_="sub") if build["current"] else None
        since = before and words.change(build["size"], before["size"])
        rows.append(
            el(
                "tr",
                el("th", words.moment(build["started"], True), now, scope="row", role="rowheader"),
                cell(
                    "Size",
                    words.size(build["size"]),
                    since and el("span", since, class_="sub"),
                    class_="num",
                ),
                cell("Time", words.duration(build["duration_s"]), class_="num"),
                cell("SHA-256", el("code", build["sha256"][:12], class_="whole")),
                cell("What had changed", "; ".join(build["changes"]) or words.NONE),
                role="row",
            )
        )
    return el("div", el("h3", "Builds of this name"), table(heads, rows, "cards", "Builds of this name"))
