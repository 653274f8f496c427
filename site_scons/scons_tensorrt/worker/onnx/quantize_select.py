"""Which nodes of a model to quantize, and at which inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.quantize_graph import MainGraph

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# With Add, where it joins a residual branch to a Conv's output.
OPS = {"int8": (*WEIGHTED, "Add"), "fp8": ("Conv", "Gemm", "MatMul", "Add")}


class QuantizedNode(NamedTuple):
    """A node to quantize. activation, weight: the indexes of these inputs; an Add has no weight."""

    label: str
    node: NodeProto
    activation: int
    weight: int | None

    @property
    def tensor(self) -> str:
        """The activation."""
        return str(self.node.input[self.activation])


def select_places(
    graph: MainGraph, options: Mapping[str, Any]
) -> tuple[list[QuantizedNode], list[tuple[str, str]]]:
    """(the nodes to quantize, [(node name, why it is skipped)]) in the graph's order. Raises WorkerError
    (RecipeError) for an unknown name in ops or keep_nodes."""
    allowed = OPS[options["to"]]
    for op in options["ops"]:
        if op not in allowed:
            raise recipe_error(
                "ops: %s cannot be quantized to %s; use any of %s" % (op, options["to"], ", ".join(allowed))
            )
    wanted = set(options["ops"] or allowed) - set(options["keep_ops"])
    kept = set(options["keep_nodes"])
    graph_walk.check_names("keep_nodes", "node", options["keep_nodes"], set(graph.labels.values()))
    places, skipped = [], []
    for node in graph.nodes:
        if graph_walk.domain(node) or node.op_type not in OPS["int8"]:
            continue
        label = graph.labels[id(node)]
        if node.op_type == "Add":
            shortcut = _residual_input(graph, node)
            if shortcut is not None and "Add" in wanted and label not in kept:
                places.append(QuantizedNode(label, node, shortcut, None))
        elif label in kept:
            skipped.append((label, "in keep_nodes"))
        elif node.op_type in wanted:
            why = _unsuited(graph, node)
            if why:
                skipped.append((label, why))
            else:
                places.append(QuantizedNode(label, node, 0, 1))
        else:
            skipped.append((label, "%s is not selected for quantization" % node.op_type))
    return places, skipped + _skipped_inside(graph)


def _skipped_inside(graph: MainGraph) -> list[tuple[str, str]]:
    """The weighted nodes in graphs inside nodes, and the calls of functions that onnx could not inline."""
    skipped = []
    for inner in list(graph_walk.graphs(graph.model.graph))[1:]:
        weighted = (node for node in inner.node if node.op_type in WEIGHTED)
        skipped += [(node.name or node.op_type, "it is inside an If, Loop or Scan") for node in weighted]
    functions = {(f.domain, f.name): f for f in graph.model.functions}
    for node in graph.nodes:
        function = functions.get((node.domain, node.op_type))
        if function and any(each.op_type in WEIGHTED for each in function.node):
            why = "it is a function of another opset than the model's, so it was not inlined"
            skipped.append((graph.labels[id(node)], why))
    return skipped


def _unsuited(graph: MainGraph, node: NodeProto) -> str:
    """Why a node with weights cannot be quantized, or ''."""
    if graph.constant(node.input[0]) is not None:
        return "its first input is constant"
    weight = graph.constant(node.input[1])
    if weight is None:
        return "its second input is not a constant weight"
    if weight.dtype != np.float32:
        return "its weight is %s, not float32" % weight.dtype
    if node.op_type == "MatMul" and weight.ndim != 2:
        return "its weight has rank %d, not 2" % weight.ndim
    if weight.size == 0 or not np.isfinite(weight).all():
        return "its weight is empty or not finite"
    return ""


def _residual_input(graph: MainGraph, node: NodeProto) -> int | None:
    """The input of an Add that is the residual branch, where the Add joins it to a Conv's output.

    Nothing else may read the Conv's output, so that TensorRT can fuse the Add into the Conv. The other input
    is then read from memory, in one byte a value when it is quantized.
    """
    ends = [index for index in (0, 1) if _is_end_of_conv(graph, node.input[index])]
    if not ends or any(graph.constant(name) is not None for name in node.input):
        return None
    if len(ends) == 2:  # the branch that ends first is the shortcut
        made = [graph.order[id(graph.made_by[name])] for name in node.input]
        ends = [0 if made[0] > made[1] else 1]
    return 1 - ends[0]


def _is_end_of_conv(graph: MainGraph, name: str) -> bool:
    """Whether this is the output of a Conv, with its bias added, that has one reader."""
    while graph.uses[name] == 1 and name in graph.made_by:
        node = graph.made_by[name]
        if node.op_type in ("Conv", "ConvTranspose"):
            return graph.constant(node.input[1]) is not None
        bias = node.op_type == "Add" and graph.constant(node.input[1]) is not None
        if not bias and node.op_type != "BatchNormalization":
            return False
        name = node.input[0]
    return False
