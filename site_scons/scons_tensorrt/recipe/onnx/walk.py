"""The summary of an ONNX, by walking the protobuf wire format.

The walk jumps over tensors' bytes, so that a model of gigabytes costs milliseconds and no memory,
and it needs no onnx package.
Field numbers: onnx.proto3 of the ONNX project.

The file may be anybody's. Numbers and tags are cut to their bits as protobuf cuts them, and what
two readers of protobuf would join differently is refused: the compiler must find no external data
that was not found here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import RecipeError
from ...files.reading import open_file
from .data import MANY, ExternalData
from .summary import DYNAMIC, LFS, OnnxInput, OnnxSummary, inside_folder

# Which fields of a message hold which messages. Whatever is not named is jumped over.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "input", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "values", 2: "tensor"},
    "input": {2: "type"},
    "type": {1: "tensor_type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "dim"},
    "dim": {},
}
# Fields that hold one message at most: protobuf joins a second one to the first.
_SINGLE = {("attribute", 5), ("attribute", 22), ("sparse", 1), ("sparse", 2)}
_QUANTIZERS = (b"QuantizeLinear", b"DequantizeLinear", b"DynamicQuantizeLinear")
_DEEPEST = 200
_MOST_NUMBERS = 1 << 25  # read of one file: some twenty seconds, and a hundred times any real model
_MOST_FILES = 1 << 16
_LONGEST_TEXT = 1 << 20
_SMALL = 16 << 20  # a file that is read at once
_BLOCK = 1 << 16
_INT32, _INT64 = (1 << 32) - 1, (1 << 64) - 1


def read_onnx(onnx: str | os.PathLike[str] | io.FileIO) -> OnnxSummary:
    """The summary of an ONNX file.

    Raises RecipeError for a file that is missing, empty, truncated, not an ONNX model, or
    whose external data lies outside its folder. The message names no path: the caller knows
    what the user calls the file.
    """
    try:
        with contextlib.ExitStack() as stack:
            source = onnx if isinstance(onnx, io.FileIO) else stack.enter_context(open_file(onnx))
            size = os.fstat(source.fileno()).st_size
            if size == 0:
                raise RecipeError("the file is empty; export the model again")
            data = source.readall() if size <= _SMALL else _Window(source.fileno(), size)
            if data[0 : len(LFS)] == LFS:
                raise RecipeError("it is a git-lfs pointer, not the model; run `git lfs pull`")
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
            f"not a readable ONNX model ({cause}); it may be truncated: export or fetch it again"
        ) from None
    if not (walk.ir_version and walk.has_graph):
        raise RecipeError("not an ONNX model (it has no ir_version or no graph); export it again")
    for location in walk.external.ends:
        inside_folder(location)
    exact = walk.external.exact()
    inputs = (i for i in walk.inputs if i.name not in walk.initializers)
    external = dict(sorted(walk.external.ends.items()))
    more = walk.quantized, exact, walk.functions
    return OnnxSummary(tuple(inputs), external, walk.elements, *more)


class _Malformed(Exception):
    pass


class _Window:
    """A large file's bytes, read as they are asked for. Not mapped: where another process cuts a
    file short, touching its map kills this one."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        self._start, self._data = 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return os.pread(self._descriptor, at.stop - at.start, at.start)
        if not 0 <= at - self._start < len(self._data):
            self._start, self._data = at, os.pread(self._descriptor, _BLOCK, at)
        return self._data[at - self._start]


