"""The file of `timing_cache=`: which kernel TensorRT chose for each layer, as TIMING=record found it.

It is text, so that a commit shows what changed:

    {"schema": 1, "hardware": {"sm_count": "8", ...}, "kernels": {"0x18…d7": "0x533a71cee0d0e conv1", ...},
     "cache": ["cHRydGQ...", ...]}

hardware: the fields of the full hardware signature that it was recorded on. kernels: by key of TensorRT's
timing cache, the hash of the tactic, and the layer's name where TensorRT's log had it. cache: the serialized
timing cache in base64. TensorRT cannot make a cache of the map alone: `ITimingCache.update` refuses a key
that the cache does not have. Two files are compared by the map: the serialized bytes differ between GPUs.
"""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError, plural
from ..files.reading import read_small
from ..hardware.signature import HardwareSignature
from ..values import Value
from .onnx.summary import LFS

SCHEMA = 1
LARGEST = 256 << 20  # bytes
VERSION = "runtime_version"


class TimingFile(Value):
    """hardware: key fields of a signature; kernels: text by key, see above; cache: serialized by TensorRT."""

    hardware: Mapping[str, str]
    kernels: Mapping[str, str]
    cache: bytes

    def dump(self) -> bytes:
        """The bytes of the file."""
        data = {
            "schema": SCHEMA,
            "hardware": dict(self.hardware),
            "kernels": dict(self.kernels),
            "cache": textwrap.wrap(base64.b64encode(self.cache).decode("ascii"), 100),
        }
        return (json.dumps(data, sort_keys=True, indent=1) + "\n").encode("ascii")

    @classmethod
    def load(cls, data: bytes, label: str) -> TimingFile:
        """Parse a file. label: its name in messages. Raises RecipeError."""
        if data.startswith(LFS):
            raise RecipeError(f"timing_cache {label} is a Git LFS pointer, not the file; run `git lfs pull`")
        try:
            fields = json.loads(data)
            if fields["schema"] != SCHEMA:
                raise ValueError(f"schema {fields['schema']}")
            cache = base64.b64decode("".join(fields["cache"]), validate=True)
            hardware = _texts(fields["hardware"])
            if VERSION not in hardware:
                raise KeyError(VERSION)
            return cls(hardware, _texts(fields["kernels"]), cache)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"({type(error).__name__})"
            raise RecipeError(
                f"timing_cache {label}: not a file that TIMING=record wrote {why}; restore it, or remove it "
                "and record it again with TIMING=record"
            ) from None

    def differing_hardware(self, signature: HardwareSignature) -> list[str]:
        """The fields in which the hardware differs from that of the file."""
        now = signature.key_fields()
        return sorted(name for name in {*now, *self.hardware} if now.get(name) != self.hardware.get(name))

    def check_hardware(self, signature: HardwareSignature, label: str) -> None:
        """Raise RecipeError if it was recorded on other hardware."""
        differing, now = self.differing_hardware(signature), signature.key_fields()
        if differing == [VERSION]:
            raise RecipeError(
                f"timing_cache {label}: recorded with TensorRT {self.hardware.get(VERSION)}, not "
                f"{signature.runtime_version}; record it again on this hardware with TIMING=record"
            )
        if differing:
            told = ", ".join(
                f"{name} {self.hardware.get(name, 'unknown')[:40]}, here {now.get(name, 'unknown')}"
                for name in differing[:4]
            ) + ", …" * (len(differing) > 4)
            raise RecipeError(
                f"timing_cache {label}: recorded on other hardware ({told}); each hardware needs a file of "
                "its own"
            )


def _texts(fields: Any) -> dict[str, str]:
    if not all(isinstance(text, str) for text in fields.values()):
        raise TypeError
    return dict(fields)


def read_timing_file(path: Path, label: str) -> tuple[TimingFile, bytes]:
    """The file at `path`, and its bytes. Raises RecipeError."""
    try:
        data = read_small(path, LARGEST)
    except OSError as error:
        raise RecipeError(f"timing_cache {label}: {error.strerror}; check the path") from None
    return TimingFile.load(data, label), data


def missing(label: str) -> RecipeError:
    """The error for a file that is not there."""
    return RecipeError(
        f"timing_cache {label}: no such file; record it on the engine's hardware with TIMING=record"
    )


class KernelChanges(Value):
    """Layers by key: with another tactic, only in the newer map, only in the older one."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)

    def describe(self, total: int) -> str:
        """In words. total: the layers of the newer map."""
        words = (("with another kernel", self.changed), ("new", self.added), ("gone", self.removed))
        told = ", ".join(f"{len(keys)} {word}" for word, keys in words if keys)
        return f"of {plural(total, 'layer')}: {told or 'the same kernels'}"


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> KernelChanges:
    """How the kernels of two maps differ. A layer's name is not compared."""
    both = sorted(before.keys() & now.keys())
    return KernelChanges(
        tuple(key for key in both if tactic_of(before[key]) != tactic_of(now[key])),
        tuple(sorted(now.keys() - before.keys())),
        tuple(sorted(before.keys() - now.keys())),
    )


def tactic_of(text: str) -> str:
    """The hash in the text of a kernel."""
    return text.partition(" ")[0]


def layer_of(key: str, text: str) -> str:
    """The layer's name in the text of a kernel, else its key."""
    return text.partition(" ")[2] or key
