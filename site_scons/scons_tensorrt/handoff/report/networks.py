"""What engines are made of, as far as it can be known without their GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import words
from .html import Html, el
from .tables import cell, table
from .tolerant import listing, mapping, number, text

MOST_OPS = 40


def networks(report: Mapping[str, Any]) -> Html:
    """Every network in a line, and folded, in full."""
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
