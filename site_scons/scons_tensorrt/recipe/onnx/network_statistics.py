"""What the build report shows of a network: its operators, weights, inputs and outputs.

Counted by the walk that finds external data, so it needs neither the onnx package nor a GPU.
"""

from __future__ import annotations

import os
from typing import Any

from .external_data import TYPES
from .read_onnx import OnnxWalk, walk_file
from .summary import OnnxInput

VERSION = 1  # increment when the statistics of the same file would differ
_MAX_OPS = 1000
_MAX_NAME = 128


def read_statistics(path: str | os.PathLike[str]) -> NetworkStatistics:
    """The statistics of an ONNX file. Raises RecipeError as `walk_file` does."""
    return walk_file(path, NetworkStatistics)


class NetworkStatistics(OnnxWalk):
    """ops: nodes by operator, including those of subgraphs and local functions; producer: name and
    version of the exporter; opset: of the default domain."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.ops: dict[str, int] = {}
        self.outputs: tuple[OnnxInput, ...] = ()
        self.producer = ["", ""]
        self.opset = 0

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
            "ops": _largest_first(self.ops),
            "weights": _largest_first(weights),
            "weights_bytes": size,
            "inputs": [_tensor(each) for each in self.inputs],
            "outputs": [_tensor(each) for each in self.outputs],
            "opset": self.opset,
            "producer": " ".join(part for part in self.producer if part),
        }

    def run(self) -> None:
        super().run()
        graphs = self.messages(0, len(self.data), 7)
        self.outputs = tuple(self.input(*span) for graph in graphs for span in self.messages(*graph, 12))

    def note(self, kind: str, field: int, value: int, at: int, after: int) -> None:
        super().note(kind, field, value, at, after)
        if at < 0:
            return
        if kind == "node" and field == 4:
            name = self._short(at, after)
            if name in self.ops or len(self.ops) < _MAX_OPS:
                self.ops[name] = self.ops.get(name, 0) + 1
        elif kind == "model" and field in (2, 3):
            self.producer[field - 2] = self._short(at, after)
        elif kind == "model" and field == 8:
            self._import(at, after)

    def _import(self, start: int, end: int) -> None:
        domain, version = "", 0
        for field, value, at, after in self.fields(start, end):
            if field == 1 and at >= 0:
                domain = self._short(at, after)
            elif field == 2 and at < 0:
                version = value
        if domain in ("", "ai.onnx"):
            self.opset = version

    def _short(self, start: int, end: int) -> str:
        return bytes(self.data[start : min(end, start + _MAX_NAME)]).decode("utf-8", "replace")


def _largest_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tensor(each: OnnxInput) -> dict[str, Any]:
    shape = None if each.shape is None else [None if size < 0 else size for size in each.shape]
    return {"name": each.name, "type": TYPES.get(each.dtype, ("?", 0))[0], "shape": shape}
