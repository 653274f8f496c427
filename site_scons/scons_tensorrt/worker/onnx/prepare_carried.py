"""Integer tensors carried in float32, as whole values, while a graph's integer operators are replaced.

Every product of two 8-bit numbers is exact in float32, and every sum below 2^24.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk
from scons_tensorrt.worker.onnx.prepare_graph import FLOAT, Names, Rewriter

RANGES = {TensorProto.UINT8: (0.0, 255.0), TensorProto.INT8: (-128.0, 127.0)}
# Nodes that move values and compute none, by how many of their inputs are data; None for all.
MOVES = {
    **dict.fromkeys(("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice"), 1),
    **dict.fromkeys(("Gather", "Split", "MaxPool", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"), 1),
    **dict.fromkeys(("Pad", "Resize"), 1),  # Resize only to the nearest value
    "Concat": None,
}


class CarriedTensors(Rewriter):
    """A graph whose integer tensors are carried. Where a node that stays reads one, a Cast makes it."""

    def __init__(self, graph: GraphProto, names: Names) -> None:
        super().__init__(graph, names)
        self._carried: dict[str, tuple[str, int]] = {}  # integer tensor: the float32 one, its type
        self._made: set[str] = set()  # integer tensors that a node makes
        self._real: dict[tuple[str, str, str], str] = {}  # (integer tensor, scale, zero point): real values

    def is_carried(self, name: str) -> bool:
        return name in self._carried

    def carry(self, name: str, made: str, kind: int) -> None:
        """The float32 tensor `made` has the values of the integer tensor `name`, which no node makes now."""
        if name:
            self._carried[name] = made, kind

    def need_integer(self, name: str) -> None:
        """Have a node make the integer tensor if it is carried."""
        if name in self._carried and name not in self._made:
            made, kind = self._carried[name]
            self.add("Cast", made, like=name, output=name, to=kind)
            self._made.add(name)

    def as_float(self, name: str) -> str:
        """A float32 tensor with the values of an integer one."""
        if name not in self._carried:
            value = self.names.constant(name)
            kind = self.names.types.get(name, TensorProto.INT8)
            made = (
                self.add("Cast", name, like=name, to=FLOAT) if value is None else self.constant(value, name)
            )
            self._carried[name] = made, kind
            self._made.add(name)
        return self._carried[name][0]

    def move(self, node: NodeProto) -> bool:
        """Have a node that only moves values move the carried ones; False if it is another node, or none of
        its inputs is carried."""
        if graph_walk.domain(node) or node.op_type not in MOVES:
            return False
        data = list(node.input)[: MOVES[node.op_type]]
        if not any(self.is_carried(name) for name in data):
            return False
        if node.op_type == "Resize" and graph_walk.attributes(node).get("mode", b"nearest") != b"nearest":
            return False
        kind = next(self._carried[name][1] for name in data if self.is_carried(name))
        moved = NodeProto.FromString(node.SerializeToString())
        for at, name in enumerate(data):
            moved.input[at] = self.as_float(name)
        if node.op_type == "Pad" and len(node.input) > 2 and node.input[2]:
            moved.input[2] = self.as_float(node.input[2])
        for at, name in enumerate(node.output):
            if name:
                moved.output[at] = self.names.new(name)
                self.carry(name, moved.output[at], kind)
        self.nodes.append(moved)
        return True

    def centered(self, name: str, zero: str, axis: int | None = None) -> str:
        """The values less the zero point. axis: that of a zero point of one dimension, in a constant; None
        where it is the last one."""
        value = self.names.constant(name)
        point = self.names.constant(zero) if zero else np.zeros((), np.float32)
        if value is not None and point is not None:
            return self.constant(value.astype(np.float32) - along(point, value.ndim, axis), name)
        source = self.as_float(name)
        if point is not None and not point.any():
            return source
        return self.add("Sub", source, self.as_float(zero), like=name)

    def dequantized(self, name: str, scale: str, zero: str, axis: int | None = None) -> str:
        """(values - zero point) * scale. axis: as of `centered`."""
        key = name, scale, zero
        if key not in self._real:
            scale = self._float32(scale)
            less, size = self.centered(name, zero, axis), self.names.constant(scale)
            value = self.names.constant(less)
            if value is not None and size is not None:
                self._real[key] = self.constant(value * along(size, value.ndim, axis), name)
            elif value is not None and axis is not None:
                self._real[key] = self.add("Mul", less, self._along(scale, value.ndim, axis), like=name)
            else:
                self._real[key] = self.add("Mul", less, scale, like=name)
        return self._real[key]

    def _float32(self, name: str) -> str:
        """The tensor, which may be fp16, in float32."""
        if self.names.types.get(name) != TensorProto.FLOAT16:
            return name
        value = self.names.constant(name)
        return self.add("Cast", name, like=name, to=FLOAT) if value is None else self.constant(value, name)

    def _along(self, scale: str, rank: int, axis: int) -> str:
        shape = [1] * rank
        shape[axis] = -1
        return self.add("Reshape", scale, self.constant(shape, scale, np.int64), like=scale)

    def quantize(self, source: str, scale: str, zero: str, output: str) -> None:
        """Carry the integer tensor `output`: the quantized values of `source`."""
        point = self.names.constant(zero) if zero else np.zeros((), np.uint8)
        signed = TensorProto.INT8 in (self.names.types.get(name) for name in (zero, output))
        signed |= point is not None and point.dtype == np.int8
        parts = (self._float32(name) for name in (source, scale))
        whole = self.add("Round", self.add("Div", *parts, like=output), like=output)
        if point is None or point.any():
            whole = self.add("Add", whole, self.as_float(zero), like=output)
        kind = TensorProto.INT8 if signed else TensorProto.UINT8
        self.carry(output, self.clamp(whole, *RANGES[kind], like=output), kind)


def along(values: np.ndarray, rank: int, axis: int | None) -> np.ndarray:
    """The values in float32, those of one dimension at this axis of `rank`."""
    made = values.astype(np.float32)
    if axis is None or made.size == 1 or made.ndim != 1:
        return made.reshape(()) if made.size == 1 else made
    shape = [1] * rank
    shape[axis] = -1
    return made.reshape(shape)
