"""The Q/DQ nodes: made by ONNX Runtime's quantizer on a skeleton of the graph, then put into the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.quantize_graph import QUANTIZED, MainGraph
from scons_tensorrt.worker.onnx.quantize_select import QuantizedNode

INT8_MAX, E4M3_MAX = 127, 448.0


def insert_nodes(
    graph: MainGraph,
    places: Sequence[QuantizedNode],
    ranges: Mapping[str, float],
    options: Mapping[str, Any],
) -> None:
    """Put Q/DQ nodes before the inputs of these nodes. ranges: {activation: the largest magnitude}."""
    skeleton, tensor_of = _skeleton(graph, places)
    made = _quantized(skeleton, tensor_of, ranges, options["per_channel"])
    if options["to"] == "fp8":
        _to_fp8(made)
    wired = {node.name: node for node in made.node if node.op_type not in QUANTIZED}
    makers = {node.output[0]: node for node in made.node if node.op_type in QUANTIZED}
    scales = {name for node in makers.values() for name in node.input[1:]}
    graph.model.graph.initializer.extend(t for t in made.initializer if t.name in scales)
    before: dict[int, list[NodeProto]] = {}  # by id of a real node
    for index, place in enumerate(places):
        slots = (place.activation, place.weight)
        for slot, name in zip(slots, wired["node%d" % index].input):
            place.node.input[slot] = name
            dequantize = makers.pop(name, None)
            if dequantize is not None:  # else an earlier node has the pair before it
                quantize = makers.pop(dequantize.input[0])
                quantize.input[0] = tensor_of[quantize.input[0]]
                before.setdefault(id(place.node), []).extend([quantize, dequantize])
    graph.set_nodes([each for node in graph.nodes for each in (*before.get(id(node), ()), node)])


def _skeleton(graph: MainGraph, places: Sequence[QuantizedNode]) -> tuple[ModelProto, dict[str, str]]:
    """(a model of these nodes alone, {its tensor: the real one}).

    In the whole model the quantizer would name its tensors after existing ones, rewire every reader and
    adapt weights to biases; and it ignores graphs inside nodes.
    """
    nodes, weights = [], []
    tensor_of: dict[str, str] = {}
    alias: dict[object, str] = {}
    for index, place in enumerate(places):
        node = place.node
        if place.tensor not in alias:
            alias[place.tensor] = graph.unused_name(place.tensor + "_input")
            tensor_of[alias[place.tensor]] = place.tensor
        inputs = [alias[place.tensor]]
        if place.weight is not None:
            source, axis = graph.source_of(node.input[place.weight]), _axis(node)
            if (source, axis) not in alias:
                name = alias[source, axis] = graph.unused_name(source + "_weight")
                value = graph.constant(source)
                weights.append(numpy_helper.from_array(value, name))
                tensor_of[name] = graph.stored(source, value)
            inputs.append(alias[source, axis])
        copy = helper.make_node(node.op_type, inputs, ["node%d_out" % index], "node%d" % index)
        copy.attribute.extend(a for a in node.attribute if a.name in ("transB", "group"))
        nodes.append(copy)
    activations = [
        helper.make_tensor_value_info(alias[name], TensorProto.FLOAT, None)
        for name in dict.fromkeys(place.tensor for place in places)
    ]
    made = helper.make_graph(nodes, "skeleton", activations, [], weights)
    model = helper.make_model(made, opset_imports=list(graph.model.opset_import))
    # The quantizer's mark of a model whose types it need not infer.
    helper.set_model_props(model, {"onnx.infer": "onnxruntime.quant"})
    return model, tensor_of


def _axis(node: NodeProto) -> int | None:
    """The axis of a weight's output channels; None for one scale for the whole weight."""
    attributes = graph_walk.attributes(node)
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB") else 1
    return {"Conv": 0, "MatMul": 1}[node.op_type]


def _quantized(
    skeleton: ModelProto, tensor_of: Mapping[str, str], ranges: Mapping[str, float], per_channel: bool
) -> GraphProto:
    """The graph that ONNX Runtime makes of the skeleton."""
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData

    limits = {value.name: ranges[tensor_of[value.name]] for value in skeleton.graph.input}
    bounds = {
        name: TensorData(lowest=np.array(-limit, np.float32), highest=np.array(limit, np.float32))
        for name, limit in limits.items()
    }
    whole = {  # one scale for the whole tensor
        node.input[1]: [{"symmetric": True}]
        for node in skeleton.graph.node
        if len(node.input) == 2 and _axis(node) is None
    }
    types = sorted({node.op_type for node in skeleton.graph.node})
    quantizer = QDQQuantizer(
        skeleton,
        per_channel,
        False,  # the whole range of int8
        QuantType.QInt8,
        QuantType.QInt8,
        bounds,
        [],
        [],
        types,
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": types,
            "TensorQuantOverrides": whole,
        },
    )
    quantizer.quantize_model()
    return quantizer.model.model.graph


def _to_fp8(graph: GraphProto) -> None:
    """Make E4M3 of int8: the largest magnitude is 448 then, not 127."""
    scales = {node.input[1] for node in graph.node if node.op_type in QUANTIZED}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            zeros = bytes(int(np.prod(tensor.dims, dtype=np.int64)))
            kind = TensorProto.FLOAT8E4M3FN
            tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, zeros, raw=True))
        elif tensor.name in scales:
            scale = numpy_helper.to_array(tensor).astype(np.float64) * (INT8_MAX / E4M3_MAX)
            tensor.CopyFrom(numpy_helper.from_array(scale.astype(np.float32), tensor.name))
