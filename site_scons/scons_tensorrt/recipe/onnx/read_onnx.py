"""Finds the inputs and the external data of an ONNX file by walking its protobuf messages.

The walk skips the bytes of tensors, so a model of gigabytes takes milliseconds and no memory.
Field numbers: onnx.proto3 of the ONNX project.

The file is untrusted. A message that two protobuf readers would merge differently is refused: the compiler
must not find external data that the walk did not find.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from ...errors import RecipeError
from ...files.reading import open_file
from .external_data import MANY, ExternalData
from .node_patterns import ALWAYS_REFUSED, EXAMINED, patterns_in
from .protobuf_fields import UINT32, MalformedError, WireReader, contents
from .summary import DYNAMIC, LFS, OnnxInput, OnnxSummary, inside_folder

# Which fields of a message hold which messages. All other fields are skipped.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "input", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "values", 2: "tensor"},
}
# Fields that hold at most one message: protobuf merges a second one into the first.
_SINGLE = {("attribute", 5), ("attribute", 22), ("sparse", 1), ("sparse", 2)}
_QUANTIZERS = (b"QuantizeLinear", b"DequantizeLinear", b"DynamicQuantizeLinear")
_MAX_DEPTH = 200
_MAX_FILES = 1 << 16
_HEAD = 512  # bytes that tell text from a model


def read_onnx(onnx: str | os.PathLike[str] | io.FileIO) -> OnnxSummary:
    """The summary of an ONNX file. Raises RecipeError as `walk_file` does, and if its external data is
    outside its folder."""
    walk = walk_file(onnx, _SummaryWalk)
    for location in walk.external.ends:
        inside_folder(location)
    return OnnxSummary(
        walk.inputs,
        dict(sorted(walk.external.ends.items())),
        walk.elements,
        walk.quantized,
        walk.external.exact(),
        walk.functions,
        walk.shared_names(),
        walk.refused,
    )


_Walk = TypeVar("_Walk", bound="OnnxWalk")


def walk_file(onnx: str | os.PathLike[str] | io.FileIO, kind: type[_Walk]) -> _Walk:
    """A completed walk through an ONNX file.

    Raises RecipeError if the file is missing, empty, truncated or not an ONNX model. The message has
    no path: the caller knows the user's name for the file.
    """
    try:
        with contextlib.ExitStack() as stack:
            source = onnx if isinstance(onnx, io.FileIO) else stack.enter_context(open_file(onnx))
            size = os.fstat(source.fileno()).st_size
            if size == 0:
                raise RecipeError("the file is empty; export the model again")
            data = contents(source, size)
            head = bytes(data[0:_HEAD])
            if head.startswith(LFS):
                raise RecipeError("not an ONNX file but a Git LFS pointer; run `git lfs pull`")
            walk = kind(data)
            try:
                walk.run()
                if not (walk.ir_version and walk.has_graph):
                    raise MalformedError("it has no ir_version or no graph")
            except (MalformedError, IndexError) as error:
                raise RecipeError(_why_not_onnx(head, error)) from None
            return walk
    except OSError as error:
        raise RecipeError(f"{error.strerror}; check the path") from None


def _why_not_onnx(head: bytes, error: Exception) -> str:
    """head: the first bytes of the file; error: of the walk."""
    if head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<":
        return "not an ONNX file but an HTML or XML page; download the model again"
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the end may be half a character
        if all(each.isprintable() or each in "\t\r\n" for each in text):
            line = text.strip().partition("\n")[0]
            return f"not an ONNX file but text, which begins with {line[:40]!r}; check the path"
    cause = error if isinstance(error, MalformedError) else "it ends in the middle of a field"
    return f"not a readable ONNX model ({cause}); it may be truncated: export or download it again"


class OnnxWalk(WireReader):
    """One pass over the messages of a model, in the file's order. In memory are only the path to the
    current message, and the results."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.ir_version = 0
        self.has_graph = False
        self.external = ExternalData()
        self.elements: dict[int, int] = {}
        self.quantized = False
        self.functions = False
        self._inputs: dict[int, OnnxInput] = {}
        self._places: dict[str, list[tuple[str, int]]] = {}
        self._initializers: set[str] = set()

    @property
    def inputs(self) -> tuple[OnnxInput, ...]:
        """The graph's inputs, without the initializers that old models list among them."""
        found = (self._inputs[start] for start in sorted(self._inputs))
        return tuple(each for each in found if each.name not in self._initializers)

    def shared_names(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """The names that several dimensions of inputs have, each with its (input, axis)."""
        names = {each.name for each in self.inputs}
        found = {
            name: tuple(place for place in places if place[0] in names)
            for name, places in self._places.items()
        }
        return {name: places for name, places in found.items() if len(places) > 1}

    def run(self) -> None:
        stack = [("model", self.fields(0, len(self.data)), set[int]())]
        while stack:
            kind, fields, seen = stack[-1]
            for field, value, at, after in fields:
                child = _MESSAGES[kind].get(field) if at >= 0 else None
                if child is None:
                    self.note(kind, field, value, at, after)
                    continue
                if (kind, field) in _SINGLE:
                    if field in seen:
                        raise MalformedError(f"a second part of one tensor at byte {at}")
                    seen.add(field)
                if len(stack) > _MAX_DEPTH:
                    raise MalformedError(f"nested deeper than {_MAX_DEPTH}")
                if child in ("tensor", "values"):
                    # An initializer of the main graph; a sparse one has the name of its values.
                    self._tensor(at, after, (child, len(stack)) in (("tensor", 2), ("values", 3)))
                elif child == "input":
                    if len(stack) == 2:  # of the main graph, not of a subgraph
                        self._inputs[at] = self.input(at, after)
                        if self._inputs[at].dynamic:
                            self._note_names(self._inputs[at].name, at, after)
                else:
                    self.has_graph |= kind == "model" and child == "graph"
                    self.functions |= child == "function"
                    stack.append((child, self.fields(at, after), set()))
                    break
            else:
                stack.pop()

    def note(self, kind: str, field: int, value: int, at: int, after: int) -> None:
        """Called for each field that holds none of _MESSAGES."""
        if kind == "model" and field == 1 and at < 0:
            self.ir_version = value
        elif kind == "node" and field == 4 and at >= 0 and after - at < 64:
            self.note_operator(bytes(self.data[at:after]))

    def note_operator(self, op: bytes) -> None:
        self.quantized |= op in _QUANTIZERS

    def _tensor(self, start: int, end: int, is_initializer: bool) -> None:
        entries: dict[str, str] = {}
        name: tuple[int, int] = (0, 0)
        is_external, count, dtype = False, 1, 0
        for field, value, at, after in self.fields(start, end):
            if at < 0:
                is_external |= field == 14 and value & UINT32 == 1
                count = min(count * value, MANY) if field == 1 else count
                dtype = value & UINT32 if field == 2 else dtype
            elif field == 13:
                key, text = self._entry(at, after)
                if key in entries:
                    raise MalformedError(f"a second {key[:32]!r} of one tensor at byte {at}")
                entries[key] = text
            elif field == 8:
                name = at, after
            elif field == 1:  # dims, packed as in proto3
                while at < after:
                    size, at = self.varint(at, after)
                    count = min(count * size, MANY)
        if is_external and "location" in entries:
            self.external.add(self.text(*name), dtype, count, entries)
            if len(self.external.ends) > _MAX_FILES:
                raise MalformedError(f"more than {_MAX_FILES} files of external data")
        if dtype:
            self.elements[dtype] = min(self.elements.get(dtype, 0) + count, MANY)
        if is_initializer and name[1]:
            self._initializers.add(self.text(*name))

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        """Key and value of an entry of external_data."""
        found = {field: (at, to) for field, _, at, to in self.fields(start, end) if at >= 0}
        return self.text(*found.get(1, (0, 0))), self.text(*found.get(2, (0, 0)))

    def input(self, start: int, end: int) -> OnnxInput:
        name, shape, dtype, is_tensor = "", None, 0, True
        for field, _, at, after in self.fields(start, end):
            if field == 1 and at >= 0:
                name = self.text(at, after)
            elif field == 2 and at >= 0:
                tensor_types = self.messages(at, after, 1)
                is_tensor = bool(tensor_types) or after == at
                for span in tensor_types:
                    for number, value, begin, _ in self.fields(*span):
                        dtype = value if number == 1 and begin < 0 else dtype
                    for dims in self.messages(*span, 2):
                        shape = tuple(self._dimension(*dim) for dim in self.messages(*dims, 1))
        return OnnxInput(name, shape, dtype, is_tensor)

    def _note_names(self, of: str, start: int, end: int) -> None:
        """Note which axes of this input have which name."""
        spans = [(start, end)]
        for field in (2, 1, 2):  # its type, of a tensor, with this shape
            spans = [span for each in spans for span in self.messages(*each, field)]
        for shape in spans:
            for axis, dim in enumerate(self.messages(*shape, 1)):
                for name in self.messages(*dim, 2):
                    self._places.setdefault(self.text(*name), []).append((of, axis))

    def _dimension(self, start: int, end: int) -> int:
        size = DYNAMIC
        for field, value, at, _ in self.fields(start, end):
            if field == 1 and at < 0:
                size = value if value < MANY else DYNAMIC
            elif field == 2 and at >= 0:  # a name instead of a size: of a oneof the last counts
                size = DYNAMIC
        return size


class _SummaryWalk(OnnxWalk):
    """A walk that also finds what TensorRT refuses; a second one only if the operators call for it."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.refused: tuple[str, ...] = ()
        self._counts: dict[bytes, int] = {}

    def note_operator(self, op: bytes) -> None:
        super().note_operator(op)
        if op in ALWAYS_REFUSED or op in EXAMINED:
            self._counts[op] = self._counts.get(op, 0) + 1

    def run(self) -> None:
        super().run()
        found = tuple(f"{n} {op.decode()}" for op, n in sorted(self._counts.items()) if op in ALWAYS_REFUSED)
        self.refused = (
            found if EXAMINED.isdisjoint(self._counts) else (*found, *patterns_in(self, self.inputs))
        )
