"""`keep_nodes="auto"`: a conversion to 16 bit that keeps in float32 the fewest nodes that bring the accuracy
gate within its bound.

Tensors are ranked by what they lose (rounding_losses.py). The nodes that keep the first ones are tried,
twice as many each time, until the sample that was beyond its bound is within it; if no number serves, all
nodes are the start. Then nodes are left out as long as the sample stays within its bound. Then the whole gate
is run, and a sample that is beyond its bound joins the search. The trials run in one thread, so that their
sums repeat.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from scons_tensorrt.worker.common.errors import WorkerError, recipe_error
from scons_tensorrt.worker.onnx import converted_accuracy, precision, step_stages
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.judge_outputs import Figures
from scons_tensorrt.worker.onnx.rounded_on_cpu import with_rounding, without_bf16
from scons_tensorrt.worker.onnx.rounding_advice import BeyondBound
from scons_tensorrt.worker.onnx.rounding_losses import Loss

MOST_TRIALS = 60
MOST_TEXT = 100_000  # characters of a gate's file that are sent
MOST_ROUNDS = 4  # of samples that join the search


def convert(
    source: str,
    reference: str,
    target: str,
    options: Mapping[str, Any],
    samples: Mapping[str, Any] | None,
    temporary: str,
) -> dict[str, Any]:
    """As `precision.convert`, with the nodes to keep found. Adds to the facts `auto`: the nodes, of how many,
    and how many choices were tried; and `gate`: the file and the figures of the gate.

    reference: path of the original of the accuracy gate; options: those of `precision.convert` and of the
    gate; samples: of the gate, see `samples.read`; temporary: a folder. Raises WorkerError, AccuracyError if
    only float32 is within the bound.
    """
    known = precision.node_names(source)
    trials = _Trials(source, reference, options, temporary)
    kept: list[str] = []
    gate = os.path.join(temporary, "gate.json")
    for _ in range(MOST_ROUNDS):
        step_stages.begin("converting")
        facts = precision.convert(source, target, {**options, "keep_nodes": kept})
        try:
            figures = converted_accuracy.compare(reference, target, gate, samples, options)
        except BeyondBound as error:
            step_stages.begin("trying which nodes to keep in float32")
            trials.add(error.inputs, error.options or options)
            if trials.within_bound(kept):  # other rules of the gate than its bound
                raise
            kept = _search(kept, _ranked(error.losses, known), known, trials)
            if len(kept) == len(known):
                text = "keep_nodes='auto': all nodes would have to stay float32; widen rtol= or atol=, or "
                text += "write precision='fp32' (as it is: %s)" % error
                raise WorkerError(error.error_class, text) from None
        else:
            auto = {"nodes": sorted(kept), "of": len(known), "tried": trials.count}
            return {**facts, "auto": auto, **_as_step(gate, figures)}
    raise recipe_error(
        "keep_nodes='auto': after %d rounds another sample is beyond the bound; write the nodes yourself, or "
        "widen rtol= or atol=" % MOST_ROUNDS
    )


def _as_step(gate: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The gate's file and figures, for the step that would compute them again; not if they are large."""
    with open(gate, encoding="utf-8") as file:
        text = file.read()
    return {"gate": {"text": text, "facts": figures}} if len(text) < MOST_TEXT else {}


def _ranked(losses: Sequence[Loss], known: Collection[str]) -> list[list[str]]:
    """For each tensor, those that lose most first, the nodes that keep it in float32."""
    ranked = sorted(losses, key=lambda each: -each.growth)  # keeps the order of equal ones
    return [[name for name in each.nodes if name in known] for each in ranked]


def _search(
    kept: Sequence[str], ranked: Sequence[Sequence[str]], known: Sequence[str], trials: _Trials
) -> list[str]:
    """The nodes to keep, `kept` and others. All, if there is no choice of fewer."""

    def first(count: int) -> list[str]:
        chosen = {*kept, *(name for names in ranked[:count] for name in names)}
        return [name for name in known if name in chosen]

    low, high = 0, 1
    while high < len(ranked) and not trials.within_bound(first(high)):
        low, high = high, 2 * high
    if high >= len(ranked):  # the order did not serve: all but as many as can be left out
        return _fewest(list(known), trials)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if trials.within_bound(first(middle)) else (middle, high)
    return _fewest(first(high), trials)


def _fewest(nodes: list[str], trials: _Trials) -> list[str]:
    """The nodes without those that are not needed: neighbours are left out, half of all first, then fewer, at
    last single ones."""
    size = len(nodes) // 2
    while size and trials.count < MOST_TRIALS:
        for start in reversed(range(0, len(nodes), size)):
            fewer = nodes[:start] + nodes[start + size :]
            if trials.count < MOST_TRIALS and trials.within_bound(fewer):
                nodes = fewer
        size //= 2
    return nodes


class _Trials:
    """Conversions on trial. count: how many were made."""

    def __init__(self, source: str, reference: str, options: Mapping[str, Any], temporary: str) -> None:
        self.count = 0
        self._source, self._options = source, options
        self._made = os.path.join(temporary, "trial.onnx")
        self._original = CpuModel(without_bf16(reference), "the original", threads=1)
        self._names = self._original.comparable_outputs()
        self._samples: list[tuple[Mapping[str, np.ndarray], list[np.ndarray], Mapping[str, Any]]] = []

    def add(self, inputs: Mapping[str, np.ndarray], bound: Mapping[str, Any]) -> None:
        """Try all further conversions with this sample too. bound: rtol, atol and metric."""
        self._samples.append((inputs, self._original.run("a sample", inputs, self._names), bound))

    def within_bound(self, nodes: Sequence[str]) -> bool:
        """Whether every sample is within its bound if these nodes are float32. Raises WorkerError."""
        self.count += 1
        try:
            precision.convert(self._source, self._made, {**self._options, "keep_nodes": nodes})
        except WorkerError as error:
            if error.error_class == "RecipeError":
                return False  # nothing would be left in 16 bit
            raise
        model = CpuModel(with_rounding(self._made), "the converted model", threads=1)
        for number, (inputs, wanted, bound) in enumerate(self._samples):
            figures = Figures(self._names, bound)
            outputs = zip(wanted, model.run("a sample", inputs, self._names))
            figures.add(number, dict(zip(self._names, outputs)))
            try:
                figures.judge()
            except WorkerError:
                return False
        return True
