"""Receipts: what an engine was made from, in files named by their key and what came out.

A receipt lets a fresh clone, a lost `.sconsign` or a second process reuse an engine, and
lets a message say why not. Ingredients are an ordered map from a name ("option precision",
"input onnx") to text; the key is their sha256 with the engine's filename, so a receipt
proves that it belongs to its own name. A receipt is never overwritten by another key's:
killed after it was written, then reverted, the old pair is still known by the old one. Nor by
another result of the same key, because TensorRT on a GPU does not repeat its bytes, and two
places may hold one each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ReceiptError
from ..files.digest_cache import DigestCache
from ..files.reading import is_none, read_small
from ..files.writing import write_atomic
from .filename import SUFFIX

SCHEMA = 1
LARGEST = 16 << 20  # bytes of a receipt
LARGEST_SIZE = 1 << 62  # bytes that a file can have
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FACT = "receipt 4"  # another number when a receipt is read otherwise
_COMPACT = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for each key


def make_key(filename: str, ingredients: Mapping[str, str]) -> str:
    """The key of an engine: hex sha256 of its filename and all its ingredients."""
    text = _COMPACT([filename, sorted(ingredients.items())])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Receipt(NamedTuple):
    """What an engine of `filename` was made from, and what came out.

    sha256, size (bytes): of the engine; details: all that is told but decides nothing
    (signature, worker, start, duration, peak memory, log).
    """

    filename: str
    key: str
    sha256: str
    size: int
    ingredients: Mapping[str, str]
    details: Mapping[str, Any]

    def dump(self) -> bytes:
        """The receipt file: JSON, sorted, for people and machines."""
        data = {
            "schema": SCHEMA,
            "engine": self.filename,
            "key": self.key,
            "sha256": self.sha256,
            "size": self.size,
            "ingredients": dict(self.ingredients),
            **self.details,
        }
        return (json.dumps(data, sort_keys=True, indent=1) + "\n").encode("utf-8")

    @classmethod
    def load(cls, data: bytes) -> Receipt:
        """The receipt in `data`; unknown fields are kept. Raises ReceiptError."""
        try:
            fields = json.loads(data)
            if fields.pop("schema") != SCHEMA:
                raise ReceiptError("unsupported schema")
            filename, key = fields.pop("engine"), fields.pop("key")
            sha256, size = fields.pop("sha256"), fields.pop("size")
            ingredients = fields.pop("ingredients")
            if make_key(filename, ingredients) != key:
                raise ReceiptError("its key does not match its ingredients")
            if not all(isinstance(text, str) for text in (filename, *ingredients.values())):
                raise ReceiptError("an ingredient is not text")
            if not (_DIGEST.fullmatch(sha256) and type(size) is int and 0 <= size < LARGEST_SIZE):
                raise ReceiptError("missing or invalid sha256 or size")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ReceiptError(f"damaged ({type(error).__name__})") from None
        return cls(filename, key, sha256, size, ingredients, fields)


class Compared(NamedTuple):
    """What a receipt tells of an engine's comparison with its original, see build/accuracy.py. by: the
    key of its samples and bounds; ran: whether the engine was run, or only why it was not is told."""

    by: str
    ran: bool


class ReceiptSummary(NamedTuple):
    """What a receipt says of a file of its bytes. size: bytes; data: sha256 of the data beside it."""

    size: int
    data: str | None = None
    compared: Compared | None = None


def comparison(details: Mapping[str, Any]) -> Compared | None:
    """The comparison that a receipt tells of, if it tells of one."""
    accuracy = details.get("accuracy")
    if not isinstance(accuracy, dict) or not isinstance(accuracy.get("by"), str):
        return None
    return Compared(accuracy["by"], isinstance(accuracy.get("engine"), dict))


class ReceiptFolder:
    """The receipts under a folder: `<folder>/<engine's filename without suffix>/<key>.<sha256,
    16 characters of it>.json`. What reads raises ReceiptError for what is there and cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, receipt: Receipt) -> Path:
        return Path(self._path(receipt.filename, receipt.key, receipt.sha256))

    def find_verified(
        self, filename: str, key: str, sha256: str, digest_cache: DigestCache
    ) -> ReceiptSummary | None:
        """What a receipt says of the file of this sha256 that this key gave; None when none does.

        Asked of every engine in every run: what a receipt says, the digest cache tells while the
        receipt is unchanged.
        """
        path = self._path(filename, key, sha256)

        def told() -> list[Any] | None:
            receipt = _read(path)
            if receipt is None or (receipt.filename, receipt.key) != (filename, key):
                return None
            data = receipt.details.get("data_sha256")
            return [receipt.sha256, receipt.size, data, comparison(receipt.details)]

        try:
            known = digest_cache.fact(path, _FACT, told, LARGEST)
        except OSError:
            return None
        try:
            stated, size, data, compared = known
            found = ReceiptSummary(size, data, Compared(*compared) if compared else None)
        except (TypeError, ValueError):
            return None
        return found if stated == sha256 else None

    def of_bytes(self, filename: str, key: str, sha256: str) -> Receipt | None:
        """The receipt which says that this key gave these bytes."""
        receipt = _read(self._path(filename, key, sha256))
        return receipt if receipt and receipt.key == key else None

    def get(self, filename: str, key: str) -> list[Receipt]:
        """The readable receipts of this key, the newest first: more than one where the same
        inputs gave other bytes another time."""
        return [r for r in self._read(filename, f"{key}.") if r.key == key]

    def all_of(self, filename: str) -> Iterator[Receipt]:
        """Every readable receipt of engines of this filename, the newest first."""
        return self._read(filename, "")

    def filenames(self) -> list[str]:
        """The names of engines that may have receipts, sorted."""
        try:
            return sorted(name + SUFFIX for name in os.listdir(self._folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(str(self._folder), error) from None

    def last_duration_s(self, filename: str) -> float | None:
        """The seconds that the newest receipt of this filename tells; None where none does."""
        for receipt in self.all_of(filename):
            told = receipt.details.get("duration_s")
            if isinstance(told, (int, float)) and not isinstance(told, bool) and 0 <= told < 1e9:
                return float(told)
        return None

    def knows(self, filename: str, key: str) -> bool:
        """Whether there is a receipt of this key, readable or not."""
        return any(name.startswith(f"{key}.") for name in self._names(filename))

    def put(self, receipt: Receipt) -> None:
        """Write a receipt durably: the commit point of a compile. Raises OSError."""
        write_atomic(self.path(receipt), receipt.dump())

    def _path(self, filename: str, key: str, sha256: str) -> str:
        return f"{self._of(filename)}/{key}.{sha256[:16]}.json"

    def _of(self, filename: str) -> str:
        return f"{self._folder}/{filename.removesuffix(SUFFIX)}"

    def _names(self, filename: str) -> list[str]:
        folder = self._of(filename)
        try:
            return [name for name in os.listdir(folder) if name.endswith(".json")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(folder, error) from None

    def _read(self, filename: str, prefix: str) -> Iterator[Receipt]:
        folder = self._of(filename)
        paths = [f"{folder}/{n}" for n in self._names(filename) if n.startswith(prefix)]
        if len(paths) > 1:
            paths.sort(key=_age)
        for path in paths:
            receipt = _read(path)
            if receipt and receipt.filename == filename:
                yield receipt


def _age(path: str) -> int:
    try:
        return -os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read(path: str) -> Receipt | None:
    try:
        return Receipt.load(read_small(path, LARGEST))
    except OSError as error:
        if is_none(error):
            return None
        raise _unreadable(path, error) from None
    except ReceiptError:
        return None


def _unreadable(path: str, error: OSError) -> ReceiptError:
    """Not the same as none: taken for none, a finished compile would be swept and made again."""
    return ReceiptError(f"{path}: {error.strerror}; make it readable, or remove it")
