"""A graph while a rewrite replaces its nodes: adds nodes and constants under new names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.tensor_values import TensorValues

FLOAT = TensorProto.FLOAT


class Names:
    """The tensor names of a model, its tensors with their values, and the types of the others."""

    def __init__(self, model: ModelProto, values: TensorValues) -> None:
        self._values = values
        self.opset = graph_walk.opset(model)
        self.types = graph_walk.types(model)
        self.taken: set[str] = set()
        self._tensors: dict[str, TensorProto] = {}
        for graph in graph_walk.graphs(model.graph):
            self.taken.update(graph_walk.defined(graph))
            self._tensors.update((tensor.name, tensor) for tensor in graph.initializer)
            for node in graph.node:
                if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                    self._tensors[node.output[0]] = node.attribute[0].t

    def new(self, name: str) -> str:
        return graph_walk.new_name(name, self.taken)

    def add(self, tensor: TensorProto) -> None:
        self._tensors[tensor.name] = tensor

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a tensor that is constant; None for another one."""
        tensor = self._tensors.get(name)
        return None if tensor is None else self._values.array(tensor)


class Rewriter:
    """Rebuilds the nodes of one graph, in order. Methods that add return the name of the new tensor."""

    def __init__(self, graph: GraphProto, names: Names) -> None:
        self.graph = graph
        self.names = names
        self.nodes: list[NodeProto] = []

    def add(self, op: str, *inputs: str, like: str, output: str = "", **attributes: Any) -> str:
        """Add a node of the standard domain. like: the tensor or node whose name the new ones get."""
        made = output or self.names.new(like)
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [made], "%s/%s" % (made, op), **attributes))
        return made

    def constant(self, value: Any, like: str, dtype: Any = np.float32) -> str:
        return self.name_constant(np.asarray(value, dtype), self.names.new(like))

    def name_constant(self, value: np.ndarray, name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.names.add(self.graph.initializer[-1])
        return name

    def clamp(self, source: str, low: float, high: float, like: str, output: str = "") -> str:
        """The source between two numbers."""
        above = self.add("Max", source, self.constant(low, like), like=like)
        return self.add("Min", above, self.constant(high, like), like=like, output=output)

    def finish(self) -> None:
        graph_walk.set_nodes(self.graph, self.nodes)


def readers(graph: GraphProto) -> Mapping[str, list[NodeProto]]:
    """{tensor: the nodes of the graph that read it, those with graphs inside that capture it too}."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in graph_walk.read_by(node):
            found.setdefault(name, []).append(node)
    return found
