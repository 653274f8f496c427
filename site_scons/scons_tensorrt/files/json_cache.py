"""Caches the answer of a child process in a file, with a stamp that tells whether it is still valid.

Nothing is written before `save`: a dry run stores nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .reading import read_small
from .writing import write_atomic

LARGEST = 4 << 20  # bytes of an answer


class JsonCache:
    """path: the file, or None to store nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unsaved: str | None = None

    def get(self) -> tuple[Any, Any]:
        """(stamp, answer) as put or saved; (None, None) if missing or damaged."""
        if self._unsaved is not None:
            saved = json.loads(self._unsaved)
            return saved["stamp"], saved["answer"]
        if self._path is None:
            return None, None
        try:
            saved = json.loads(read_small(self._path, LARGEST))
            return saved["stamp"], saved["answer"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None, None

    def put(self, stamp: Any, answer: Any) -> None:
        self._unsaved = json.dumps({"stamp": stamp, "answer": answer})

    def save(self) -> None:
        """Write the answer. Raises OSError."""
        if self._path is None or self._unsaved is None:
            return
        write_atomic(self._path, self._unsaved.encode("utf-8"), durable=False)
        self._unsaved = None
