"""Entries: the signed record of what a cache key produced.

An entry is a JSON object of two strings: a body and its signature. The body binds key, name, sha256
and size together, so that one engine's entry cannot be passed off as another's; the key is recomputed
from the name and ingredients in the body. Data is trusted only if a signed body states its sha256.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..artifact.cache_key import make_key
from ..artifact.receipt import Receipt
from ..build.entry_description import DESCRIBED
from ..files.digest_cache import is_sha256
from ..files.signing_keys import SigningKey, TrustedKeys
from ..values import Value

SCHEMA = 1
LARGEST = 4 << 20  # bytes of an entry
ENGINE, STEP, REFUSAL = "engine", "step", "refusal"
FOLDERS = {ENGINE: "ac", STEP: "ac", REFUSAL: "no"}
_PURPOSE = b"scons-tensorrt store entry 1\n"  # keeps signatures from being reused elsewhere
RECEIPT_FIELDS = {"schema", "engine", "key", "sha256", "size", "ingredients"}  # not allowed in details


class EntryRejected(Exception):
    """An entry that is not used; the text says why. untrusted: signed by an untrusted key, perhaps of
    another team; expired: valid until it expired; other_version: of scons-tensorrt, with another schema."""

    def __init__(
        self, why: str, untrusted: bool = False, expired: bool = False, other_version: bool = False
    ) -> None:
        super().__init__(why)
        self.untrusted, self.expired, self.other_version = untrusted, expired, other_version


class CacheEntry(Value):
    """kind: ENGINE, STEP (output of an ONNX step) or REFUSAL; name: filename; sha256, size: of the file,
    "" and 0 for a refusal; data: sha256 and size of its external data; details: as in
    `artifact.receipt`; made, expires: seconds since the epoch; error: of a refusal; by: ID of the
    signing key."""

    kind: str
    key: str
    name: str
    ingredients: Mapping[str, str]
    sha256: str = ""
    size: int = 0
    data: tuple[str, int] | None = None
    details: Mapping[str, Any] = {}
    made: int = 0
    expires: int | None = None
    error: str = ""
    by: str = ""

    @property
    def path(self) -> str:
        return entry_path(self.kind, self.key)

    def blobs(self) -> list[tuple[str, int]]:
        """Sha256 and size (bytes) of each file of this entry."""
        return [(self.sha256, self.size)] * bool(self.sha256) + ([self.data] if self.data else [])


def engine_entry(
    receipt: Receipt,
    kind: str = ENGINE,
    data: tuple[str, int] | None = None,
    described: Mapping[str, Any] | None = None,
) -> CacheEntry:
    """The entry for a receipt. described: see build/entry_description.py."""
    return CacheEntry(
        kind=kind,
        key=receipt.key,
        name=receipt.filename,
        ingredients=receipt.ingredients,
        sha256=receipt.sha256,
        size=receipt.size,
        data=data,
        details={**receipt.details, **({DESCRIBED: described} if described else {})},
        made=int(time.time()),
    )


def entry_path(kind: str, key: str) -> str:
    return f"{FOLDERS[kind]}/{key}"


def blob_path(sha256: str) -> str:
    return f"cas/{sha256}"


def sign_entry(entry: CacheEntry, signing_key: SigningKey) -> bytes:
    """The entry as signed bytes."""
    fields = entry._replace(by=signing_key.trusted.name, details=dict(entry.details))._asdict()
    fields["ingredients"] = dict(entry.ingredients)
    body = json.dumps({"schema": SCHEMA, **fields}, sort_keys=True)
    signature = signing_key.sign(_PURPOSE + body.encode("utf-8")).hex()
    return (json.dumps({"body": body, "signature": signature}) + "\n").encode("utf-8")


def verify_entry(data: bytes, trusted: TrustedKeys, kind: str, key: str) -> CacheEntry:
    """The entry in `data`, of this kind and key. Raises EntryRejected."""
    entry = read_entry(data, trusted)
    if (entry.kind, entry.key) != (kind, key):
        raise EntryRejected(f"it belongs to another key, {entry.kind} {entry.key[:12]}…")
    if entry.expires is not None and entry.expires < time.time():
        raise EntryRejected("it has expired", expired=True)
    return entry


def read_entry(data: bytes, trusted: TrustedKeys) -> CacheEntry:
    """The entry in `data`, of any key. Raises EntryRejected."""
    try:
        sealed = json.loads(data)
        body, signature = sealed["body"], bytes.fromhex(sealed["signature"])
        signed = _PURPOSE + body.encode("utf-8")
        by = json.loads(body)["by"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise EntryRejected("it is damaged or unsigned") from None
    if not isinstance(by, str):
        raise EntryRejected("it is damaged or unsigned")
    if by not in trusted:
        raise EntryRejected(f"signed by untrusted key {by!r}", untrusted=True)
    if not trusted[by].accepts(signature, signed):
        raise EntryRejected(f"its signature does not match key {by}")
    return _parsed(body)


def claimed(data: bytes) -> list[str]:
    """The sha256 of each file of an entry, trusted or not: what gc must keep."""
    try:
        body = json.loads(json.loads(data)["body"])
        named = [body["sha256"], *(body["data"] or ())[:1]]
        return [text for text in named if is_sha256(text)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 37  # within the years that strftime can format


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


# Checked although the signer is trusted: its program may have a bug.
_SOUND: Mapping[str, Callable[[Any], bool]] = {
    "kind": lambda value: isinstance(value, str) and value in FOLDERS,
    "key": is_sha256,
    "name": lambda value: _is_text(value) and value not in ("", ".", "..") and "/" not in value,
    "ingredients": lambda value: _is_map(value) and all(map(_is_text, value.values())),
    "sha256": lambda value: value == "" or is_sha256(value),
    "size": _is_size,
    "data": lambda value: (
        value is None
        or (isinstance(value, list) and len(value) == 2 and is_sha256(value[0]) and _is_size(value[1]))
    ),
    "details": lambda value: _is_map(value) and not RECEIPT_FIELDS & value.keys(),
    "made": _is_time,
    "expires": lambda value: value is None or _is_time(value),
    "error": _is_text,
    "by": _is_text,
}


def _parsed(body: str) -> CacheEntry:
    """The entry in a trusted body, which another version may have written. Raises EntryRejected."""
    try:
        fields = json.loads(body)
        if fields.pop("schema") != SCHEMA:
            raise EntryRejected("unsupported schema", other_version=True)
        for field, is_sound in _SOUND.items():
            if field in fields and not is_sound(fields[field]):
                raise EntryRejected(f"its {field} is invalid")
        data = fields.pop("data")
        entry = CacheEntry(data=tuple(data) if data else None, **fields)
        if not entry.sha256 and entry.kind != REFUSAL:
            raise EntryRejected("no sha256")
        data_sha256 = entry.data[0] if entry.data else None
        if entry.details.get("data_sha256", data_sha256) != data_sha256:
            raise EntryRejected("its details name different data")
        if make_key(entry.name, entry.ingredients) != entry.key:
            raise EntryRejected("its key does not match its ingredients")
        return entry
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EntryRejected(f"it is damaged ({type(error).__name__})") from None
