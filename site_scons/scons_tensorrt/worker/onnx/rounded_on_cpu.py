"""Rewrites a model with 16-bit tensors as a float32 one that rounds each result, so that a CPU shows what an
engine would; precision.py converts a model to 16 bit.

On a CPU, ONNX Runtime computes fp16 nodes in float32 and drops the casts in between, so its results show
neither overflow nor rounding, and it has few bf16 kernels. Here each node computes in float32, and its result
is rounded where it is made, to the type that the model gives it: what is too large becomes infinity. Sums are
in float32, as on a GPU. A rounding is `Cast(16 bit) -> Reshape(to its own shape) -> Cast(float32)`, because
two neighbouring casts would be dropped. A node that only moves values needs none. What one node computes
inside, such as the steps of an LSTM, is not rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from scons_tensorrt.worker.common.errors import accuracy_error, one_line
from scons_tensorrt.worker.onnx import graph_walk, model_file

TYPES = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
SUFFIX = ".float32"
ADDED = "scons_tensorrt rounding "  # begins the names of added nodes
WITH_BODIES = ("If", "Loop", "Scan")
INLINE_BYTES = 1024  # initializers up to this size are there for the shape inference
# Attributes whose value may be a type.
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "precision", "softmax_precision")
# Operators whose 16-bit results are values of their inputs, or exact in 16 bit.
MOVING = frozenset(
    "Abs Ceil CenterCropPad Clip Compress Concat ConcatFromSequence ConstantOfShape DepthToSpace Dropout "
    "Expand EyeLike Flatten Floor Gather GatherElements GatherND GlobalMaxPool Hardmax Identity If Loop Max "
    "MaxPool MaxRoiPool MaxUnpool Min Neg OneHot Optional OptionalGetElement Pad ReduceMax ReduceMin Relu "
    "Reshape ReverseSequence Round Scan SequenceAt Sign Slice SpaceToDepth Split Squeeze ThresholdedRelu "
    "Tile TopK Transpose Trilu Unique Unsqueeze Where".split()
)


class Rounding(NamedTuple):
    """Where a tensor is rounded. exact: the float32 tensor before that, or the tensor itself where a node's
    bodies round; to: "fp16" or "bf16"; main: whether it is in the main graph, where other nodes can read
    both."""

    tensor: str
    exact: str
    to: str
    main: bool


def with_rounding(path: str) -> str:
    """The path of the model to run for the one at `path`. If that has 16-bit tensors, this is another one,
    with the same names of inputs and outputs, which are float32 where they were of 16 bit. It is written
    beside `path`, because it refers to the same external data. Raises WorkerError."""
    made = float32_model(path)
    return _written(made[0], path) if made else path


def without_bf16(path: str) -> str:
    """As `with_rounding`, for an original with bf16 tensors, which ONNX Runtime cannot run: only its inputs
    are rounded."""
    made = float32_model(path, rounds=False)
    return _written(made[0], path) if made and any(each.to == "bf16" for each in made[1]) else path


def _written(model: ModelProto, path: str) -> str:
    with open(path + SUFFIX, "wb") as out:
        out.write(graph_walk.without_repeated_names(model).SerializeToString())
    return path + SUFFIX


def float32_model(path: str, rounds: bool = True) -> tuple[ModelProto, list[Rounding]] | None:
    """The model at `path` in float32, and its roundings in the order of the nodes; None if it has no 16-bit
    tensors. rounds: False to round the inputs alone, and list all the same. Raises WorkerError."""
    model = model_file.load_model(path)
    if not _mentions_16_bit(model):
        return None
    if model.functions:
        model = model_file.inlined(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    if len(inputs) < len(model.graph.input):  # with a default: constant in TensorRT too
        model.ir_version = max(model.ir_version, 4)
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    taken: set[str] = set()
    graph_walk.make_names_unique(model.graph, taken, {})
    model = _typed(model)
    if not any(kind in TYPES for kind in graph_walk.types(model).values()):
        return None
    if model.functions:
        raise accuracy_error(
            "its function `%s` has another opset than the model, so what is inside cannot be rounded: "
            "export the ONNX with one opset, or leave out accuracy=" % model.functions[0].name
        )
    writer = _Writer(model, taken, rounds)
    writer.write()
    return model, writer.roundings


def _mentions_16_bit(model: ModelProto) -> bool:
    """Whether a tensor may be of 16 bit: it begins at an input, a constant, or an attribute of a node."""
    nodes = [*graph_walk.all_nodes(model), *(node for each in model.functions for node in each.node)]
    nodes += [node for outer in nodes for graph in graph_walk.bodies(outer) for node in graph.node]
    kinds = set(graph_walk.types(model).values())
    kinds.update(tensor.data_type for tensor, _ in graph_walk.tensors(model))
    kinds.update(tensor.data_type for tensor in graph_walk.function_tensors(model))
    kinds.update(each.i for node in nodes for each in node.attribute if each.name in TYPE_ATTRIBUTES)
    return not kinds.isdisjoint(TYPES)


def _typed(model: ModelProto) -> ModelProto:
    """The model with the types of all tensors. An operator that ONNX does not define is taken to give the
    16-bit type that it takes."""
    large = [tensor for tensor in model.graph.initializer if tensor.ByteSize() > INLINE_BYTES]
    small = [tensor for tensor in model.graph.initializer if tensor.ByteSize() <= INLINE_BYTES]
    del model.graph.initializer[:]
    model.graph.initializer.extend(small)
    for tensor in large:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.value_info.append(info)
    found = True
    while found:
        try:
            model = onnx.shape_inference.infer_shapes(model)
        except Exception as error:
            raise accuracy_error("the types of the model cannot be inferred: %s" % one_line(error)) from None
        types = graph_walk.types(model)
        found = False
        for graph in graph_walk.graphs(model.graph):
            for node in graph.node:
                kind = next((types[name] for name in node.input if types.get(name) in TYPES), None)
                for name in node.output:
                    if kind and name and name not in types and graph_walk.domain(node):
                        graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, None))
                        found = True
    model.graph.initializer.extend(large)
    return model


class _Writer:
    """Changes a model, whose tensors have types and unique names. taken: all of these names."""

    def __init__(self, model: ModelProto, taken: set[str], rounds: bool) -> None:
        self.roundings: list[Rounding] = []
        self._graph = model.graph
        self._types = graph_walk.types(model)
        self._ranks = graph_walk.ranks(model)
        self._taken = taken
        self._rounds = rounds
        self._shapes: dict[int, str] = {}  # by rank: a constant with which Reshape keeps the shape

    def write(self) -> None:
        self._rewrite(self._graph, main=True)
        for rank, name in self._shapes.items():
            same = onnx.numpy_helper.from_array(np.zeros(rank, np.int64), name)
            self._graph.initializer.append(same)

    def _rewrite(self, graph: GraphProto, main: bool) -> None:
        """Change a graph and those inside its nodes."""
        nodes = list(self._constants(graph))
        if main:
            nodes += self._inputs(graph)
        for node in graph.node:
            for inner in graph_walk.bodies(node):
                self._rewrite(inner, main=False)
            _compute_in_float32(node)
            nodes.append(node)
            if not moves_values(node):
                nodes += self._after(node, main)
            elif main and node.op_type in WITH_BODIES:
                self._watch_bodies(node)
        graph_walk.set_nodes(graph, nodes)
        for info in [*graph.value_info, *graph.input, *graph.output]:
            _widen(info.type)

    def _constants(self, graph: GraphProto) -> Iterator[NodeProto]:
        for tensor in graph.initializer:
            if tensor.data_type in TYPES:
                name, tensor.name = tensor.name, self._new(tensor.name)
                yield _cast(tensor.name, name)

    def _inputs(self, graph: GraphProto) -> Iterator[NodeProto]:
        """The rounding of each 16-bit input of the model, whose result all nodes then read."""
        for name in [each.name for each in graph.input if self._types.get(each.name) in TYPES]:
            rounded = self._new(name)
            graph_walk.replace(graph, {name: rounded})
            self.roundings.append(Rounding(rounded, name, TYPES[self._types[name]], True))
            yield from self._rounding(name, rounded, self._types[name], self._ranks.get(name))

    def _after(self, node: NodeProto, main: bool) -> Iterator[NodeProto]:
        """What rounds the results of a node."""
        for index, name in enumerate(node.output):
            kind = self._types.get(name, 0)
            if kind not in TYPES:
                continue
            constant = node.op_type == "Constant" and not graph_walk.domain(node)
            exact = self._new(name)
            if not constant:
                self.roundings.append(Rounding(name, exact, TYPES[kind], main))
            if constant or self._rounds:
                node.output[index] = exact
                rank = self._ranks.get(name)
                yield from [_cast(exact, name)] if constant else self._rounding(exact, name, kind, rank)

    def _watch_bodies(self, node: NodeProto) -> None:
        """List the results of the bodies, which are rounded inside them."""
        for name in node.output:
            if self._types.get(name, 0) in TYPES:
                self.roundings.append(Rounding(name, name, TYPES[self._types[name]], True))

    def _rounding(self, exact: str, rounded: str, kind: int, rank: int | None) -> Iterator[NodeProto]:
        narrow, same = self._new(rounded), self._new(rounded)
        yield _cast(exact, narrow, kind)
        if rank is None:
            shape = self._new(rounded)
            yield onnx.helper.make_node("Shape", [exact], [shape], ADDED + shape)
        else:  # a dimension of 0 keeps that of the input
            shape = self._shapes[rank] = self._shapes.get(rank) or self._new("shape")
        yield onnx.helper.make_node("Reshape", [narrow, shape], [same], ADDED + same)
        yield _cast(same, rounded)

    def _new(self, name: str) -> str:
        return graph_walk.new_name(name, self._taken)


def _cast(name: str, made: str, to: int = TensorProto.FLOAT) -> NodeProto:
    return onnx.helper.make_node("Cast", [name], [made], ADDED + made, to=to)


def moves_values(node: NodeProto) -> bool:
    if graph_walk.domain(node):
        return False
    if node.op_type in ("Scatter", "ScatterElements", "ScatterND"):
        return bool(graph_walk.attributes(node).get("reduction", b"none") == b"none")
    return node.op_type in MOVING


def _compute_in_float32(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i in TYPES:
            attribute.i = TensorProto.FLOAT
        if node.op_type == "ConstantOfShape" and attribute.t.data_type in TYPES:
            value = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(value))


def _widen(kind: TypeProto) -> None:
    which = kind.WhichOneof("value")
    if which == "tensor_type" and kind.tensor_type.elem_type in TYPES:
        kind.tensor_type.elem_type = TensorProto.FLOAT
    elif which in ("sequence_type", "optional_type"):
        _widen(getattr(kind, which).elem_type)
