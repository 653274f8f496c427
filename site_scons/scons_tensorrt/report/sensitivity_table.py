"""What each layer of a converted network costs, in the report, by `scons-tensorrt sensitivity`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files.untrusted_json import listing, mapping, number, text
from ..recipe.gate_options import share_of_bound

MAX_LAYERS = 1000


def describe_sensitivity(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error of the outputs as they are, and with each layer back in float. `used`: the share of the
    bound. None without figures."""
    whole = _figures(mapping(found.get("all")))
    layers = [_layer(mapping(each)) for each in listing(found.get("layers"))[:MAX_LAYERS]]
    if not layers or not whole["used"]:
        return None
    return {
        "kind": text(found.get("kind")),
        "metric": text(found.get("metric")),
        "samples": number(found.get("samples")),
        "drawn": found.get("drawn") is True,
        "of": number(found.get("of")),
        "all": whole,
        "noise": _figures(mapping(found["noise"])) if mapping(found.get("noise")) else None,
        "layers": layers,
    }


def _layer(each: Mapping[str, Any]) -> dict[str, Any]:
    return {"layer": text(each.get("layer")), "op": text(each.get("op")), **_figures(each)}


def _figures(each: Mapping[str, Any]) -> dict[str, Any]:
    error, bound = number(each.get("error")), number(each.get("bound"))
    used = number(share_of_bound(error, bound)) or 0.0
    return {"output": text(each.get("output")), "error": error, "bound": bound, "used": round(used, 9)}
