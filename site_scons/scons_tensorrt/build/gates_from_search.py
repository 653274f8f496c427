"""Figures of accuracy gates that a search for `keep_nodes="auto"` has computed in this run: it ends with the
whole gate, on the files that the gate's own step would compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact.receipt import Receipt
from ..recipe.key_ingredients import input_name
from .onnx_spec import VERSIONS, OnnxSpec

GATE = "gate"  # a fact of a search, which its receipt leaves out
OPTIONS = ("rtol", "atol", "metric", "corners")


class KnownGates:
    """By what they compare: the text of the file, and the facts."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}

    def add(self, spec: OnnxSpec, gate: Mapping[str, Any], receipt: Receipt) -> None:
        """Keep the gate of a search, whose file is published."""
        data = receipt.details.get("data_sha256")
        converted = {"": receipt.sha256, **({"data": str(data)} if data else {})}
        role = "reference" if "reference" in spec.onnx else "onnx"
        self._known[_compared(spec, _digests(spec, role), converted)] = gate["text"], dict(gate["facts"])

    def write(self, spec: OnnxSpec, made: Path) -> dict[str, Any] | None:
        """Write the file of a gate if it is known; returns its facts."""
        if spec.kind != "accuracy" or "converted" not in spec.onnx:
            return None
        converted = _digests(spec, "converted")
        text, facts = self._known.get(_compared(spec, _digests(spec, "reference"), converted), (None, None))
        if text is not None:
            made.write_text(text, encoding="utf-8")
        return facts


def _digests(spec: OnnxSpec, role: str) -> dict[str, str]:
    """The digests of an ONNX ("") and of its external data, by location; of a step's own, all by "data"."""
    found = {"": spec.ingredients[input_name(role)]}
    for location in spec.onnx[role].external:
        data = "data" if role == "onnx" else f"{role} data"
        place = "data" if role == "converted" else location
        found[place] = spec.ingredients[input_name(data, location)]
    return found


def _compared(spec: OnnxSpec, reference: Mapping[str, str], converted: Mapping[str, str]) -> str:
    samples = {name: text for name, text in spec.ingredients.items() if name.startswith("input samples ")}
    chosen = dict(spec.samples.key_fields) if spec.samples else {}
    options = {name: spec.options.get(name) for name in OPTIONS}
    compared = [VERSIONS["accuracy"], reference, converted, samples, chosen, options]
    return json.dumps(compared, sort_keys=True)
