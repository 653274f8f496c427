"""Walks through an ONNX model: its graphs, the graphs inside nodes, its tensors, names and types."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.common.errors import recipe_error

STANDARD = ("", "ai.onnx")


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and the graphs inside its nodes, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in bodies(node):
            yield from graphs(inner)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node's attributes: branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in graphs(model.graph):
        yield from graph.node


def tensors(model: ModelProto) -> Iterator[tuple[TensorProto, bool]]:
    """(tensor, is it in an attribute?) of all initializers and attributes, but those of local functions."""
    yield from ((tensor, False) for tensor in model.graph.initializer)
    yield from _tensors_of(model.graph.node)


def function_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """The tensors in the model's local functions."""
    for function in model.functions:
        yield from (tensor for tensor, _ in _tensors_of(function.node))


def _tensors_of(nodes: Iterable[NodeProto]) -> Iterator[tuple[TensorProto, bool]]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t, True
            yield from ((tensor, True) for tensor in attribute.tensors)
        for inner in bodies(node):
            yield from ((tensor, False) for tensor in inner.initializer)
            yield from _tensors_of(inner.node)


def opset(model: ModelProto) -> int:
    """The version of the standard operators."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD), default=1)


def domain(node: NodeProto) -> str:
    return "" if node.domain in STANDARD else node.domain


def attributes(node: NodeProto) -> dict[str, Any]:
    """{name: value} of a node's attributes."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def defined(graph: GraphProto) -> Iterator[str]:
    """The tensors that a graph itself defines."""
    for item in [*graph.input, *graph.initializer]:
        yield item.name
    for node in graph.node:
        yield from (name for name in node.output if name)


def captured(graph: GraphProto) -> Iterator[str]:
    """The tensors that a graph and those inside it read from outside, once for each use and in its order."""
    own = set(defined(graph))
    for node in graph.node:
        yield from (name for name in read_by(node) if name not in own)
    yield from (o.name for o in graph.output if o.name not in own)


def read_by(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads: its inputs, and what the graphs inside it read from outside."""
    yield from (name for name in node.input if name)
    for inner in bodies(node):
        yield from captured(inner)


def replace(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Have the nodes of a graph, and of those inside it, read other tensors: {old name: new name}."""
    for inner in graphs(graph):
        for node in inner.node:
            for index, name in enumerate(node.input):
                if name in names:
                    node.input[index] = names[name]


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the nodes of a graph by copies of these, which may be its own."""
    copies = GraphProto()
    copies.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def types(model: ModelProto) -> dict[str, int]:
    """{tensor: element type} of all tensors whose type is known; 0 if it is not a plain tensor."""
    found: dict[str, int] = {}
    for graph in graphs(model.graph):
        for info in [*graph.value_info, *graph.input, *graph.output]:
            kind = info.type.WhichOneof("value")
            if kind:
                found[info.name] = info.type.tensor_type.elem_type if kind == "tensor_type" else 0
        found.update((t.name, t.data_type) for t in graph.initializer)
    return found


def ranks(model: ModelProto) -> dict[str, int]:
    """{tensor: number of dimensions} of all plain tensors for which the model states it."""
    return {
        info.name: len(info.type.tensor_type.shape.dim)
        for graph in graphs(model.graph)
        for info in [*graph.value_info, *graph.input, *graph.output]
        if info.type.tensor_type.HasField("shape")
    }


def new_name(name: str, taken: set[str]) -> str:
    """`name` with a number that makes it unique; it is added to `taken`."""
    number = 2
    while "%s_%d" % (name, number) in taken:
        number += 1
    taken.add("%s_%d" % (name, number))
    return "%s_%d" % (name, number)


def make_names_unique(graph: GraphProto, taken: set[str], names: Mapping[str, str]) -> None:
    """Rename tensors so that no two graphs define the same name, as the branches of an If may.
    names: {old name: new name} of the outer graphs."""
    names = dict(names)
    for name in dict.fromkeys(defined(graph)):
        names.pop(name, None)
        if name in taken:
            names[name] = new_name(name, taken)
        taken.add(name)
    for item in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            for index, name in enumerate(listed):
                if name in names:
                    listed[index] = names[name]
        for inner in bodies(node):
            make_names_unique(inner, taken, names)


def without_repeated_names(model: ModelProto) -> ModelProto:
    """The model, whose nodes lose names that an earlier node has: ONNX Runtime takes each name once. A cast
    that a conversion adds has the name of an output, as nodes of some exporters have."""
    for graph in graphs(model.graph):
        seen: set[str] = set()
        for node in graph.node:
            if node.name in seen:
                node.name = ""
            seen.add(node.name)
    return model


def count(number: int, what: str) -> str:
    """`1 input`, `2 inputs`."""
    return "%d %s" % (number, what if number == 1 else what + "s")


def check_names(option: str, what: str, wanted: Collection[str], existing: Collection[str]) -> None:
    """Raise WorkerError (RecipeError) if the model does not have a name that the user gave."""
    for name in wanted:
        if name not in existing:
            near = difflib.get_close_matches(name, sorted(existing), 1, 0.5)
            hint = "did you mean `%s`?" % near[0] if near else "take the name from the ONNX"
            raise recipe_error("%s: the model has no %s `%s`; %s" % (option, what, name, hint))
