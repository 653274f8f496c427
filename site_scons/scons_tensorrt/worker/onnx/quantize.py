"""From a float32 ONNX and samples to an ONNX with Q/DQ nodes, which TensorRT runs in int8 or fp8.

ONNX Runtime's quantizer makes scales and Q/DQ nodes, on a skeleton of the graph that has nothing but the
tensors to quantize; docs/quantization.md says why, and why the ranges of activations are collected here.
Only inputs are quantized, never a bias or an output, so TensorRT fuses what follows a Conv or MatMul
into it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import ModelProto

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import graph_walk, model_file, open_samples, quantize_ranges, step_stages
from scons_tensorrt.worker.onnx.quantize_graph import QUANTIZED, MainGraph
from scons_tensorrt.worker.onnx.quantize_insert import insert_nodes
from scons_tensorrt.worker.onnx.quantize_select import OPS, select_places

MAX_SKIPPED = 20  # listed in the facts


def quantize(source: str, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write the quantized `source` to `target`; return facts for the receipt.

    options: see docs/quantization.md; `samples`: as `samples.read` takes them; `temporary`: a folder.
    Raises WorkerError (RecipeError) with what is wrong with the model, an option or a sample.
    """
    import onnxruntime

    step_stages.begin("loading the model")
    model, external = _load(source)
    model = model_file.raised_to(_opset_for(options), model, "quantization to %s" % options["to"])
    graph = MainGraph(model)
    places, skipped = select_places(graph, options)
    session = quantize_ranges.open_session(model, [p.tensor for p in places], external, options["temporary"])
    places = quantize_ranges.of_float32(places, session, skipped)
    if not places:
        ops = ", ".join(options["ops"] or OPS[options["to"]])
        why = "; %s: %s" % skipped[0] if skipped else ""
        raise recipe_error(
            "nothing in it can be quantized: it has no %s with constant float32 weights%s; leave out "
            "calibration" % (ops, why)
        )
    step_stages.begin("running the samples")
    sample_set = open_samples.read(options["samples"], open_samples.inputs_of(model))
    ranges, count = quantize_ranges.collect_ranges(session, sample_set, places, options)
    skipped += [(p.label, "its input was 0 in every sample") for p in places if not ranges[p.tensor]]
    places = [p for p in places if ranges[p.tensor]]
    if not places:
        raise recipe_error("every input to quantize is 0 in every sample; give samples of real use")
    step_stages.begin("writing the quantized model")
    insert_nodes(graph, places, ranges, options)
    model_file.save_model(model, target, external)
    return {
        "converter": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__},
        "samples": count,
        "quantized": dict(sorted(Counter(place.node.op_type for place in places).items())),
        "method": options["method"],
        "skipped": ["%s: %s" % pair for pair in skipped[:MAX_SKIPPED]],
        "skipped_count": len(skipped),
    }


def _load(source: str) -> tuple[ModelProto, bool]:
    """(the model with its external data and without local functions, whether it has external data)."""
    model = model_file.load_model(source)
    if model.functions:
        model = model_file.inlined(model)
    external = model_file.load_external(model, source)
    if any(node.op_type in QUANTIZED for node in graph_walk.all_nodes(model)):
        raise recipe_error("it has Q/DQ nodes already; leave out calibration")
    return model, external


def _opset_for(options: Mapping[str, Any]) -> int:
    """The oldest opset with the QuantizeLinear that is needed."""
    if options["to"] == "fp8":
        return 19
    return 13 if options["per_channel"] else 10
