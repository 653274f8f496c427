"""Verifies an engine against its sidecar, with the standard library alone, and returns its bytes.

The engine is opened once and never through a link, so replacing the file during the check has no effect.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import EngineFilenameError, SidecarError
from ..files.digest_cache import CHANGED, sha256_of
from ..files.reading import open_file
from ..values import Value
from .filename import EngineFilename
from .plan_header import HEADER_BYTES, cut_short, parse_header, too_large, why_not_named
from .sidecar import MISMATCH, read_sidecar, sidecar_of

if TYPE_CHECKING:
    from pathlib import Path

    from ..files.digest_cache import DigestCache
    from .receipt import Receipt


def fault_of(engine: str | os.PathLike[str]) -> str | None:
    """Why an engine does not match its sidecar and its name; None if it does. In constant memory.

    Raises SidecarError if the sidecar is missing or malformed.
    """
    try:
        with open_file(engine, follow=False) as source:
            stated = read_sidecar(engine)
            head = source.read(HEADER_BYTES)
            size = os.fstat(source.fileno()).st_size
            fault = cut_short(head, size) or too_large(size)
            if fault:  # before hashing a huge sparse file
                return fault
            digest, size = sha256_of(source, head, size)
    except OSError as error:
        return _unreadable(error)
    return _fault(engine, stated, digest, head, size)


class PairCheck(Value):
    """code: reason code, empty if the engine matches its sidecar; sha256: None if it was not hashed."""

    code: str
    fault: str
    sha256: str | None


def check_pair(engine: Path, digest_cache: DigestCache, receipts: Iterable[Receipt]) -> PairCheck:
    """Compare an engine with its sidecar. receipts: those of its filename."""
    stated = code = fault = ""
    try:
        if not os.path.lexists(engine):
            return PairCheck("engine_missing", "the engine is missing", None)
        try:
            stated = read_sidecar(engine)
        except SidecarError as error:
            code, fault = "sidecar_missing", str(error).removeprefix(f"{sidecar_of(engine)}: ")
        early = _fault_of_size(engine, stated, receipts)
        if early:
            return PairCheck(code or "sidecar_mismatch", fault or early, None)
        digest = digest_cache.sha256(engine, follow=False)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = getattr(error, "strerror", None) or type(error).__name__
        return PairCheck("engine_unreadable", f"the engine is not readable ({why})", None)
    if not fault and digest != stated:
        code, fault = "sidecar_mismatch", MISMATCH
    return PairCheck(code, fault, digest)


def _fault_of_size(engine: Path, stated: str, receipts: Iterable[Receipt]) -> str | None:
    """Why an engine's size shows that it does not match its sidecar, before it is hashed. Raises OSError."""
    with open_file(engine, follow=False) as source:
        head, size = source.read(HEADER_BYTES), os.fstat(source.fileno()).st_size
    recorded = next((receipt.size for receipt in receipts if receipt.sha256 == stated), size)
    if size != recorded:
        return f"it has {size} bytes, not the {recorded} it was built with"
    return cut_short(head, size) or too_large(size)


def load_verified(
    engine: str | os.PathLike[str], max_bytes: int | None = None, *, most: int | None = None
) -> bytes:
    """The bytes of an engine, verified against its sidecar, for a runtime to deserialize.

    max_bytes: default: this machine's memory; most: its old name. Raises SidecarError if the sidecar is
    missing or malformed, or if the engine is missing, not a regular file, too large, or does not
    match its sidecar, header or filename.
    """
    if most is not None:
        import warnings

        warnings.warn("most= is now max_bytes=; the old name goes in the next release", DeprecationWarning, 2)
        max_bytes = most
    stated = read_sidecar(engine)
    try:
        with open_file(engine, follow=False) as source:
            size = os.fstat(source.fileno()).st_size
            max_bytes = _memory() if max_bytes is None else max_bytes
            if size > max_bytes:  # also if it is sparse
                raise SidecarError(f"{os.fspath(engine)}: it has {size} bytes, more than {max_bytes}")
            head = source.read(HEADER_BYTES)
            fault = cut_short(head, size)
            if fault:  # before allocating memory for a sparse file
                raise SidecarError(f"{os.fspath(engine)}: {fault}")
            source.seek(0)
            data = io.BufferedReader(source).read(size + 1)  # one more byte: it may grow meanwhile
            if len(data) > size:
                raise SidecarError(f"{os.fspath(engine)}: {CHANGED}; try again")
    except OSError as error:
        raise SidecarError(f"{os.fspath(engine)}: {_unreadable(error)}") from None
    digest = hashlib.sha256(data).hexdigest()
    fault = _fault(engine, stated, digest, data[:HEADER_BYTES], len(data))
    if fault is not None:
        raise SidecarError(f"{os.fspath(engine)}: {fault}")
    return data


def _fault(engine: str | os.PathLike[str], stated: str, digest: str, head: bytes, size: int) -> str | None:
    if digest != stated:
        return MISMATCH
    fault = cut_short(head, size)
    if fault is not None:
        return fault
    try:
        name = EngineFilename.parse(os.path.basename(engine))
    except EngineFilenameError:  # a device may use any name
        return None
    return why_not_named(parse_header(head), name)


def _unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "the engine is missing"
    return f"the engine is not readable ({error.strerror})"


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
