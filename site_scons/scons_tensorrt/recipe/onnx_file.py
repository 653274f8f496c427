"""What must be known of an ONNX before its compile, by walking the protobuf wire format.

Inputs with their shapes, and the external-data files. The walk jumps over tensors' bytes, so
that a model of gigabytes costs milliseconds and no memory, and it needs no onnx package.
Field numbers: onnx.proto3 of the ONNX project.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..errors import RecipeError

# Which fields of a message hold which messages. Whatever is not named is jumped over.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "input", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "values", 2: "tensor"},
    "values": {13: "entry"},
    "tensor": {13: "entry"},
    "input": {2: "type"},
    "type": {1: "tensor_type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "dim"},
    "dim": {},
}
_QUANTIZERS = (b"QuantizeLinear", b"DequantizeLinear", b"DynamicQuantizeLinear")
_DEEPEST = 200
_DYNAMIC = -1


@dataclass(frozen=True)
class OnnxInput:
    """A graph input. shape: -1 for a dimension known only at run time; None: rank unknown;
    dtype: of its elements, a DataType number of onnx.proto3, 0 where it is not said; tensor: False
    for a sequence or an optional, which have no shape to give."""

    name: str
    shape: tuple[int, ...] | None
    dtype: int = 0
    tensor: bool = True

    @property
    def dynamic(self) -> bool:
        return self.tensor and (self.shape is None or _DYNAMIC in self.shape)

    def __str__(self) -> str:
        return f"`{self.name}` {list(self.shape) if self.shape is not None else '[rank unknown]'}"


@dataclass(frozen=True)
class OnnxSummary:
    """inputs: without the initializers that old models list among them; external: the
    locations of external data, relative to the model's folder, sorted, each with the bytes that
    the file must have at least; elements: of weights and constants, by DataType number;
    quantized: whether it has QuantizeLinear or DequantizeLinear nodes."""

    inputs: tuple[OnnxInput, ...]
    external: Mapping[str, int]
    elements: Mapping[int, int] = dataclasses.field(default_factory=dict)
    quantized: bool = False

    def to_json(self) -> list[Any]:
        inputs = [[i.name, i.shape, i.dtype, i.tensor] for i in self.inputs]
        return [inputs, dict(self.external), sorted(self.elements.items()), self.quantized]

    @classmethod
    def from_json(cls, data: Any) -> OnnxSummary:
        inputs = tuple(
            OnnxInput(n, None if s is None else tuple(s), int(t), bool(plain))
            for n, s, t, plain in data[0]
        )
        return cls(inputs, dict(data[1]), {int(t): int(n) for t, n in data[2]}, bool(data[3]))


def read_onnx(path: str | os.PathLike[str]) -> OnnxSummary:
    """The summary of an ONNX file.

    Raises RecipeError for a file that is missing, empty, truncated, not an ONNX model, or
    whose external data lies outside its folder. The message names no path: the caller knows
    what the user calls the file.
    """
    try:
        with open(path, "rb") as source:
            if os.fstat(source.fileno()).st_size == 0:
                raise RecipeError("the file is empty; export the model again")
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _summarise(data)
    except OSError as error:
        raise RecipeError(f"{error.strerror}; check the path") from None


def _summarise(data: Any) -> OnnxSummary:
    walk = _Walk(data)
    try:
        walk.run()
    except (_Malformed, IndexError, UnicodeDecodeError) as error:
        cause = str(error) if isinstance(error, _Malformed) else "it ends in the middle of a field"
        raise RecipeError(
            f"not a readable ONNX model ({cause}); it may be truncated, or a pointer file of "
            "git-lfs: export or fetch it again"
        ) from None
    if not (walk.ir_version and walk.has_graph):
        raise RecipeError("not an ONNX model (it has no ir_version or no graph); export it again")
    for location in walk.external:
        _check_location(location)
    inputs = (i for i in walk.inputs if i.name not in walk.initializers)
    external = dict(sorted(walk.external.items()))
    return OnnxSummary(tuple(inputs), external, walk.elements, walk.quantized)


def _check_location(location: str) -> None:
    parts = PurePosixPath(location)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in location:
        raise RecipeError(
            f"its external data {location!r} lies outside its folder; save the model with the "
            "data beside it"
        )


class _Malformed(Exception):
    pass


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 20 else 0


class _Walk:
    """One pass over the messages of a model, nested ones kept on a stack of our own."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.ir_version = 0
        self.has_graph = False
        self._found: dict[int, OnnxInput] = {}
        self.initializers: set[str] = set()
        self.external: dict[str, int] = {}
        self.elements: dict[int, int] = {}
        self.quantized = False

    @property
    def inputs(self) -> list[OnnxInput]:
        return [self._found[start] for start in sorted(self._found)]

    def run(self) -> None:
        stack: list[tuple[int, int, str, int]] = [(0, len(self._data), "model", 0)]
        while stack:
            start, end, kind, depth = stack.pop()
            if depth > _DEEPEST:
                raise _Malformed(f"nested deeper than {_DEEPEST}")
            if kind == "input":
                if depth == 2:  # of the main graph; a subgraph's inputs are its own affair
                    self._found[start] = self._input(start, end)
                continue
            self._message(start, end, kind, depth, stack)

    def _message(
        self, start: int, end: int, kind: str, depth: int, stack: list[tuple[int, int, str, int]]
    ) -> None:
        children = _MESSAGES[kind]
        strings: dict[int, str] = {}
        entries: dict[str, str] = {}
        is_external, tensor = False, kind in ("tensor", "values")
        count, dtype = 1, 0
        for field, value, at, after in self._fields(start, end):
            if at < 0:
                if kind == "model" and field == 1:
                    self.ir_version = value
                if tensor:
                    is_external |= field == 14 and value == 1
                    count *= value if field == 1 else 1
                    dtype = value if field == 2 else dtype
                continue
            child = children.get(field)
            if child == "entry":
                entries.update([self._entry(at, after)])
            elif child:
                stack.append((at, after, child, depth + 1))
                self.has_graph |= kind == "model" and child == "graph"
            elif tensor and field == 8:
                strings[field] = self._text(at, after)
            elif tensor and field == 1:  # packed, as proto3 writes it
                count *= self._product(at, after)
            elif kind == "node" and field == 4:
                self.quantized |= bytes(self._data[at:after]) in _QUANTIZERS
        if is_external and "location" in entries:
            location = entries["location"]
            end_of_data = _number(entries.get("offset")) + _number(entries.get("length"))
            self.external[location] = max(end_of_data, self.external.get(location, 0))
        if tensor and dtype:
            self.elements[dtype] = self.elements.get(dtype, 0) + count
        # An initializer of the main graph; a sparse one goes by the name of its values.
        if 8 in strings and (kind, depth) in (("tensor", 2), ("values", 3)):
            self.initializers.add(strings[8])

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        """A key and its value."""
        found = {field: (at, to) for field, _, at, to in self._fields(start, end) if at >= 0}
        return self._text(*found.get(1, (0, 0))), self._text(*found.get(2, (0, 0)))

    def _product(self, start: int, end: int) -> int:
        product = 1
        while start < end:
            size, start = self._varint(start, end)
            product *= size
        return product

    def _text(self, start: int, end: int) -> str:
        return bytes(self._data[start:end]).decode("utf-8")

    def _input(self, start: int, end: int) -> OnnxInput:
        name, shape, dtype, tensor = "", None, 0, True
        for field, _, at, after in self._fields(start, end):
            if field == 1 and at >= 0:
                name = self._text(at, after)
            elif field == 2 and at >= 0:
                tensor = bool(self._sub(at, after, 1)) or after == at
                for span in self._inside(at, after, "type", "tensor_type"):
                    numbers = [
                        value for f, value, begin, _ in self._fields(*span) if f == 1 and begin < 0
                    ]
                    dtype = numbers[-1] if numbers else dtype
                for span in self._inside(at, after, "type", "tensor_type", "shape"):
                    shape = tuple(self._dimension(*dim) for dim in self._sub(*span, 1))
        return OnnxInput(name, shape, dtype, tensor)

    def _inside(self, start: int, end: int, *kinds: str) -> Iterator[tuple[int, int]]:
        """The spans of the last kind, going down through one message of each kind before it."""
        spans = [(start, end)]
        for outer, inner in itertools.pairwise(kinds):
            field = next(number for number, kind in _MESSAGES[outer].items() if kind == inner)
            spans = [sub for span in spans for sub in self._sub(*span, field)]
        yield from spans

    def _sub(self, start: int, end: int, wanted: int) -> list[tuple[int, int]]:
        return [(at, to) for field, _, at, to in self._fields(start, end) if field == wanted and at >= 0]

    def _dimension(self, start: int, end: int) -> int:
        for field, value, at, _ in self._fields(start, end):
            if field == 1 and at < 0:
                return value if 0 <= value < 1 << 62 else _DYNAMIC
        return _DYNAMIC

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field, varint value, start, end) of each field; start is -1 for a number."""
        i = start
        while i < end:
            tag, i = self._varint(i, end)
            field, wire = tag >> 3, tag & 7
            if field == 0:
                raise _Malformed(f"field number 0 at byte {i - 1}")
            if wire == 0:
                value, i = self._varint(i, end)
                yield field, value, -1, -1
            elif wire == 2:
                length, i = self._varint(i, end)
                if i + length > end:
                    raise _Malformed(f"a field at byte {i} runs past the end of its message")
                yield field, 0, i, i + length
                i += length
            elif wire in (1, 5):
                i += 8 if wire == 1 else 4
            else:
                raise _Malformed(f"wire type {wire} at byte {i - 1}")
        if i != end:
            raise _Malformed(f"a field runs past the end of its message at byte {end}")

    def _varint(self, i: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if i >= end or shift > 63:
                raise _Malformed(f"a number at byte {i} does not end")
            byte = self._data[i]
            i += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value, i
