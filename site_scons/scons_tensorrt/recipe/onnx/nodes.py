"""Patterns among the nodes of an ONNX that TensorRT refuses, each seen with TensorRT for RTX 1.7.

The second walk through a model: only one with an operator of CHECKED is walked twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...values import Value
from .wire import WireReader

SQUEEZE = "Squeeze without axes"  # refused if a dimension that it may remove is 1 in a profile
REFUSED = frozenset(
    f"{prefix}{op}".encode()
    for prefix, ops in (
        ("", "DynamicQuantizeLinear ConvInteger MatMulInteger MatMulIntegerToFloat"),
        ("DynamicQuantize", "LSTM MatMul"),
        ("QLinear", "Conv MatMul Add Mul Concat Sigmoid LeakyRelu Softmax AveragePool GlobalAveragePool"),
    )
    for op in ops.split()
)
CHECKED = frozenset((b"If", b"Squeeze", b"QuantizeLinear", b"DequantizeLinear"))
_LOOPS = ("LSTM", "GRU", "RNN", "Loop", "Scan")
_RANKS = ("Squeeze", "Unsqueeze")
_UINT8, _INT8 = 2, 3
_MAX_DEPTH = 200


class Node(Value):
    """branches: the graphs in its attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    branches: tuple[Graph, ...]


class Graph(Value):
    """constants: type and bytes of each initializer, as (DataType number, start, end)."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, tuple[int, int, int]]
    outputs: tuple[str, ...]


def find_refused(reader: WireReader) -> tuple[str, ...]:
    """The patterns that a model has, each a phrase for messages. Raises MalformedError as the reader does."""
    found: dict[str, None] = {}
    for span in reader.messages(0, len(reader.data), 7):
        graph = _Reading(reader).graph(*span, 0)
        scope = dict.fromkeys(graph.constants)
        found.update(dict.fromkeys(_patterns(graph, reader, scope, within_if=False)))
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
        attributes, branches = [], []
        for field, _, at, after in self._reader.fields(start, end):
            if at >= 0 and field in texts:
                texts[field].append(self._reader.text(at, after))
            elif at >= 0 and field == 5:
                for number, _, begin, to in self._reader.fields(at, after):
                    if number == 1 and begin >= 0:
                        attributes.append(self._reader.text(begin, to))
                    elif number in (6, 11) and begin >= 0 and depth < _MAX_DEPTH:
                        branches.append(self.graph(begin, to, depth + 1))
        op = "".join(texts[4])
        return Node(op, tuple(texts[1]), tuple(texts[2]), tuple(attributes), tuple(branches))

    def _tensor(self, start: int, end: int) -> tuple[str, int]:
        name, dtype = "", 0
        for field, value, at, after in self._reader.fields(start, end):
            if field == 8 and at >= 0:
                name = self._reader.text(at, after)
            elif field == 2 and at < 0:
                dtype = value
        return name, dtype


def _patterns(graph: Graph, reader: WireReader, known: Mapping[str, Any], within_if: bool) -> Iterator[str]:
    """known: the constants that the graph sees, from outside too, with their bytes or None."""
    known = {**known, **graph.constants}
    constant = {node.outputs[0] for node in graph.nodes if node.op == "Constant" and node.outputs}
    known.update(dict.fromkeys(constant))
    for node in graph.nodes:
        decided = node.op == "If" and node.inputs[:1] and node.inputs[0] in known
        if node.op == "If" and not decided:
            if within_if:
                yield "an If inside an If"
            if len(node.branches) == 2 and _ranks_differ(*node.branches):
                yield "an If with branches of different rank"
        if within_if and node.op in _LOOPS:
            yield f"{node.op} inside an If"
        if node.op == "Squeeze" and len([name for name in node.inputs if name]) == 1 and not node.attributes:
            yield SQUEEZE
        if node.op in ("QuantizeLinear", "DequantizeLinear") and _is_asymmetric(node, reader, known):
            yield f"{node.op} of unsigned or shifted integers"
        for branch in node.branches:
            yield from _patterns(branch, reader, known, within_if or (node.op == "If" and not decided))


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


def _is_asymmetric(node: Node, reader: WireReader, known: Mapping[str, Any]) -> bool:
    """Whether the zero point is a constant that is not 0, or a constant of uint8 is dequantized."""
    data = known.get(node.inputs[0]) if node.inputs else None
    if node.op == "DequantizeLinear" and data and data[0] == _UINT8:
        return True
    zero = known.get(node.inputs[2]) if len(node.inputs) > 2 else None
    if not zero or zero[0] not in (_UINT8, _INT8):
        return False
    for field, value, at, after in reader.fields(*zero[1:]):
        if field == 9 and at >= 0 and any(bytes(reader.data[at:after])):  # raw_data
            return True
        if field == 5 and (value or (at >= 0 and any(bytes(reader.data[at:after])))):  # int32_data
            return True
    return False
