"""Finds a node of an ONNX, and the line of the user's program that it was exported from.

Needed only for the message about a node that TensorRT refuses.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ...files.reading import open_file
from ...values import Value
from .protobuf_fields import MalformedError, WireReader, contents

# Where PyTorch's exporters leave the stack: with dynamo in this property, else (with verbose=True) in the
# doc_string, the innermost call first.
STACK = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in \S+(?:\n[ \t]+(\S[^\n]*))?')
_CALL = re.compile(r"^(\S[^\n(]*\.py)\((\d+)\):", re.MULTILINE)
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]torch[/\\]|^<")


class OnnxNode(Value):
    """number: in the main graph, -1 in a subgraph; made_at: FILE:LINE and the source, "" if the exporter left
    none."""

    number: int
    name: str
    operator: str
    domain: str
    made_at: str


def find_node(path: Path, index: int | None, names: Collection[str]) -> OnnxNode | None:
    """The node at an index of the main graph, or else the first that has one of the names. None if there is
    none, or the file cannot be read."""
    with contextlib.suppress(OSError, MalformedError, IndexError), open_file(path) as source:
        data = contents(source, path.stat().st_size)
        reader = _NodeReader(data)
        for at, span in reader.nodes(0, len(data), 7, 0):
            if at == index or (index is None and reader.name(*span) in names):
                return reader.node(at, *span)
    return None


class _NodeReader(WireReader):
    """Field numbers: NodeProto and AttributeProto of onnx.proto3."""

    def nodes(self, start: int, end: int, field: int, depth: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """The index and bytes of each node in the graphs that a message has in this field, subgraphs after
        their node."""
        for graph in self.messages(start, end, field):
            for at, node in enumerate(self.messages(*graph, 1)):
                yield (at if depth == 0 else -1), node
                for attribute in self.messages(*node, 5) if depth < 50 else ():
                    yield from self.nodes(*attribute, 6, depth + 1)

    def name(self, start: int, end: int) -> str:
        return self._text(start, end, 3)

    def node(self, at: int, start: int, end: int) -> OnnxNode:
        stack = ""
        for entry in self.messages(start, end, 9):
            if self._text(*entry, 1) == STACK:
                stack = self._text(*entry, 2)
        made_at = source_line(stack or self._text(start, end, 6))
        operator, domain = self._text(start, end, 4), self._text(start, end, 7)
        return OnnxNode(at, self.name(start, end), operator, domain, made_at)

    def _text(self, start: int, end: int, field: int) -> str:
        spans = self.messages(start, end, field)
        return self.text(*spans[-1]) if spans else ""


def source_line(stack: str) -> str:
    """`model.py:12` and the source there, of the innermost call outside libraries; "" if the text is no
    stack."""
    frames = [(file, line, code) for file, line, code in _FRAME.findall(stack)][::-1]
    frames += [(file, line, "") for file, line in _CALL.findall(stack)]
    for file, line, code in frames:
        if not _LIBRARY.search(file):
            place = "/".join(re.split(r"[/\\]", file)[-2:])  # of another machine
            return f"{place}:{line}" + (f" `{' '.join(code.split())[:80]}`" if code else "")
    return ""
