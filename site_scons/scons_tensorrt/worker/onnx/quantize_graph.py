"""The main graph of a model that is quantized."""

from __future__ import annotations

import bisect
from collections import Counter

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from scons_tensorrt.worker.onnx import graph_walk

QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


class MainGraph:
    """By tensor: the node that makes it (made_by), how often it is read (uses), its constant value.

    order: of the nodes, by id(node); labels: by id(node), the names that messages and `keep_nodes` use:
    exporters leave some out.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.made_by = {name: node for node in self.nodes for name in node.output if name}
        self.order = {id(node): index for index, node in enumerate(self.nodes)}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.uses = Counter(name for node in self.nodes for name in graph_walk.read_by(node))
        self.uses.update(output.name for output in model.graph.output)
        names = {n.name for n in self.nodes} | set(self.made_by) | set(self.initializers)
        names.update(value.name for value in model.graph.input)
        for node in graph_walk.all_nodes(model):
            names.update((*node.input, *node.output))
        self._names = sorted(names)
        counts = Counter(node.name for node in self.nodes)
        self.labels = {
            id(node): node.name if node.name and counts[node.name] == 1 else "%s_%d" % (node.op_type, index)
            for index, node in enumerate(self.nodes)
        }

    def source_of(self, name: str) -> str:
        """The tensor that Identity nodes pass on as `name`."""
        while name in self.made_by and self.made_by[name].op_type == "Identity":
            name = self.made_by[name].input[0]
        return name

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a tensor that is stored in the model, or transposed from a stored one."""
        name = self.source_of(name)
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.made_by.get(name)
        if node is None or node.op_type not in ("Constant", "Transpose"):
            return None
        attributes = graph_walk.attributes(node)
        if node.op_type == "Constant":
            return numpy_helper.to_array(attributes["value"]) if "value" in attributes else None
        value = self.constant(node.input[0])
        return None if value is None else np.ascontiguousarray(np.transpose(value, attributes.get("perm")))

    def stored(self, name: str, value: np.ndarray) -> str:
        """The tensor of the model that holds a constant; a transposed one is added to the initializers."""
        if name in self.initializers or self.made_by[name].op_type == "Constant":
            return name
        stored = self.unused_name(name + "_stored")
        self.model.graph.initializer.append(numpy_helper.from_array(value, stored))
        return stored

    def unused_name(self, name: str) -> str:
        """A name that no used name begins with, because the quantizer appends to it."""
        tried, number = name, 1
        while True:
            place = bisect.bisect_left(self._names, tried)
            if not any(used.startswith(tried) for used in self._names[place : place + 1]):
                self._names.insert(place, tried)
                return tried
            number += 1
            tried = "%s_quantized%d" % (name, number)

    def set_nodes(self, nodes: list[NodeProto]) -> None:
        """Replace the nodes; drop the constants that were read before and no longer are."""
        graph = self.model.graph
        uses = Counter(output.name for output in graph.output)
        uses.update(name for node in nodes for name in graph_walk.read_by(node))
        left = []
        for node in reversed(nodes):
            if node.op_type in ("Constant", "Identity", "Transpose"):
                name = node.output[0]
                if self.uses[name] and not uses[name]:
                    uses.subtract(graph_walk.read_by(node))
                    continue
            left.append(node)
        # An initializer that is also an input, as old exporters write it, would be a required input without
        # its value.
        uses.update(value.name for value in graph.input)
        for index in reversed(range(len(graph.initializer))):
            name = graph.initializer[index].name
            if self.uses[name] and not uses[name]:
                del graph.initializer[index]
        graph_walk.set_nodes(graph, reversed(left))
