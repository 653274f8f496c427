"""Reads the fields of protobuf messages in an ONNX file, without the onnx package.

The file is untrusted: numbers and tags are truncated to their bits, as protobuf does.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1
_MAX_NUMBERS = 1 << 25  # in one file: about twenty seconds, and a hundred times any real model
_MAX_TEXT = 1 << 20  # bytes
_MAX_READ_AT_ONCE = 16 << 20  # bytes of a file
_BLOCK = 1 << 16


class MalformedError(Exception):
    """The bytes are not valid protobuf, or exceed a limit."""


def contents(source: io.FileIO, size: int) -> Any:
    """The bytes of an open file: a large one is read only where they are used."""
    return source.readall() if size <= _MAX_READ_AT_ONCE else _Window(source.fileno(), size)


class _Window:
    """The bytes of a large file, read on demand. Not mapped: if another process truncated the file,
    access to the mapping would kill this process."""

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


class WireReader:
    """Reads messages in `data`. A message is given by its start and end, in bytes.

    Methods raise MalformedError, and IndexError if the file was truncated meanwhile.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self._numbers_left = _MAX_NUMBERS

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, varint value, start, end) of each field; start is -1 for a varint."""
        i = start
        while i < end:
            tag, i = self.varint(i, end)
            field, wire = tag >> 3, tag & 7
            if field == 0 or tag > UINT32:
                raise MalformedError(f"field number {field} at byte {i - 1}")
            if wire == 0:
                value, i = self.varint(i, end)
                yield field, value, -1, -1
            elif wire == 2:
                length, i = self.varint(i, end)
                if i + length > end:
                    raise MalformedError(f"a field at byte {i} runs past the end of its message")
                yield field, 0, i, i + length
                i += length
            elif wire in (1, 5):
                i += 8 if wire == 1 else 4
            else:
                raise MalformedError(f"wire type {wire} at byte {i - 1}")
        if i != end:
            raise MalformedError(f"a field runs past the end of its message at byte {end}")

    def messages(self, start: int, end: int, wanted: int) -> list[tuple[int, int]]:
        """The messages in the fields of number `wanted`."""
        return [(at, to) for field, _, at, to in self.fields(start, end) if field == wanted and at >= 0]

    def text(self, start: int, end: int) -> str:
        if end - start > _MAX_TEXT:
            raise MalformedError(f"a name of {end - start} bytes at byte {start}")
        try:
            return bytes(self.data[start:end]).decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError(f"a name at byte {start} is not UTF-8") from None

    def varint(self, i: int, end: int) -> tuple[int, int]:
        """The varint at byte `i`, and the byte after it."""
        value = shift = 0
        self._numbers_left -= 1
        if self._numbers_left < 0:
            raise MalformedError(f"more than {_MAX_NUMBERS} fields")
        while True:
            if i >= end or shift > 63:
                raise MalformedError(f"a number at byte {i} does not end")
            byte = self.data[i]
            i += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value & _UINT64, i
