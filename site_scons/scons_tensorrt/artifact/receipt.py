"""Receipts: what an engine was built from, in files named by cache key and result.

A receipt lets a fresh clone, a run without its `.sconsign` or a second process reuse an engine, or say
why not. Ingredients map a name ("option precision", "input onnx") to text. The cache key is the sha256
of the filename and the ingredients, so a receipt proves that it belongs to its filename. A receipt never
overwrites one of another key: after a kill and a revert, the old pair is still known. Nor one of the
same key with another result: TensorRT on a GPU does not repeat its bytes, and two places may hold
different ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ReceiptError
from ..files.digest_cache import DigestCache, is_sha256
from ..files.reading import is_none, read_at_most, read_small
from ..files.writing import write_atomic
from ..values import Value
from .cache_key import make_key
from .filename import SUFFIX

SCHEMA = 1
LARGEST = 16 << 20  # bytes of a receipt
LARGEST_SIZE = 1 << 62  # bytes of a file
_FACT = "receipt 4"  # increment when `found` in find_verified changes

# In receipts of TensorRT for RTX that earlier versions wrote, whose files are named by the key with them.
_NOT_OF_RTX = ("hardware os", "hardware machine")


class Receipt(Value):
    """What an engine was built from, and the result.

    sha256, size (bytes): of the engine; details: not part of the key (signature, worker, start,
    duration, peak memory, log).
    """

    filename: str
    key: str
    sha256: str
    size: int
    ingredients: Mapping[str, str]
    details: Mapping[str, Any]

    @property
    def downloaded(self) -> bool:
        """False if the file was found in the shared engine cache and not downloaded (FETCH=none)."""
        fetched = self.details.get("fetched")
        return not (isinstance(fetched, dict) and fetched.get("downloaded") is False)

    def dump(self) -> bytes:
        """The bytes of the receipt file."""
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
            if ingredients.get("hardware product") == "tensorrt_rtx" and "hardware machine" in ingredients:
                ingredients = {k: v for k, v in ingredients.items() if k not in _NOT_OF_RTX}
                key = make_key(filename, ingredients)
            if not all(isinstance(text, str) for text in (filename, *ingredients.values())):
                raise ReceiptError("an ingredient is not text")
            if not (is_sha256(sha256) and type(size) is int and 0 <= size < LARGEST_SIZE):
                raise ReceiptError("missing or invalid sha256 or size")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ReceiptError(f"damaged ({type(error).__name__})") from None
        return cls(filename, key, sha256, size, ingredients, fields)


class Compared(Value):
    """A receipt's record of the comparison with the original model, see build/accuracy_details.py. by: key of
    samples and bounds; ran: whether the engine was run (else the receipt says why not)."""

    by: str
    ran: bool


class ReceiptSummary(Value):
    """size: bytes; data: sha256 of the external data."""

    size: int
    data: str | None = None
    compared: Compared | None = None


def comparison(details: Mapping[str, Any]) -> Compared | None:
    """The comparison in a receipt's details, if any."""
    accuracy = details.get("accuracy")
    if not isinstance(accuracy, dict) or not isinstance(accuracy.get("by"), str):
        return None
    return Compared(accuracy["by"], isinstance(accuracy.get("engine"), dict))


