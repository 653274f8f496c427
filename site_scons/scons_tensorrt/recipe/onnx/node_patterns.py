"""Patterns among the nodes of an ONNX that TensorRT refuses, each seen with TensorRT for RTX 1.7.

To add an operator that is refused wherever it is: ALWAYS_REFUSED. To add a pattern: `patterns_in`, with its
operator in EXAMINED. This is the second walk through a model: only one with such an operator is walked twice.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...values import Value
from .protobuf_fields import WireReader
from .summary import INTEGERS, OnnxInput

if TYPE_CHECKING:
    Constants = ChainMap[str, tuple[int, int, int]]
    Makers = ChainMap[str, "Node"]

SQUEEZE = "Squeeze without axes"  # refused if a dimension that it may remove is 1 in a profile
ALWAYS_REFUSED = frozenset(
    f"{prefix}{op}".encode()
    for prefix, ops in (
        ("", "DynamicQuantizeLinear ConvInteger MatMulInteger MatMulIntegerToFloat"),
        ("DynamicQuantize", "LSTM MatMul"),
        ("QLinear", "Conv MatMul Add Mul Concat Sigmoid LeakyRelu Softmax AveragePool GlobalAveragePool"),
        ("Q", "Gemm LinearWhere"),
    )
    for op in ops.split()
)
EXAMINED = frozenset((b"If", b"Squeeze", b"QuantizeLinear", b"DequantizeLinear"))
_RECURRENT = ("LSTM", "GRU", "RNN")
_PASS = ("Cast", "Equal", "Not", "Squeeze", "Unsqueeze", "Identity", "Greater", "Less")  # of a condition
_RANKS = ("Squeeze", "Unsqueeze")
_UINT8, _INT8, _INT32, _INT64 = 2, 3, 6, 7
_MAX_DEPTH = 200


class Node(Value):
    """branches: the graphs in its attributes; value: of a Constant, like those of Graph.constants."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    branches: tuple[Graph, ...]
    value: tuple[int, int, int] | None = None

    def input_at(self, index: int) -> str:
        """An input that may be left out."""
        return self.inputs[index] if len(self.inputs) > index else ""


