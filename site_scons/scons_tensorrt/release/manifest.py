"""The manifest: the engines of a release, and the recipe of each.

It depends on the engines and their ingredients alone: no time, path or package version, and sorted
keys. The same inputs give the same bytes in every clone, so a manifest is up to date if writing it again
gives the same bytes.

Engines are listed by filename, without folder: they lie beside their manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..artifact.cache_key import make_key
from ..artifact.filename import RECORDED_SUFFIX, EngineFilename
from ..artifact.receipt import LARGEST_SIZE
from ..errors import EngineError, HandoffError
from ..files.digest_cache import is_sha256
from ..values import Value

SCHEMA = 1
LARGEST = 64 << 20  # bytes


class RecordedFile(Value):
    """The recorded file beside an engine. size: in bytes."""

    sha256: str
    size: int


class ManifestEntry(Value):
    """One engine. name: filename; size: in bytes; key: cache key of the ingredients in `recipe`;
    signature: the hard and device-class fields of its hardware; recorded: None if there is none."""

    name: str
    sha256: str
    size: int
    key: str
    recipe: Mapping[str, str]
    signature: Mapping[str, Any]
    recorded: RecordedFile | None = None

    def to_json(self) -> dict[str, Any]:
        filename, more = EngineFilename.parse(self.name), {}
        if self.recorded:
            name = self.name + RECORDED_SUFFIX
            more = {"recorded": {"name": name, **self.recorded._asdict()}}
        return {
            "name": self.name,
            "model": filename.model,
            "precision": filename.precision,
            "sha256": self.sha256,
            "size": self.size,
            "recipe_digest": self.key,
            "recipe": dict(self.recipe),
            "signature": dict(self.signature),
            **more,
        }


class Manifest(Value):
    """hardware: its name, None for the default hardware; engines: by filename."""

    hardware: str | None
    engines: Mapping[str, ManifestEntry]

    def dump(self) -> bytes:
        """The contents of the manifest file."""
        data = {
            "schema": SCHEMA,
            "hardware": self.hardware,
            "engines": [self.engines[name].to_json() for name in sorted(self.engines)],
        }
        return (json.dumps(data, sort_keys=True, indent=1) + "\n").encode("ascii")

    def sums(self) -> bytes:
        """The contents of SHA256SUMS, for `sha256sum -c` in the folder of the engines."""
        found = {name: entry.sha256 for name, entry in self.engines.items()}
        found.update({name: each.sha256 for name, each in self.recorded().items()})
        return "".join(f"{found[name]}  {name}\n" for name in sorted(found)).encode("ascii")

    def recorded(self) -> dict[str, RecordedFile]:
        """The recorded files, by name."""
        listed = {name + RECORDED_SUFFIX: entry.recorded for name, entry in self.engines.items()}
        return {name: each for name, each in listed.items() if each}

    @classmethod
    def load(cls, data: bytes) -> Manifest:
        """Parse a manifest; unknown fields are ignored. Raises HandoffError."""
        try:
            fields = json.loads(data, object_pairs_hook=_unique)
            if type(fields["schema"]) is not int or fields["schema"] != SCHEMA:
                raise HandoffError("unsupported schema")
            hardware, engines = fields.get("hardware"), {}
            if not (hardware is None or isinstance(hardware, str)):
                raise HandoffError("hardware is not a string")
            for item in fields["engines"]:
                entry = _entry(item)
                if entry.name in engines:
                    raise HandoffError(f"{entry.name} is listed twice")
                engines[entry.name] = entry
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HandoffError(f"damaged ({type(error).__name__})") from None
        return cls(hardware, engines)


def digest(data: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


def _entry(item: Any) -> ManifestEntry:
    name, sha256, size = item["name"], item["sha256"], item["size"]
    key, recipe, signature = item["recipe_digest"], item["recipe"], item["signature"]
    if not (isinstance(name, str) and isinstance(recipe, dict) and isinstance(signature, dict)):
        raise HandoffError("an engine lacks name, recipe or signature")
    try:
        EngineFilename.parse(name)  # also rejects a path
    except EngineError as error:
        raise HandoffError(str(error)) from None
    recorded = item.get("recorded")
    if not _is_file(item) or not (recorded is None or _is_file(recorded)):
        raise HandoffError(f"{name}: no valid sha256 or size")
    beside = recorded and RecordedFile(recorded["sha256"], recorded["size"])
    if not all(isinstance(text, str) for text in recipe.values()) or make_key(name, recipe) != key:
        raise HandoffError(f"{name}: the recipe digest does not match the recipe")
    return ManifestEntry(name, sha256, size, key, recipe, signature, beside)


def _is_file(item: Mapping[str, Any]) -> bool:
    """Whether the sha256 and the size of a file are valid."""
    sha256, size = item["sha256"], item["size"]
    return is_sha256(sha256) and type(size) is int and 0 <= size < LARGEST_SIZE


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject duplicate fields: another reader may use the other one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HandoffError("duplicate field")
    return found
