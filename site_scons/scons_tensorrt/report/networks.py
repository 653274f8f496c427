"""The networks section: nodes, operators and parameters of each ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files.untrusted_json import listing, mapping, number, text
from . import number_format


def networks(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The networks of the report as the page shows them. ops: most frequent first."""
    used: dict[str, list[str]] = {}
    for engine in report["engines"]:
        if engine["network"]:
            used.setdefault(engine["network"], []).append(f"{engine['name']} {engine['precision']}")
    return [
        _network(sha256, mapping(each), used.get(sha256, [])) for sha256, each in report["networks"].items()
    ]


def _network(sha256: str, each: Mapping[str, Any], used: list[str]) -> dict[str, Any]:
    weights, file = _counts(each.get("weights")), text(each.get("file"))
    more = f" and {len(used) - 3} more" if len(used) > 3 else ""
    return {
        "id": sha256[:16],
        "title": "/".join(file.split("/")[-2:]) or sha256[:12],  # many are called model.onnx
        "used": ", ".join(used[:3]) + more,
        "file": file,
        "sha256": sha256,
        "producer": text(each.get("producer")),
        "opset": _count(each.get("opset")),
        "nodes": _count(each.get("nodes")),
        "parameters": sum(weights.values()),
        "bytes": _count(each.get("weights_bytes")),
        "types": ", ".join(f"{kind} {number_format.count(n)}" for kind, n in list(weights.items())[:4]),
        "inputs": _tensors(each.get("inputs")),
        "outputs": _tensors(each.get("outputs")),
        "ops": [f"{kind} {n:,.0f}" for kind, n in _counts(each.get("ops")).items()],
    }


def _count(value: Any) -> float:
    return number(value) or 0


def _counts(found: Any) -> dict[str, float]:
    """Numbers by name, largest first."""
    counts = [(name, _count(n)) for name, n in mapping(found).items()]
    return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def _tensors(found: Any) -> list[str]:
    tensors = [mapping(each) for each in listing(found)[:50]]
    return [
        f"{text(t.get('name'))} {text(t.get('type'))} {number_format.shape(t.get('shape'))}" for t in tensors
    ]
