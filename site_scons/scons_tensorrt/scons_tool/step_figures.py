"""The figures in the lines of ONNX steps and comparisons, from the facts in their receipts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import plural
from ..recipe.gate_options import share_of_bound


def figures_of_step(kind: str, facts: Mapping[str, Any]) -> str:
    """What the line of a step says besides its file: what was rewritten, converted or compared."""
    if kind == "prepare":
        return str(facts.get("changes") or "nothing to change")
    if kind == "precision":
        return _conversion(facts)
    return worst(facts) if kind == "accuracy" else ""


def _conversion(facts: Mapping[str, Any]) -> str:
    """The nodes that keep_nodes="auto" keeps, and how many weights 16 bit cannot represent. `largest`: not
    in receipts of earlier versions."""
    words, auto = [], facts.get("auto")
    if facts.get("clamped"):
        largest = facts.get("largest")
        most = f" (the largest {largest['value']:,.6g} in `{largest['tensor']}`)" if largest else ""
        words.append(f"{facts['clamped']:,} too large{most}")
    if facts.get("raised"):
        words.append(f"{facts['raised']:,} too small")
    found = [f"weights cut: {', '.join(words)}"] if words else []
    if auto:
        nodes = ", ".join(auto["nodes"][:3]) + (", …" if len(auto["nodes"]) > 3 else "")
        kept = f"keeps {len(auto['nodes'])} of {auto['of']} nodes in float32"
        found.insert(0, f"keep_nodes='auto' {kept}{': ' * bool(nodes)}{nodes}; {auto['tried']} choices tried")
    return "; ".join(found)


def worst(facts: Mapping[str, Any]) -> str:
    """The output with the largest share of its bound, how many layers run in 8 bit, and how many corners were
    run. `quantized`: not in receipts of earlier versions."""
    outputs, corners = facts.get("outputs") or {}, facts.get("corners") or {}
    words = [_output(facts, outputs) if outputs else _without_outputs(corners)]
    return "; ".join([*words, *_quantized(facts.get("quantized")), *_corners(corners)])


def _quantized(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    macs = "" if found["macs"] is None else f", {found['macs']:.0%} of the multiplications"
    return [f"{found['layers']} of {plural(found['of'], 'layer')} in 8 bit{macs}"]


def _output(facts: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    name = max(outputs, key=lambda each: share_of_bound(outputs[each]["error"], outputs[each]["bound"]))
    figures = outputs[name]
    return (
        f"output `{name}` {facts['metric']} error {figures['error']:.3g} of {figures['bound']:.3g}, "
        f"cosine {figures.get('cosine', 1.0):.6f}"
    )


def _without_outputs(corners: Mapping[str, Any]) -> str:
    if not corners:
        return "no outputs"
    why = corners.get("note")
    return str(corners["judged"]) + (f"; corners not run: {why[:100]}" if why else "")


def _corners(corners: Mapping[str, Any]) -> list[str]:
    table = corners.get("table") or []
    faults = [
        f"at {each['corner']} {each['note'].split(':')[0]}" for each in table if "original" in each["note"]
    ]
    return [f"{plural(len(table), 'corner')} in {corners['seconds']:.1f} s", *faults[:1]] if table else []
