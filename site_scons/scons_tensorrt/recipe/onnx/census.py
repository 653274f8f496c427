"""What a network is made of, for people: its operators, parameters, inputs and outputs.

Counted by the walk that finds external data, over the wire format: no onnx package, no GPU. It decides
nothing, and is read only when a report is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import RecipeError
from ...files.reading import open_file
from .data import TYPES
from .summary import OnnxInput
from .walk import _SMALL, _Malformed, _Walk, _Window

VERSION = 1  # another number when the census counts otherwise
_MOST_KINDS = 1000
_LONGEST = 128


class Census(NamedTuple):
    """ops: nodes by operator, subgraphs and local functions too; elements: of weights and constants,
    by DataType number; opset: of the default domain; producer: name and version of the exporter."""

    ops: Mapping[str, int]
    elements: Mapping[int, int]
    inputs: tuple[OnnxInput, ...]
    outputs: tuple[OnnxInput, ...]
    opset: int
    producer: str

    def to_json(self) -> dict[str, Any]:
        """For report.json; a dimension known only at run time is null."""
        weights: dict[str, int] = {}
        size = 0
        for number, count in self.elements.items():
            name, bits = TYPES.get(number, (f"type {number}", 0))
            weights[name] = weights.get(name, 0) + count
            size += count * bits // 8
        return {
            "census": VERSION,
            "nodes": sum(self.ops.values()),
            "ops": dict(sorted(self.ops.items(), key=lambda item: (-item[1], item[0]))),
            "weights": dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))),
            "weights_bytes": size,
            "inputs": [_tensor(each) for each in self.inputs],
            "outputs": [_tensor(each) for each in self.outputs],
            "opset": self.opset,
            "producer": self.producer,
        }


def _tensor(each: OnnxInput) -> dict[str, Any]:
    shape = None if each.shape is None else [None if size < 0 else size for size in each.shape]
    return {"name": each.name, "type": TYPES.get(each.dtype, ("?", 0))[0], "shape": shape}


def read_census(path: str | os.PathLike[str]) -> Census:
    """The census of an ONNX file. Raises RecipeError for what `read_onnx` refuses."""
    try:
        with open_file(path) as source:
            size = os.fstat(source.fileno()).st_size
            walk = _Count(source.readall() if size <= _SMALL else _Window(source.fileno(), size))
            walk.run()
            outputs = walk.outputs()
    except OSError as error:
        raise RecipeError(f"{error.strerror}; check the path") from None
    except (_Malformed, IndexError, UnicodeDecodeError):
        raise RecipeError("not a readable ONNX model; export or fetch it again") from None
    inputs = tuple(each for each in walk.inputs if each.name not in walk.initializers)
    producer = " ".join(part for part in walk.producer if part)
    return Census(walk.ops, walk.elements, inputs, outputs, walk.opset, producer)


class _Count(_Walk):
    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.ops: dict[str, int] = {}
        self.producer = ["", ""]
        self.opset = 0

    def _note(self, kind: str, field: int, value: int, at: int, after: int) -> None:
        super()._note(kind, field, value, at, after)
        if at < 0:
            return
        if kind == "node" and field == 4:
            name = self._short(at, after)
            if name in self.ops or len(self.ops) < _MOST_KINDS:
                self.ops[name] = self.ops.get(name, 0) + 1
        elif kind == "model" and field in (2, 3):
            self.producer[field - 2] = self._short(at, after)
        elif kind == "model" and field == 8:
            self._import(at, after)

    def _import(self, start: int, end: int) -> None:
        domain, version = "", 0
        for field, value, at, after in self._fields(start, end):
            if field == 1 and at >= 0:
                domain = self._short(at, after)
            elif field == 2 and at < 0:
                version = value
        if domain in ("", "ai.onnx"):
            self.opset = version

    def _short(self, start: int, end: int) -> str:
        return bytes(self._data[start : min(end, start + _LONGEST)]).decode("utf-8", "replace")

    def outputs(self) -> tuple[OnnxInput, ...]:
        """Of the main graph; a second look at its fields, which jumps over each."""
        graphs = self._sub(0, len(self._data), 7)
        return tuple(self._input(*span) for graph in graphs for span in self._sub(*graph, 12))
