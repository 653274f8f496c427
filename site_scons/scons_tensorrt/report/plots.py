"""The geometry of the plots of accuracy: in percent of the width, and in pixels of the height."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import number_format

HEIGHT = 120  # pixels
LISTED = 10
LEAST = 0.01  # of the error as it is: layers that cost less are not listed
MOST_RISE = 1.0  # of the error as it is; a bar that rises more is cut


def layers(found: Mapping[str, Any]) -> dict[str, Any]:
    """The plot of `describe_sensitivity`: a bar for each layer, in the order of the network; up if the error
    falls with the layer in float, by its share of the error as it is. And the ten that cost most, more than
    the noise."""
    whole = found["all"]["used"]
    falls = [1 - each["used"] / whole for each in found["layers"]]
    noise = min(found["noise"]["used"] / whole, 1.0) if found["noise"] else 0.0
    top, bottom = max(*falls, noise, 0.05), min(max(-min(falls), noise, 0.05), MOST_RISE)
    scale = HEIGHT / (top + bottom)
    ranked = sorted(range(len(falls)), key=lambda at: -falls[at])
    most = [at for at in ranked[:LISTED] if falls[at] > max(LEAST, noise)]
    return {
        "height": HEIGHT,
        "zero": f"{top * scale:.1f}",
        "ends": [percent(-top), percent(bottom) if min(falls) < -LEAST else ""],
        "noise": {"y": f"{(top - noise) * scale:.1f}", "height": f"{2 * noise * scale:.1f}"},
        "bars": [
            {
                "x": f"{at * 100 / len(falls):.3f}%",
                "width": f"{80 / len(falls):.3f}%",
                "y": f"{(top - max(fall, 0)) * scale:.1f}",
                "height": f"{max(min(abs(fall), bottom if fall < 0 else top) * scale, 0.5):.1f}",
                "kind": "f-built" if at in most else "bar" if fall > 0 else "rise",
                "title": f"{_name(layer)}: error {number_format.figure(layer['error'])}, {percent(-fall)}",
            }
            for at, (fall, layer) in enumerate(zip(falls, found["layers"]))
        ],
        "most": [
            {**found["layers"][at], "name": _name(found["layers"][at]), "change": percent(-falls[at])}
            for at in most
        ],
    }


def _name(layer: Mapping[str, Any]) -> str:
    return f"{layer['layer']} ({layer['op']})"


def percent(change: float) -> str:
    """A relative change: +12 %, −3.4 %."""
    return f"{'+' if change > 0 else '−'}{abs(change) * 100:.3g} %"


def histogram(found: Mapping[str, Any]) -> dict[str, Any]:
    """The plot of a histogram, in a box of `width` times `height`: bars of the original and a line of what
    was made. Counts are on a logarithmic scale."""
    counts = [*found["original"], *found["made"]]
    most = math.log1p(max(max(counts), 1))

    def tall(count: float) -> float:
        return HEIGHT * math.log1p(max(count, 0)) / most

    bins = len(found["original"])
    steps = [
        f"{at},{HEIGHT - tall(count):.1f} {at + 1},{HEIGHT - tall(count):.1f}"
        for at, count in enumerate(found["made"])
    ]
    return {
        "width": bins,
        "height": HEIGHT,
        "bars": [
            {"x": at, "y": f"{HEIGHT - tall(count):.1f}", "height": f"{tall(count):.1f}"}
            for at, count in enumerate(found["original"])
            if count
        ],
        "line": f"0,{HEIGHT} {' '.join(steps)} {bins},{HEIGHT}",
        "words": f"{found['output']}: {_ends(found)}; {_moved(found['original'], found['made'])}",
    }


def _ends(found: Mapping[str, Any]) -> str:
    return f"values from {number_format.figure(found['low'])} to {number_format.figure(found['high'])}"


def _moved(original: Sequence[float], made: Sequence[float]) -> str:
    """How many elements are in another bin, for who does not see the plot."""
    moved = sum(abs(a - b) for a, b in zip(original, made)) / 2
    total = sum(original)
    return f"{moved / total:.2%} of the values in another bin" if total else "no values"
