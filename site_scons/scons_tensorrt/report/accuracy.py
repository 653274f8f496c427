"""The accuracy of an engine in the report: errors by output, how its values are spread, how much is
quantized, and the corners that were run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..artifact.receipt import Receipt
from ..files.untrusted_json import listing, mapping, number, seconds, text
from ..recipe.gate_options import share_of_bound

MAX_CORNERS = 60
MAX_OUTPUTS = 20  # of a corner
MAX_HISTOGRAMS = 12
MAX_BINS = 64


def describe_accuracy(receipt: Receipt | None) -> dict[str, Any] | None:
    """Accuracy of the compiled ONNX against its original, the output nearest to its bound first, and the
    corners of ONNX and engine. None if nothing was compared."""
    accuracy = mapping(receipt.details.get("accuracy")) if receipt else {}
    facts, engine = mapping(accuracy.get("onnx")), mapping(accuracy.get("engine"))
    outputs = [_output(name, mapping(each)) for name, each in mapping(facts.get("outputs")).items()]
    corners = [*_corners("ONNX", facts), *_corners("engine", engine)]
    if not outputs and not corners:
        return None
    outputs.sort(key=lambda each: -each["used"])
    told = mapping(facts.get("corners")) or mapping(engine.get("corners"))
    return {
        "metric": text(facts.get("metric")),
        "samples": number(facts.get("samples")),
        "engine": f"run on {text(engine.get('gpu'))}" if engine else text(accuracy.get("engine")),
        "outputs": outputs,
        "judged": text(told.get("judged")),
        "seed": number(told.get("seed")),
        "seconds": seconds(told.get("seconds")),
        "corners": corners[:MAX_CORNERS],
        "quantized": _quantized(mapping(facts.get("quantized"))),
        "histograms": [*_histograms("ONNX", facts), *_histograms("engine", engine)][:MAX_HISTOGRAMS],
    }


def _quantized(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """How much of the network runs in 8 bit; None if nothing is quantized, or the receipt does not say."""
    layers, of = number(found.get("layers")), number(found.get("of"))
    if layers is None or of is None:
        return None
    in_float = [text(each) for each in listing(found.get("in_float"))]
    return {"layers": layers, "of": of, "macs": number(found.get("macs")), "in_float": in_float[:MAX_OUTPUTS]}


def _histograms(of: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """How the values of each output are spread, in the original and in what was made of it. of: "ONNX" or
    "engine"."""
    for name, figures in mapping(facts.get("outputs")).items():
        found = mapping(mapping(figures).get("histogram"))
        counts = [[number(n) or 0 for n in listing(found.get(key))] for key in ("original", "converted")]
        low, high = number(found.get("low")), number(found.get("high"))
        if low is not None and high is not None and 0 < len(counts[0]) == len(counts[1]) <= MAX_BINS:
            ends = {"low": low, "high": high}
            yield {"of": of, "output": text(name), **ends, "original": counts[0], "made": counts[1]}


def _output(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    error, bound = number(figures.get("error")), number(figures.get("bound"))
    used = number(share_of_bound(error, bound)) or 0.0
    return {
        "output": text(name),
        "error": error,
        "bound": bound,
        "used": round(used, 6),
        "cosine": number(figures.get("cosine")),
        "max_abs": number(figures.get("max_abs")),
        "mean_abs": number(figures.get("mean_abs")),
    }


def _corners(of: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """of: "ONNX" or "engine"."""
    for row in map(mapping, listing(mapping(facts.get("corners")).get("table"))):
        outputs = [_output(name, mapping(each)) for name, each in mapping(row.get("outputs")).items()]
        outputs.sort(key=lambda each: -each["used"])
        yield {
            "of": of,
            "corner": text(row.get("corner")),
            "shapes": text(row.get("shapes")),
            "runs": number(row.get("runs")),
            "rows": text(row.get("rows")),
            "note": text(row.get("note")),
            "seconds": seconds(row.get("seconds")),
            "outputs": outputs[:MAX_OUTPUTS],
        }
