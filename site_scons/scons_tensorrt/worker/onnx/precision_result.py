"""The result of onnxruntime's float16 converter, repaired."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Collection

import onnx
from onnx import GraphProto, ModelProto, TensorProto

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.precision_keep import KeptNodes
from scons_tensorrt.worker.onnx.precision_source import SourceNodes


def repair(model: ModelProto, nodes: SourceNodes, kept: KeptNodes) -> None:
    _move_casts(model, nodes)
    _cast_captured(model, kept)
    _remove_round_trips(model, nodes)
    _sort_nodes(model.graph)


def _move_casts(model: ModelProto, nodes: SourceNodes) -> None:
    """Move each added cast to the graph that makes what it reads."""
    main = model.graph
    home: dict[str, GraphProto] = {}
    for graph in graph_walk.graphs(main):
        home.update((name, graph) for name in graph_walk.defined(graph) if graph is not main)
    moving = [copy.deepcopy(n) for n in main.node if nodes.is_added(n) and n.input[0] in home]
    for node in moving:
        home[node.input[0]].node.append(node)
        main.node.remove(node)
    if moving:
        _move_casts(model, nodes)  # casts that read these


def _cast_captured(model: ModelProto, kept: KeptNodes) -> None:
    """Cast what a kept If, Loop or Scan reads from outer graphs, because it is float32 inside."""
    types = graph_walk.types(model)
    for graph in list(graph_walk.graphs(model.graph)):
        for node in [node for node in graph.node if node.name in kept.names]:
            bodies = list(graph_walk.bodies(node))
            for name in dict.fromkeys(name for inner in bodies for name in graph_walk.captured(inner)):
                if kept.types.get(name) != TensorProto.FLOAT or types.get(name) != TensorProto.FLOAT16:
                    continue
                new = graph_walk.new_name(name + "_cast_to_fp32", set(types))
                types[new] = TensorProto.FLOAT
                cast = onnx.helper.make_node("Cast", [name], [new], name=new, to=TensorProto.FLOAT)
                graph.node.append(cast)
                for inner in bodies:
                    graph_walk.replace(inner, {name: new})


def _remove_round_trips(model: ModelProto, nodes: SourceNodes) -> None:
    """Have a float32 node read the result of another one directly, not through a cast to 16 bit and back."""
    casts = [node for node in graph_walk.all_nodes(model) if nodes.is_added(node)]
    narrowed = {c.output[0]: c.input[0] for c in casts if c.attribute[0].i == TensorProto.FLOAT16}
    outputs = {o.name for graph in graph_walk.graphs(model.graph) for o in graph.output}
    instead = {}
    for cast in casts:
        if cast.attribute[0].i == TensorProto.FLOAT and cast.input[0] in narrowed:
            cast.input[0] = narrowed[cast.input[0]]
            if cast.output[0] in outputs:
                cast.op_type = "Identity"
                del cast.attribute[:]
            else:
                instead[cast.output[0]] = cast.input[0]
    graph_walk.replace(model.graph, instead)
    read = {name for node in graph_walk.all_nodes(model) for name in node.input} | outputs
    for graph in graph_walk.graphs(model.graph):
        for node in [n for n in graph.node if nodes.is_added(n) and n.output[0] not in read]:
            graph.node.remove(node)


def _sort_nodes(graph: GraphProto) -> None:
    """Sort the nodes so that each follows those whose results it reads, and otherwise keep their order."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [{maker[name] for name in graph_walk.read_by(node) if name in maker} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for index, makers in enumerate(waits):
        for other in makers:
            readers.setdefault(other, []).append(index)
    ready = [index for index, makers in enumerate(waits) if not makers]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(graph.node):
        raise recipe_error("the nodes of the model depend on each other in a cycle")
    graph_walk.set_nodes(graph, [graph.node[index] for index in order])
    for node in graph.node:
        for inner in graph_walk.bodies(node):
            _sort_nodes(inner)


def fp16_to_bf16(model: ModelProto) -> None:
    """Replace the type fp16, which the source does not have."""
    old, new = TensorProto.FLOAT16, TensorProto.BFLOAT16
    for graph in graph_walk.graphs(model.graph):
        for info in [*graph.value_info, *graph.input, *graph.output]:
            for kind in (info.type.tensor_type, info.type.sequence_type.elem_type.tensor_type):
                if kind.elem_type == old:
                    kind.elem_type = new
    for node in graph_walk.all_nodes(model):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == old:
                attribute.i = new
    for tensor, _ in graph_walk.tensors(model):
        if tensor.data_type == old:
            tensor.data_type = new


def drop_inferred_types(model: ModelProto, declared: Collection[str]) -> None:
    """Leave only the tensor types that the source declares."""
    for graph in graph_walk.graphs(model.graph):
        made = {name for node in graph.node for name in node.output}
        by_name = {i.name: i for i in graph.value_info if i.name in declared and i.name in made}
        infos = [copy.deepcopy(info) for info in by_name.values()]
        del graph.value_info[:]
        graph.value_info.extend(infos)
