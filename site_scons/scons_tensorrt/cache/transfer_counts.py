"""The bytes that a run moved to and from the shared engine cache, and those that it left there."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..values import Value
from .entry import CacheEntry


class Sum(Value):
    """Of entries: an engine, or an ONNX with its external data, counts once. size: bytes."""

    files: int
    size: int


class Moved:
    """Used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._downloaded: list[int] = []
        self._uploaded: list[int] = []
        self._left: dict[str, int] = {}

    def downloaded(self, entry: CacheEntry) -> None:
        with self._lock:
            self._left.pop(entry.path, None)
            self._downloaded.append(_size(entry))

    def uploaded(self, entry: CacheEntry) -> None:
        with self._lock:
            self._uploaded.append(_size(entry))

    def left(self, entry: CacheEntry) -> None:
        """The entry was found, and its files were not downloaded."""
        with self._lock:
            self._left[entry.path] = _size(entry)

    def sums(self) -> Mapping[str, Sum]:
        """By "downloaded", "uploaded" and "not_downloaded"."""
        with self._lock:
            sizes = self._downloaded, self._uploaded, list(self._left.values())
        names = ("downloaded", "uploaded", "not_downloaded")
        return {name: Sum(len(each), sum(each)) for name, each in zip(names, sizes)}


def _size(entry: CacheEntry) -> int:
    return sum(size for _, size in entry.blobs())