class _Walk:
    """One pass over the messages of a model, in the file's order. What is held is the way down to
    the message that is read, and what is looked for."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.ir_version = 0
        self.has_graph = False
        self._found: dict[int, OnnxInput] = {}
        self.initializers: set[str] = set()
        self.external = ExternalData()
        self.elements: dict[int, int] = {}
        self.quantized = False
        self.functions = False
        self._left = _MOST_NUMBERS

    @property
    def inputs(self) -> list[OnnxInput]:
        return [self._found[start] for start in sorted(self._found)]

    def run(self) -> None:
        stack = [("model", self._fields(0, len(self._data)), set[int]())]
        while stack:
            kind, fields, seen = stack[-1]
            for field, value, at, after in fields:
                child = _MESSAGES[kind].get(field) if at >= 0 else None
                if child is None:
                    self._note(kind, field, value, at, after)
                    continue
                if (kind, field) in _SINGLE:
                    if field in seen:
                        raise _Malformed(f"a second part of one tensor at byte {at}")
                    seen.add(field)
                if len(stack) > _DEEPEST:
                    raise _Malformed(f"nested deeper than {_DEEPEST}")
                if child in ("tensor", "values"):
                    # An initializer of the main graph; a sparse one goes by the name of its values.
                    self._tensor(at, after, (child, len(stack)) in (("tensor", 2), ("values", 3)))
                elif child == "input":
                    if len(stack) == 2:  # of the main graph; a subgraph's inputs are its own affair
                        self._found[at] = self._input(at, after)
                else:
                    self.has_graph |= kind == "model" and child == "graph"
                    self.functions |= child == "function"
                    stack.append((child, self._fields(at, after), set()))
                    break
            else:
                stack.pop()

    def _note(self, kind: str, field: int, value: int, at: int, after: int) -> None:
        if kind == "model" and field == 1 and at < 0:
            self.ir_version = value
        elif kind == "node" and field == 4 and at >= 0 and after - at < 64:
            self.quantized |= bytes(self._data[at:after]) in _QUANTIZERS

    def _tensor(self, start: int, end: int, is_initializer: bool) -> None:
        entries: dict[str, str] = {}
        name: tuple[int, int] = (0, 0)
        is_external, count, dtype = False, 1, 0
        for field, value, at, after in self._fields(start, end):
            if at < 0:
                is_external |= field == 14 and value & _INT32 == 1
                count = min(count * value, MANY) if field == 1 else count
                dtype = value & _INT32 if field == 2 else dtype
            elif field == 13:
                key, text = self._entry(at, after)
                if key in entries:
                    raise _Malformed(f"a second {key[:32]!r} of one tensor at byte {at}")
                entries[key] = text
            elif field == 8:
                name = at, after
            elif field == 1:  # packed, as proto3 writes it
                count = min(count * self._product(at, after), MANY)
        if is_external and "location" in entries:
            self.external.add(self._text(*name), dtype, count, entries)
            if len(self.external.ends) > _MOST_FILES:
                raise _Malformed(f"more than {_MOST_FILES} files of external data")
        if dtype:
            self.elements[dtype] = min(self.elements.get(dtype, 0) + count, MANY)
        if is_initializer and name[1]:
            self.initializers.add(self._text(*name))

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        """A key and its value."""
        found = {field: (at, to) for field, _, at, to in self._fields(start, end) if at >= 0}
        return self._text(*found.get(1, (0, 0))), self._text(*found.get(2, (0, 0)))

    def _product(self, start: int, end: int) -> int:
        product = 1
        while start < end:
            size, start = self._varint(start, end)
            product = min(product * size, MANY)
        return product

    def _text(self, start: int, end: int) -> str:
        if end - start > _LONGEST_TEXT:
            raise _Malformed(f"a name of {end - start} bytes at byte {start}")
        return bytes(self._data[start:end]).decode("utf-8")

    def _input(self, start: int, end: int) -> OnnxInput:
        name, shape, dtype, tensor = "", None, 0, True
        for field, _, at, after in self._fields(start, end):
            if field == 1 and at >= 0:
                name = self._text(at, after)
            elif field == 2 and at >= 0:
                tensor = bool(self._sub(at, after, 1)) or after == at
                for span in self._inside(at, after, "type", "tensor_type"):
                    numbers = [value for f, value, begin, _ in self._fields(*span) if f == 1 and begin < 0]
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
        size = DYNAMIC
        for field, value, at, _ in self._fields(start, end):
            if field == 1 and at < 0:
                size = value if value < MANY else DYNAMIC
            elif field == 2 and at >= 0:  # a name instead: of a choice the last one counts
                size = DYNAMIC
        return size

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field, varint value, start, end) of each field; start is -1 for a number."""
        i = start
        while i < end:
            tag, i = self._varint(i, end)
            field, wire = tag >> 3, tag & 7
            if field == 0 or tag > _INT32:
                raise _Malformed(f"field number {field} at byte {i - 1}")
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
        self._left -= 1
        if self._left < 0:
            raise _Malformed(f"more than {_MOST_NUMBERS} fields")
        while True:
            if i >= end or shift > 63:
                raise _Malformed(f"a number at byte {i} does not end")
            byte = self._data[i]
            i += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value & _INT64, i
