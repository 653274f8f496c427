"""What stands behind a line: an engine in full, and the networks that engines are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import words
from .html import Html, el
from .tables import badge, cell, table
from .tolerant import listing, mapping, number, text

MOST_OPS = 40


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


def networks(report: Mapping[str, Any]) -> Html:
    """What engines are made of, as far as it can be known without their GPU."""
    used: dict[str, list[str]] = {}
    for engine in report["engines"]:
        if engine["network"]:
            used.setdefault(engine["network"], []).append(f"{engine['name']} {engine['precision']}")
    note = (
        "Counted in the ONNX files: nodes, operators, parameters by type. What TensorRT fused them to, "
        "only its engine inspector could tell, which was not run: it needs the GPU."
    )
    heads = [("ONNX", ""), ("Nodes", "num"), ("Parameters", "num"), ("Bytes", "num"), ("Types", "")]
    found = {name: mapping(each) for name, each in report["networks"].items()}
    rows = [_network_row(name, each, used.get(name, [])) for name, each in found.items()]
    return el(
        "div",
        el("p", note, class_="note"),
        table(heads, rows, "cards sortable", "Networks"),
        [_network(name, each) for name, each in found.items()],
    )


def _title(name: str, each: Mapping[str, Any]) -> str:
    """The file with its folder: many networks are called model.onnx."""
    return "/".join(text(each.get("file")).split("/")[-2:]) or name[:12]


def _count(value: Any) -> float:
    return number(value) or 0


def _counts(found: Any) -> dict[str, float]:
    """Counts by name, the greatest first."""
    counts = [(name, _count(number)) for name, number in mapping(found).items()]
    return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def _network_row(name: str, each: Mapping[str, Any], used: list[str]) -> Html:
    weights = _counts(each.get("weights"))
    total, size, nodes = (
        sum(weights.values()),
        _count(each.get("weights_bytes")),
        _count(each.get("nodes")),
    )
    types = ", ".join(f"{kind} {words.count(n)}" for kind, n in list(weights.items())[:4])
    link = el("a", _title(name, each), href=f"#n-{name[:16]}")
    more = f" and {len(used) - 3} more" if len(used) > 3 else ""
    return el(
        "tr",
        el(
            "th",
            link,
            el("span", ", ".join(used[:3]) + more, class_="sub"),
            scope="row",
            role="rowheader",
        ),
        cell("Nodes", f"{nodes:,.0f}", value=nodes, class_="num"),
        cell("Parameters", words.count(total), value=total, class_="num"),
        cell("Bytes", words.size(size), value=size, class_="num"),
        cell("Types", types or words.NONE),
        role="row",
    )


def _network(name: str, each: Mapping[str, Any]) -> Html:
    ops = _counts(each.get("ops"))
    chips = [el("li", f"{kind} {n:,.0f}") for kind, n in list(ops.items())[:MOST_OPS]]
    more = el("li", f"and {len(ops) - MOST_OPS} more") if len(ops) > MOST_OPS else None
    facts = [
        ("File", el("code", text(each.get("file")))),
        ("SHA-256", el("code", name)),
        (
            "Exported by",
            f"{text(each.get('producer')) or 'not said'}, opset {_count(each.get('opset')):.0f}",
        ),
        ("Inputs", _tensors(each.get("inputs"))),
        ("Outputs", _tensors(each.get("outputs"))),
        ("Operators", el("ul", chips, more, class_="chips")),
    ]
    title = _title(name, each)
    sub = el("span", f"{words.plural(len(ops), 'kind')} of node", class_="sub")
    return el(
        "details",
        el("summary", title, sub),
        el("div", el("dl", [(el("dt", k), el("dd", v)) for k, v in facts]), class_="inside"),
        id=f"n-{name[:16]}",
    )


def _tensors(found: Any) -> Html:
    tensors = [mapping(each) for each in listing(found)[:50]]
    told = [
        f"{text(t.get('name'))} {text(t.get('type'))} {words.shape(t.get('shape'))}" for t in tensors
    ]
    return el("ul", [el("li", each) for each in told], class_="chips")
