"""Inputs that are drawn at random for a model: by the type of each input, and by the range of its values
where that is known. The same model and seed give the same inputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.sample_set import ModelInput

SEED = 0
# What passes integers on unchanged, or in another shape, to a node that uses them as indices.
PASSES = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Expand", "Tile")


class Spread(NamedTuple):
    """How the values of an input are spread: uniform whole numbers from low to high, or, with a deviation,
    normal numbers cut off at low and high."""

    low: float
    high: float
    mean: float = 0.0
    deviation: float = 0.0

    def draw(self, shape: Sequence[int], random: np.random.Generator) -> np.ndarray:
        if not self.deviation:
            return np.asarray(random.integers(int(self.low), int(self.high), shape, endpoint=True))
        return np.asarray(np.clip(random.normal(self.mean, self.deviation, shape), self.low, self.high))


NORMAL = Spread(-8.0, 8.0, 0.0, 1.0)
UNIT = Spread(0.0, 1.0, 0.5, 0.25)


class Drawer:
    """Draws the inputs of a model. positive: floating-point inputs whose range is unknown are from 0 to 1,
    as an original needs that takes logarithms."""

    def __init__(self, inputs: Sequence[ModelInput], spreads: Mapping[str, Spread]) -> None:
        self._inputs = {item.name: item for item in inputs}
        self._spreads = dict(spreads)
        self.positive = False

    def draw(self, shapes: Mapping[str, Sequence[int]], number: str) -> dict[str, np.ndarray]:
        """An array of each of these shapes. number: the name of the draw; others differ."""
        drawn = ((name, self._array(self._inputs[name], tuple(shapes[name]), number)) for name in shapes)
        return {name: np.asarray(array) for name, array in drawn}  # numpy draws a scalar as a plain number

    def _array(self, item: ModelInput, shape: tuple[int, ...], number: str) -> np.ndarray:
        random = np.random.default_rng([SEED, zlib.crc32(("%s\n%s" % (item.name, number)).encode())])
        known = self._spreads.get(item.name)
        if known is not None:
            return known.draw(shape, random).astype(item.dtype)
        dtype = item.dtype
        if dtype.kind == "b":
            return np.asarray(random.integers(0, 2, shape)).astype(dtype)
        if dtype.kind in "iu" and dtype.itemsize == 1:
            limits = np.iinfo(dtype)
            return Spread(limits.min, limits.max).draw(shape, random).astype(dtype)
        if dtype.kind in "iu":
            return _mask(shape, random).astype(dtype)
        return (UNIT if self.positive else NORMAL).draw(shape, random).astype(dtype)


def _mask(shape: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """0 and 1, which any use of integers takes; the first of each row is 1, because some masks of zeros alone
    give NaN."""
    drawn = np.asarray(random.random(shape) < 0.75).astype(np.int64)
    if drawn.ndim and drawn.size:
        drawn[..., 0] = 1
    return drawn


def spreads_of(model: ModelProto) -> dict[str, Spread]:
    """The ranges of integer inputs that the model uses as indices, of a Gather with a constant table or of a
    OneHot with a constant depth."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in graph_walk.all_nodes(model):
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    readers: dict[str, list[tuple[int, NodeProto]]] = {}
    nodes = list(graph_walk.all_nodes(model))
    for node in nodes:
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).append((index, node))
    found = {}
    for item in model.graph.input:
        sizes = list(_sizes(item.name, readers, constants))
        if sizes:
            found[item.name] = Spread(0, max(min(sizes) - 1, 0))
    return found


def _sizes(
    name: str, readers: Mapping[str, list[tuple[int, NodeProto]]], constants: Mapping[str, TensorProto]
) -> Iterator[int]:
    """The sizes of the tables that the values of a tensor are indices of."""
    todo, seen = [name], {name}
    while todo:
        for index, node in readers.get(todo.pop(), ()):
            attributes = graph_walk.attributes(node)
            if node.op_type == "Gather" and index == 1 and node.input[0] in constants:
                dims = constants[node.input[0]].dims
                axis = int(attributes.get("axis", 0))
                if dims:
                    yield int(dims[axis])
            elif node.op_type == "OneHot" and index == 0 and node.input[1] in constants:
                yield int(onnx.numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0])
            elif node.op_type in PASSES and index == 0:
                todo += [each for each in node.output if each not in seen]
                seen.update(node.output)


class SampleSpreads:
    """The ranges of the inputs in given samples."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float, float, float, float, bool]] = {}

    def add(self, sample: Mapping[str, np.ndarray]) -> None:
        for name, array in sample.items():
            if not array.size or array.dtype.kind == "b":
                continue
            wide = array.astype(np.float64)
            count, total, squares, low, high, _ = self._seen.get(name, (0, 0.0, 0.0, np.inf, -np.inf, False))
            self._seen[name] = (
                count + array.size,
                total + float(wide.sum()),
                squares + float((wide * wide).sum()),
                min(low, float(wide.min())),
                max(high, float(wide.max())),
                array.dtype.kind in "iu",
            )

    def spreads(self) -> dict[str, Spread]:
        found = {}
        for name, (count, total, squares, low, high, whole) in self._seen.items():
            mean = total / count
            deviation = max(squares / count - mean * mean, 0.0) ** 0.5
            constant = max(abs(mean) * 1e-9, 1e-30)  # a deviation of 0 means whole numbers
            found[name] = Spread(low, high) if whole else Spread(low, high, mean, max(deviation, constant))
        return found
