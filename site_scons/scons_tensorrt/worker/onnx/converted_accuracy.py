"""How far a converted ONNX is from its original, both run in ONNX Runtime on the CPU: on samples, and on
inputs drawn at the corners of the profiles."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from scons_tensorrt.worker.common.errors import WorkerError, accuracy_error
from scons_tensorrt.worker.onnx import (
    draw_inputs,
    drawn_error_bounds,
    open_samples,
    quantized_layers,
    run_corners,
    step_stages,
)
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.judge_outputs import Figures
from scons_tensorrt.worker.onnx.rounded_on_cpu import with_rounding, without_bf16
from scons_tensorrt.worker.onnx.rounding_advice import explained


def compare(
    reference: str,
    converted: str | None,
    target: str,
    spec: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the figures of every output to `target`, a JSON file, and return them.

    reference, converted: paths of the ONNX files; the second is None if the original itself is compiled;
    spec: the samples, as `samples.read` takes them, or None; options: rtol, atol, metric and corners, see
    recipe/gate_plan.py. Raises WorkerError (AccuracyError) if an output is beyond its bound.
    """
    if converted is None:
        return _original_alone(reference, target, options)
    step_stages.begin("loading the models")
    first = CpuModel(without_bf16(reference), "the original")
    second = CpuModel(with_rounding(converted), "the converted model")
    names = first.comparable_outputs()
    missing = sorted(set(names) - set(second.outputs()))
    if missing:
        raise accuracy_error("the converted model has no output `%s`" % missing[0])
    figures, spreads = Figures(names, options, histograms=True), draw_inputs.SampleSpreads()
    shapes: dict[str, Sequence[int]] = {}
    if spec:
        step_stages.begin("running the samples")
        sample_set = open_samples.read(spec, first.inputs)
        for number, sample in enumerate(sample_set):
            where = "sample %d" % number
            outputs = zip(first.run(where, sample, names), second.run(where, sample, names))
            figures.add(number, dict(zip(names, outputs)))
            spreads.add(sample)
            shapes = shapes or {name: array.shape for name, array in sample.items()}
        try:
            figures.judge()
        except WorkerError as error:
            worst = next(itertools.islice(sample_set, figures.worst_sample(), None))
            raise explained(error, reference, converted, worst) from None
    step_stages.begin("counting the quantized layers")
    if not options.get("corners"):
        return figures.judged(target, quantized=quantized_layers.describe(converted, shapes))
    options = drawn_error_bounds.options_of_draws(options, sampled=spec is not None)
    original = run_corners.Original(reference, first, options, spreads.spreads())
    quantized = quantized_layers.describe(converted, shapes or original.usual().shapes)
    found = run_corners.compare_corners(original, second, converted, options, figures)
    return figures.judged(target, corners=found, quantized=quantized)


def _original_alone(reference: str, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Run the corners of an original that is compiled as it is. What it cannot do is in the figures, and no
    error: nothing is compared, and TensorRT may run what ONNX Runtime cannot."""
    figures, quantized = Figures([], options), None
    try:
        step_stages.begin("loading the model")
        model = CpuModel(without_bf16(reference), "the original")
        options = drawn_error_bounds.options_of_draws(options, sampled=False)
        original = run_corners.Original(reference, model, options, {})
        quantized = quantized_layers.describe(reference, original.usual().shapes)
        found = run_corners.compare_corners(original, None, reference, options, figures)
    except WorkerError as error:
        found = run_corners.not_run(str(error))
    return figures.judged(target, corners=found, quantized=quantized)