class ReceiptFolder:
    """Receipts in `<folder>/<engine's filename without suffix>/<key>.<first 16 characters of sha256>.json`.
    Methods that read raise ReceiptError for a file that exists but is not readable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names_by_inputs: dict[str, dict[str, set[str]]] = {}  # see `same_inputs`
        self._lock = threading.Lock()

    def path(self, receipt: Receipt) -> Path:
        return Path(self._path(receipt.filename, receipt.key, receipt.sha256))

    def find_verified(
        self, filename: str, key: str, sha256: str, digest_cache: DigestCache
    ) -> ReceiptSummary | None:
        """The summary of the receipt with this key and sha256; None if there is none.

        Called for every engine in every run, so the digest cache keeps it while the receipt is unchanged.
        """
        path = self._path(filename, key, sha256)

        def found(source: io.FileIO) -> list[Any] | None:
            receipt = _parsed(read_at_most(source, LARGEST) or b"")
            if receipt is None or (receipt.filename, receipt.key) != (filename, key):
                return None
            data = receipt.details.get("data_sha256")
            return [receipt.sha256, receipt.size, data, comparison(receipt.details)]

        try:
            known = digest_cache.fact(path, _FACT, found, LARGEST)
        except OSError:
            return None
        try:
            stated, size, data, compared = known
            summary = ReceiptSummary(size, data, Compared(*compared) if compared else None)
        except (TypeError, ValueError):
            return None
        return summary if stated == sha256 else None

    def find_by_bytes(self, filename: str, key: str, sha256: str) -> Receipt | None:
        """The receipt with this key and sha256; None if there is none."""
        receipt = _read(self._path(filename, key, sha256))
        if receipt and receipt.key == key:
            return receipt
        return next((each for each in self.of_key(filename, key) if each.sha256 == sha256), None)

    def of_key(self, filename: str, key: str) -> list[Receipt]:
        """The valid receipts of this key, newest first: several if a rebuild gave different bytes."""
        found = [r for r in self._read(filename, f"{key}.") if r.key == key]
        return found or [r for r in self.of_file(filename) if r.key == key]  # a file named by its former key

    def of_file(self, filename: str) -> Iterator[Receipt]:
        """The valid receipts of this filename, newest first."""
        return self._read(filename, "")

    def same_inputs(self, filename: str, ingredients: Mapping[str, str]) -> list[str]:
        """The filenames, sorted, of other models with a receipt of these ingredients. The filename's hardware
        and precision are the same. The first call reads every receipt of these, later ones none: a first
        build of n engines asks n times. What other processes write after the first call is not found."""
        kind = _kind(filename)
        with self._lock:
            if kind not in self._names_by_inputs:
                known = self._names_by_inputs[kind] = {}
                for name in self.filenames():
                    if _kind(name) == kind:
                        for path in (f"{self._folder_of(name)}/{each}" for each in self._names(name)):
                            known.setdefault(_inputs_of(path), set()).add(name)
            found = self._names_by_inputs[kind].get(_of_any_name(ingredients), set())
            return sorted(found - {filename})

    def filenames(self) -> list[str]:
        """The filenames that may have receipts, sorted."""
        try:
            return sorted(name + SUFFIX for name in os.listdir(self._folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(str(self._folder), error) from None

    def last_duration_s(self, filename: str) -> float | None:
        """The newest recorded duration of a compile of this filename; None if there is none."""
        for receipt in self.of_file(filename):
            found = receipt.details.get("duration_s")
            if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found < 1e9:
                return float(found)
        return None

    def knows(self, filename: str, key: str) -> bool:
        """Whether there is a receipt of this key, valid or not."""
        named = any(name.startswith(f"{key}.") for name in self._names(filename))
        return named or bool(self.of_key(filename, key))

    def put(self, receipt: Receipt) -> None:
        """Write a receipt durably: the commit point of a compile. If it is there, it becomes the newest.
        Raises OSError."""
        path, data = self.path(receipt), receipt.dump()
        with self._lock:
            known = self._names_by_inputs.get(_kind(receipt.filename))
            if known is not None:
                known.setdefault(_of_any_name(receipt.ingredients), set()).add(receipt.filename)
        with contextlib.suppress(OSError):
            if read_small(path, LARGEST, follow=False) == data:
                os.utime(path)
                return
        write_atomic(path, data)

    def _path(self, filename: str, key: str, sha256: str) -> str:
        return f"{self._folder_of(filename)}/{key}.{sha256[:16]}.json"

    def _folder_of(self, filename: str) -> str:
        return f"{self._folder}/{filename.removesuffix(SUFFIX)}"

    def _names(self, filename: str) -> list[str]:
        folder = self._folder_of(filename)
        try:
            return [name for name in os.listdir(folder) if name.endswith(".json")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(folder, error) from None

    def _read(self, filename: str, prefix: str) -> Iterator[Receipt]:
        folder = self._folder_of(filename)
        paths = [f"{folder}/{n}" for n in self._names(filename) if n.startswith(prefix)]
        if len(paths) > 1:
            paths.sort(key=_age)
        for path in paths:
            receipt = _read(path)
            if receipt and receipt.filename == filename:
                yield receipt


def _kind(filename: str) -> str:
    """What a filename says of hardware and precision."""
    return filename.partition("__")[2]


def _of_any_name(ingredients: Mapping[str, str]) -> str:
    """A digest of the ingredients, the same for each engine that is made from them."""
    if ingredients.get("hardware product") == "tensorrt_rtx":
        ingredients = {k: v for k, v in ingredients.items() if k not in _NOT_OF_RTX}
    return make_key("", ingredients)


def _inputs_of(path: str) -> str:
    """`_of_any_name` of a receipt; "" if it is damaged. Who uses the receipt checks the rest of it."""
    try:
        return _of_any_name(json.loads(read_small(path, LARGEST))["ingredients"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _age(path: str) -> int:
    try:
        return -os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read(path: str) -> Receipt | None:
    try:
        return _parsed(read_small(path, LARGEST))
    except OSError as error:
        if is_none(error):
            return None
        raise _unreadable(path, error) from None


def _parsed(data: bytes) -> Receipt | None:
    try:
        return Receipt.load(data)
    except ReceiptError:
        return None


def _unreadable(path: str, error: OSError) -> ReceiptError:
    """Not treated as missing: a finished compile would be removed and repeated."""
    return ReceiptError(f"{path}: {error.strerror}; make it readable, or remove it")