class Graph(Value):
    """constants: type and bytes of each initializer, as (DataType number, start, end)."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, tuple[int, int, int]]
    outputs: tuple[str, ...]


def patterns_in(reader: WireReader, inputs: Sequence[OnnxInput]) -> tuple[str, ...]:
    """The patterns that a model has, each a phrase for messages. Raises MalformedError as the reader does."""
    found: dict[str, None] = {}
    shapes = {each.name: each.shape for each in inputs}
    for span in reader.messages(0, len(reader.data), 7):
        graph = _Reading(reader).graph(*span, 0)
        found.update(
            dict.fromkeys(_Patterns(reader, shapes).of(graph, ChainMap(), ChainMap(), within_if=False))
        )
    return tuple(found)


class _Reading:
    def __init__(self, reader: WireReader) -> None:
        self._reader = reader

    def graph(self, start: int, end: int, depth: int) -> Graph:
        nodes, constants, outputs = [], {}, []
        for field, _, at, after in self._reader.fields(start, end):
            if at < 0:
                continue
            if field == 1:
                nodes.append(self._node(at, after, depth))
            elif field == 5:
                name, dtype = self._tensor(at, after)
                constants[name] = dtype, at, after
            elif field == 12:
                outputs += [self._reader.text(*span) for span in self._reader.messages(at, after, 1)]
        return Graph(tuple(nodes), constants, tuple(outputs))

    def _node(self, start: int, end: int, depth: int) -> Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 4: []}
        attributes, branches, constant = [], [], None
        for field, _, at, after in self._reader.fields(start, end):
            if at >= 0 and field in texts:
                texts[field].append(self._reader.text(at, after))
            elif at >= 0 and field == 5:
                for number, _, begin, to in self._reader.fields(at, after):
                    if number == 1 and begin >= 0:
                        attributes.append(self._reader.text(begin, to))
                    elif number in (6, 11) and begin >= 0 and depth < _MAX_DEPTH:
                        branches.append(self.graph(begin, to, depth + 1))
                    elif number == 5 and begin >= 0:
                        constant = self._tensor(begin, to)[1], begin, to
        op = "".join(texts[4])
        return Node(op, tuple(texts[1]), tuple(texts[2]), tuple(attributes), tuple(branches), constant)

    def _tensor(self, start: int, end: int) -> tuple[str, int]:
        name, dtype = "", 0
        for field, value, at, after in self._reader.fields(start, end):
            if field == 8 and at >= 0:
                name = self._reader.text(at, after)
            elif field == 2 and at < 0:
                dtype = value
        return name, dtype


class _Patterns:
    """shapes: of the model's inputs."""

    def __init__(self, reader: WireReader, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
        self._reader = reader
        self._shapes = shapes

    def of(self, graph: Graph, constants: Constants, makers: Makers, within_if: bool) -> Iterator[str]:
        """constants, makers: of the graphs around this one."""
        constants = constants.new_child(dict(graph.constants))
        makers = makers.new_child({name: node for node in graph.nodes for name in node.outputs})
        scope = _Scope(constants, makers)
        for node in graph.nodes:
            decided = node.op == "If" and scope.is_constant("".join(node.inputs[:1]))
            if node.op == "If" and not decided and self._has_open_rank(node, scope):
                yield "an If with branches of different rank"
            if within_if and node.op in _RECURRENT and not _reads(graph, "".join(node.outputs[:1])):
                yield f"{node.op} inside an If, whose sequence output is unused"
            if node.op == "Squeeze" and _has_no_axes(node) and not scope.is_of_shapes("".join(node.inputs)):
                yield SQUEEZE
            if node.op in ("QuantizeLinear", "DequantizeLinear") and self._is_asymmetric(node, scope):
                yield f"{node.op} {INTEGERS}"
            for branch in node.branches:
                inside = within_if or (node.op == "If" and not decided)
                yield from self.of(branch, constants, makers, inside)

    def _has_open_rank(self, node: Node, scope: _Scope) -> bool:
        """Whether the rank of an If's output depends on a dimension that the model leaves open."""
        two = node.branches if len(node.branches) == 2 else ()
        return bool(two) and _ranks_differ(*two) and self._is_open("".join(node.inputs), scope)

    def _is_open(self, name: str, scope: _Scope) -> bool:
        """Whether a condition compares a dimension of an input that the model leaves open."""
        maker = scope.makers.get(name)
        while maker is not None and maker.op in _PASS:
            rest = [each for each in maker.inputs if each and not scope.is_constant(each)]
            if len(rest) != 1:
                return False
            maker = scope.makers.get(rest[0])
        if maker is None or maker.op != "Gather" or len(maker.inputs) != 2:
            return False
        shape = scope.makers.get(maker.inputs[0])
        sizes = self._shapes.get(shape.inputs[0]) if shape and shape.op == "Shape" else None
        axis = scope.whole_number(self._reader, maker.inputs[1])
        return sizes is not None and axis is not None and -len(sizes) <= axis < len(sizes) and sizes[axis] < 0

    def _is_asymmetric(self, node: Node, scope: _Scope) -> bool:
        """Whether the zero point is a constant of uint8 or one that is not 0, or a constant of uint8 or int32
        is dequantized. TensorRT compiles uint8 with zero point 0, but as int8: it clips what is above 127."""
        data = scope.place(node.input_at(0))
        if node.op == "DequantizeLinear" and data and data[0] in (_UINT8, _INT32):
            return True
        zero = scope.place(node.input_at(2))
        if not zero or zero[0] not in (_UINT8, _INT8):
            return False
        if zero[0] == _UINT8:
            return True
        for field, value, at, after in self._reader.fields(*zero[1:]):
            packed = at >= 0 and any(bytes(self._reader.data[at:after]))
            if field in (5, 9) and (packed or value):  # int32_data, raw_data
                return True
        return False


class _Scope(Value):
    """What a graph sees: constants and the nodes that make its tensors, from outside too."""

    constants: Constants
    makers: Makers

    def is_constant(self, name: str) -> bool:
        return name in self.constants or (name in self.makers and self.makers[name].op == "Constant")

    def is_of_shapes(self, name: str) -> bool:
        """Whether a tensor is computed from shapes and constants alone, so that its own shape is known."""
        seen, stack = set(), [name]
        while stack:
            each = stack.pop()
            if each in seen or not each or self.is_constant(each):
                continue
            seen.add(each)
            maker = self.makers.get(each)
            if maker is None:
                return False
            if maker.op not in ("Shape", "Size"):
                stack += maker.inputs
        return True

    def place(self, name: str) -> tuple[int, int, int] | None:
        """Type and bytes of a constant, as `Graph.constants` has them."""
        return self.constants.get(name) or (self.makers[name].value if name in self.makers else None)

    def whole_number(self, reader: WireReader, name: str) -> int | None:
        """The value of a constant of one int64 element."""
        place = self.place(name)
        if not place or place[0] != _INT64:
            return None
        for field, value, at, after in reader.fields(*place[1:]):
            if field == 9 and after - at == 8:
                return int.from_bytes(bytes(reader.data[at:after]), "little", signed=True)
            if field == 7:  # int64_data, packed or not
                number = value if at < 0 else reader.varint(at, after)[0]
                return number - (1 << 64) if number >> 63 else number
        return None


def _has_no_axes(node: Node) -> bool:
    return not node.attributes and len([name for name in node.inputs if name]) == 1


def _reads(graph: Graph, name: str) -> bool:
    """Whether a graph, or one inside it, reads or returns the tensor."""
    return bool(name) and (
        name in graph.outputs
        or any(
            name in node.inputs or any(_reads(branch, name) for branch in node.branches)
            for node in graph.nodes
        )
    )


def _ranks_differ(one: Graph, two: Graph) -> bool:
    """Whether one branch squeezes or unsqueezes what the other returns as it is."""
    for first, second in zip(one.outputs, two.outputs):
        ops = {
            next((node.op for node in graph.nodes if name in node.outputs), "Identity")
            for graph, name in ((one, first), (two, second))
        }
        if "Identity" in ops and not ops.isdisjoint(_RANKS):
            return True
    return False
