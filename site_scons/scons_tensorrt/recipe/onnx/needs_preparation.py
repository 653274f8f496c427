"""Whether an ONNX needs the prepare step: what of it TensorRT is known to refuse, and the step rewrites.

Decided from the summary, without the onnx package: patterns of nodes (node_patterns.py finds them, and new
ones are added there), and shapes that the profiles make impossible. A model in which nothing is found is
compiled as it is: only what TensorRT for RTX 1.7 was seen to refuse is listed, nothing that it might refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .node_patterns import SQUEEZE
from .summary import OnnxInput, OnnxSummary

Profile = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


def find_refused(summary: OnnxSummary, profiles: Sequence[Profile]) -> tuple[str, ...]:
    """What TensorRT would refuse, each as a phrase for messages; empty if the model needs no preparation.

    profiles: of the recipe, by input (min, opt, max).
    """
    found = [
        f"dimensions named `{name}` that differ in size"
        for name, places in summary.shared.items()
        if any(_contradict(places, profile) for profile in profiles)
    ]
    dynamic = {each.name: each for each in summary.inputs if each.dynamic}
    for pattern in summary.refused:
        if pattern != SQUEEZE or any(_has_one(dynamic, profile) for profile in profiles):
            found.append(pattern)
    return tuple(found)


def _has_one(dynamic: Mapping[str, OnnxInput], profile: Profile) -> bool:
    """Whether a dynamic dimension is 1 at opt: TensorRT refuses a Squeeze without axes that may remove it."""
    return any(
        size == 1 and (each.shape is None or each.shape[axis] < 0)
        for name, each in dynamic.items()
        if name in profile and (each.shape is None or len(each.shape) == len(profile[name][1]))
        for axis, size in enumerate(profile[name][1])
    )


def _contradict(places: Sequence[tuple[str, int]], profile: Profile) -> bool:
    """Whether TensorRT refuses one name for these dimensions: it takes them for equal, so they need the same
    opt, and a size that is in all their ranges."""
    bounds = [
        tuple(shape[axis] for shape in profile[name])
        for name, axis in places
        if name in profile and all(axis < len(shape) for shape in profile[name])
    ]
    if len(bounds) < 2:
        return False
    lows, usual, highs = zip(*bounds)
    return len(set(usual)) > 1 or max(lows) > min(highs)
