"""What each tensor of a 16-bit model loses, and which nodes keep it in float32.

The model runs once on one sample, beside a copy that does not round (rounded_on_cpu.py), in one graph
whose only outputs are figures. Tensors inside an If, Loop or Scan count as outputs of that node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk, rounded_on_cpu
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.rounded_on_cpu import Rounding

OVERFLOW = {"fp16": 65520.0, "bf16": 3.3961776e38}  # the smallest magnitudes that are rounded to infinity
COPY = "scons_tensorrt copy "  # begins the names in the copy
FIGURE = "scons_tensorrt figure "  # begins the names of what computes figures
SUFFIX = ".losses"
RENAMED = "_cast_to_fp16"
FIGURES = 5


class Loss(NamedTuple):
    """What a tensor loses in 16 bit.

    label: its node as `keep_nodes` takes it, or "input `NAME`"; op_type: of that node; nodes: those that keep
    it in float32; peak: the largest magnitude in float32; finite: (in 16 bit, in float32); error: the
    length of the difference in units of the length of the float32 tensor, and before: the largest error of
    what the node reads.
    """

    label: str
    op_type: str
    to: str
    nodes: tuple[str, ...]
    peak: float
    finite: tuple[bool, bool]
    before: float
    error: float

    @property
    def overflows(self) -> bool:
        return self.finite[1] and self.peak >= OVERFLOW[self.to]

    @property
    def growth(self) -> float:
        """What the node adds to the error; infinity if the tensor is finite in float32 alone."""
        if self.finite == (False, True):
            return math.inf
        return self.error - self.before if math.isfinite(self.error) else 0.0


def find_losses(path: str, inputs: Mapping[str, np.ndarray]) -> list[Loss]:
    """The losses of the model at `path` for one sample, in the order of its nodes; none if it has no 16-bit
    tensors. Writes a model beside it. Raises WorkerError."""
    made = rounded_on_cpu.float32_model(path)
    if made is None:
        return []
    model, roundings = made
    watched = [each for each in roundings if each.main]
    graph = _Graph(model.graph, watched)
    with open(path + SUFFIX, "wb") as out:
        runnable_model = graph_walk.without_repeated_names(_with_copy(model, roundings, watched))
        out.write(runnable_model.SerializeToString())
    runnable = CpuModel(path + SUFFIX, "the converted model")
    figures = np.array(runnable.run("the sample", inputs, runnable.outputs()), np.float64).reshape(
        -1, FIGURES
    )
    found = []
    errors: dict[str, float] = {}
    for rounding, (peak, rounded, exact, apart, size) in zip(watched, figures.tolist()):
        error = 0.0 if apart == 0 else apart / size if size else math.inf
        before = max((errors[name] for name in graph.sources(rounding)), default=0.0)
        errors[rounding.tensor] = error
        finite = rounded == 0, exact == 0
        label, op_type = graph.label(rounding)
        found.append(Loss(label, op_type, rounding.to, graph.keeping(rounding), peak, finite, before, error))
    return found


class _Graph:
    """The main graph of a model with roundings."""

    def __init__(self, graph: GraphProto, watched: Sequence[Rounding]) -> None:
        tensors = {each.exact: each.tensor for each in watched}
        nodes = [node for node in graph.node if not node.name.startswith(rounded_on_cpu.ADDED)]
        self._outputs: dict[int, list[str]] = {
            id(node): [tensors.get(name, name) for name in node.output] for node in nodes
        }
        self._maker = {name: node for node in nodes for name in self._outputs[id(node)]}
        self._ends = {output.name for output in graph.output}
        self._watched = {each.tensor for each in watched}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in dict.fromkeys(graph_walk.read_by(node)):
                self._readers.setdefault(name, []).append(node)

    def label(self, rounding: Rounding) -> tuple[str, str]:
        """(name of the node that makes the tensor, its operator)."""
        node = self._maker.get(rounding.tensor)
        if node is not None and self._is_added_cast(node):
            name = node.input[0]
            node = self._maker.get(name)
        else:
            name = rounding.exact
        return ("input `%s`" % name, "") if node is None else (self._name(node), node.op_type)

    def keeping(self, rounding: Rounding) -> tuple[str, ...]:
        """The nodes that must stay float32 to keep the tensor so: the one that makes it, and all that read
        it."""
        node = self._maker.get(rounding.tensor)
        if node is not None and self._is_added_cast(node):
            node = self._maker.get(node.input[0])
        made = [] if node is None else [node]
        return tuple(dict.fromkeys(map(self._name, [*made, *self._reading(rounding.tensor)])))

    def _reading(self, tensor: str) -> Iterator[NodeProto]:
        for node in self._readers.get(tensor, ()):
            if self._is_added_cast(node) or node.op_type in ("Shape", "Size"):
                continue
            yield node
            if rounded_on_cpu.moves_values(node):
                for name in self._outputs[id(node)]:
                    yield from self._reading(name)

    def sources(self, rounding: Rounding) -> Iterator[str]:
        """The watched tensors from which a tensor is computed."""
        node = self._maker.get(rounding.tensor)
        pending = list(graph_walk.read_by(node)) if node is not None else []
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            maker = self._maker.get(name)
            if name in self._watched:
                yield name
            elif maker is not None:  # it moves values, or is float32
                pending += graph_walk.read_by(maker)

    def _is_added_cast(self, node: NodeProto) -> bool:
        """Whether the conversion added it: such casts have the name of what they make."""
        return bool(node.op_type == "Cast" and node.name == self._outputs[id(node)][0])

    def _name(self, node: NodeProto) -> str:
        """As `keep_nodes` takes it."""
        if node.name:
            return str(node.name)
        made = self._outputs[id(node)][0]
        casts = [each for each in self._readers.get(made, ()) if self._is_added_cast(each)]
        # onnxruntime's converter renames what a float32 node makes, and what becomes an output of the model.
        end = next((each.name for each in casts if each.name in self._ends), made)
        return end[: -len(RENAMED)] if end.endswith(RENAMED) else end


def _with_copy(model: ModelProto, roundings: Sequence[Rounding], watched: Sequence[Rounding]) -> ModelProto:
    """The model with a copy of its nodes that does not round, and figures of each watched tensor as its only
    outputs."""
    graph = model.graph
    exact = {each.tensor: each.exact for each in roundings if each.exact != each.tensor}
    copied = GraphProto()
    copied.node.extend(graph.node)
    for inner in graph_walk.graphs(copied):
        for node in inner.node:
            if node.name == rounded_on_cpu.ADDED + node.output[0] and node.output[0] in exact:
                node.op_type, node.input[0] = "Identity", exact[node.output[0]]
                del node.attribute[:]
    names = {name: COPY + name for node in copied.node for name in node.output if name}
    for node in copied.node:
        node.name = ""
        node.output[:] = [names.get(name, name) for name in node.output]
    graph_walk.replace(copied, names)
    for inner in list(graph_walk.graphs(copied))[1:]:
        own = set(graph_walk.defined(inner))
        for output in inner.output:
            if output.name in names and output.name not in own:  # from an outer graph
                inner.node.append(onnx.helper.make_node("Identity", [names[output.name]], [output.name]))
    graph.node.extend(copied.node)
    del graph.output[:], graph.value_info[:]
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros([], np.float32), FIGURE + "zero"))
    for index, each in enumerate(watched):
        at = "%s%d " % (FIGURE, index)
        graph.node.extend(_figures(at, each.tensor, names.get(each.tensor, each.exact)))
        for which in range(FIGURES):
            output = onnx.helper.make_tensor_value_info(at + str(which), TensorProto.FLOAT, None)
            graph.output.append(output)
    return model


def _figures(at: str, rounded: str, exact: str) -> Iterator[NodeProto]:
    """Nodes for the figures of a tensor: its largest magnitude in float32; 0 times the sum in 16 bit and in
    float32, NaN if a value is not finite; the lengths of the difference, and in float32."""
    make = onnx.helper.make_node
    yield make("Abs", [exact], [at + "sizes"])
    yield make("Mul", [rounded, FIGURE + "zero"], [at + "zeros"])
    yield make("Mul", [exact, FIGURE + "zero"], [at + "zeros in float32"])
    yield make("Sub", [rounded, exact], [at + "difference"])
    reduced = ("sizes", "ReduceMax"), ("zeros", "ReduceSum"), ("zeros in float32", "ReduceSum")
    for which, (name, op_type) in enumerate((*reduced, ("difference", "ReduceL2"))):
        yield make(op_type, [at + name], [at + str(which)], keepdims=0)
    yield make("ReduceL2", [exact], [at + "4"], keepdims=0)
