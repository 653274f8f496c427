"""The layers of a model with Q/DQ nodes that run in 8 bit, and which do not.

TensorRT runs a Conv, ConvTranspose, Gemm or MatMul in 8 bit if both its inputs come from DequantizeLinear
nodes: it fuses those into the layer (NVIDIA's "Explicit Quantization"). The accuracy gate computes the Q/DQ
nodes as they are written, and the layer in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto

from scons_tensorrt.worker.onnx import graph_walk, model_file

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# TensorRT moves a DequantizeLinear past these.
PASSING = ("Cast", "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
LISTED = 20  # layers in float that are named
INLINE_BYTES = 1024  # initializers up to this size are there for the shape inference


class Pair(NamedTuple):
    """A Q/DQ pair in front of a node. place: index of the node's input; exact: the tensor before the pair;
    stored: whether that is a weight."""

    node: NodeProto
    place: int
    exact: str
    stored: bool


def pairs_of(graph: GraphProto) -> Iterator[tuple[NodeProto, Pair]]:
    """The Q/DQ pairs of a graph: (the layer that reads the pair's result, perhaps through nodes that only
    reshape it, the pair), in the order of the nodes."""
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    stored.update(node.output[0] for node in graph.node if node.op_type == "Constant")
    readers: dict[str, NodeProto] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, node)
    for node in graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            continue
        for index, name in enumerate(node.input):
            made = makers.get(name)
            quantize = makers.get(made.input[0]) if made is not None and made.op_type == DEQUANTIZE else None
            if quantize is None or quantize.op_type != QUANTIZE:
                continue
            layer = node
            while layer.op_type in PASSING and layer.output[0] in readers:
                layer = readers[layer.output[0]]
            yield layer, Pair(node, index, quantize.input[0], quantize.input[0] in stored)


def describe(path: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any] | None:
    """How much of the model at `path` runs in 8 bit; None if it has no Q/DQ nodes.

    shapes: of all inputs, for the share of the multiplications. Returns: layers, in 8 bit; of, all that could
    be; macs, the share of the multiplications, None if a shape is not known; in_float, the first other
    layers; beside: other nodes that read 8-bit tensors, by operator. Raises WorkerError.
    """
    model = model_file.load_model(path)
    if not any(node.op_type == DEQUANTIZE for node in graph_walk.all_nodes(model)):
        return None
    quantized: list[NodeProto] = []
    others: list[NodeProto] = []
    beside: Counter[str] = Counter()
    for graph in graph_walk.graphs(model.graph):
        makers = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            if graph_walk.domain(node) or node.op_type in (QUANTIZE, DEQUANTIZE, *PASSING):
                continue
            dequantized = [_is_dequantized(name, makers) for name in node.input]
            if node.op_type in LAYERS:
                (quantized if all(dequantized[:2]) else others).append(node)
            elif any(dequantized):
                beside[node.op_type] += 1
    return {
        "layers": len(quantized),
        "of": len(quantized) + len(others),
        "macs": _share(quantized, others, _multiplications(model, shapes)),
        "in_float": ["%s (%s)" % (node.name or node.output[0], node.op_type) for node in others[:LISTED]],
        "beside": dict(sorted(beside.items())),
    }


def _share(
    quantized: Sequence[NodeProto], others: Sequence[NodeProto], macs: Mapping[str, int]
) -> float | None:
    """The share of the multiplications that are in 8 bit; None if those of a layer are not known."""
    if any(node.output[0] not in macs for node in (*quantized, *others)):
        return None
    inside, outside = (sum(macs[node.output[0]] for node in nodes) for nodes in (quantized, others))
    return round(inside / (inside + outside), 4) if inside + outside else None


def _is_dequantized(name: str, makers: Mapping[str, NodeProto]) -> bool:
    while name in makers and makers[name].op_type in PASSING:
        name = makers[name].input[0]
    return name in makers and makers[name].op_type == DEQUANTIZE


def _multiplications(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """How many numbers each layer of the main graph multiplies, by its output, where shapes are known."""
    known = _shapes(model, shapes)
    found = {}
    for node in model.graph.node:
        if node.op_type not in LAYERS:
            continue
        data, weight, made = (known.get(name) for name in (*node.input[:2], node.output[0]))
        if not (data and weight and made):
            continue
        if node.op_type == "Conv":  # weight: M, C / group, kernel
            found[node.output[0]] = _size(made) * _size(weight[1:])
        elif node.op_type == "ConvTranspose":  # weight: C, M / group, kernel
            found[node.output[0]] = _size(data) * _size(weight[1:])
        else:
            axis = -2 if graph_walk.attributes(node).get("transA") else -1
            found[node.output[0]] = _size(made) * data[axis]
    return found


def _shapes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of the main graph that can be inferred. Changes the model."""
    found = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    large = [tensor for tensor in model.graph.initializer if tensor.ByteSize() > INLINE_BYTES]
    kept = [tensor for tensor in model.graph.initializer if tensor.ByteSize() <= INLINE_BYTES]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(kept)
    for tensor in large:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.value_info.append(info)
    for each in model.graph.input:
        if each.name in shapes:
            kind = each.type.tensor_type.elem_type
            each.CopyFrom(onnx.helper.make_tensor_value_info(each.name, kind, list(shapes[each.name])))
    for each in model.graph.output:
        each.type.tensor_type.ClearField("shape")
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # shapes that do not fit: they are not known
        return found
    for info in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        dims = info.type.tensor_type.shape.dim
        if info.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[info.name] = tuple(dim.dim_value for dim in dims)
    return found


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))
