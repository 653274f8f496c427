"""The source of a conversion to 16 bit, changed without changing what it computes, so that
onnxruntime's float16 converter handles it; and the names of its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk


class SourceNodes:
    """The nodes of the source, and which of them the user keeps in float32.

    While the converter runs, each node has a unique name, because the converter keeps nodes by name, and an
    ONNX may give several nodes the same name, or none; `keep_nodes` calls those by their first output.
    declared: the tensors whose types the source states.
    """

    def __init__(self, model: ModelProto, options: Mapping[str, Any]) -> None:
        self.original: dict[str, str] = {}  # the user's name by the unique one
        self._labels: dict[str, str] = {}  # the name for `keep_nodes`, by the unique one
        self._keep_ops = set(options["keep_ops"])
        self._keep_nodes = set(options["keep_nodes"])
        self.declared = {info.name for graph in graph_walk.graphs(model.graph) for info in graph.value_info}
        nodes = list(graph_walk.all_nodes(model))
        graph_walk.check_names("keep_ops", "operator", options["keep_ops"], {node.op_type for node in nodes})
        names = {node.name or node.output[0] for node in nodes if node.output}
        graph_walk.check_names("keep_nodes", "node", options["keep_nodes"], names)
        self.name_all(model)

    def name_all(self, model: ModelProto) -> None:
        """Give unique names to the nodes that have none yet."""
        for node in graph_walk.all_nodes(model):
            if node.name not in self.original:
                name = "scons_tensorrt_%d" % len(self.original)
                self.original[name] = node.name
                self._labels[name] = node.name or node.output[0]
                node.name = name

    @property
    def names(self) -> list[str]:
        """The nodes as `keep_nodes` takes them."""
        return list(dict.fromkeys(self._labels.values()))

    def restore_names(self, model: ModelProto) -> None:
        for node in graph_walk.all_nodes(model):
            node.name = self.original.get(node.name, node.output[0])

    def kept_by_user(self, node: NodeProto) -> bool:
        return node.op_type in self._keep_ops or self._labels[node.name] in self._keep_nodes

    def is_added(self, node: NodeProto) -> bool:
        """Whether the converter added this node: a cast."""
        return node.name not in self.original


def prepare(model: ModelProto) -> None:
    """Change what the converter cannot handle."""
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]  # with a default: constant in TensorRT too
    if len(inputs) < len(graph.input):
        model.ir_version = max(model.ir_version, 4)  # the first whose constants need not be inputs
        del graph.input[:]
        graph.input.extend(inputs)
    for inner in graph_walk.graphs(graph):
        _constants_to_initializers(inner)
        for node in inner.node:
            if node.op_type == "ConstantOfShape" and not node.attribute:  # onnxruntime 1.20 needs the value
                zero = onnx.helper.make_tensor("", TensorProto.FLOAT, [1], [0])
                node.attribute.append(onnx.helper.make_attribute("value", zero))
    # The converter's own names are taken.
    taken = {"graph_%sput_cast_%d" % (way, i) for way in ("in", "out") for i in range(len(graph.node))}
    for item in [*graph.input, *graph.output]:
        taken.discard(item.name)
    graph_walk.make_names_unique(graph, taken, {})
    _make_outputs_by_nodes(graph, taken)


def _constants_to_initializers(graph: GraphProto) -> None:
    """Make initializers of float32 Constant nodes: the converter casts a constant to 16 bit and back for a
    float32 node, but leaves an initializer as it is."""
    nodes = []
    for node in graph.node:
        tensor = _float_constant(node)
        if tensor is None:
            nodes.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    if len(nodes) < len(graph.node):
        graph_walk.set_nodes(graph, nodes)


def _float_constant(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or graph_walk.domain(node) or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
        return attribute.t
    if attribute.name == "value_float":
        return onnx.helper.make_tensor("", TensorProto.FLOAT, [], [attribute.f])
    if attribute.name == "value_floats":
        floats = list(attribute.floats)
        return onnx.helper.make_tensor("", TensorProto.FLOAT, [len(floats)], floats)
    return None


def _make_outputs_by_nodes(main: GraphProto, taken: set[str]) -> None:
    """Add an Identity before each output that no node makes: the converter loses the type of a constant
    that is returned, or of a tensor from an outer graph."""
    for graph in graph_walk.graphs(main):
        made = {name for node in graph.node for name in node.output}
        if graph is not main:
            made.update(i.name for i in graph.input)
        constants = {t.name: t for t in graph.initializer}
        for output in graph.output:
            if output.name in made:
                continue
            new = graph_walk.new_name(output.name, taken)
            if graph is not main:
                graph.node.append(onnx.helper.make_node("Identity", [output.name], [new]))
                output.name = new
            elif output.name in constants:
                graph_walk.replace(main, {output.name: new})
                constants[output.name].name = new
                graph.node.append(onnx.helper.make_node("Identity", [new], [output.name]))
