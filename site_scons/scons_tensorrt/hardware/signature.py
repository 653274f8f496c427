"""The hardware signature: the machine an engine is for, in three groups of fields.

hard          with another value, the engine does not load
device class  with another value, it loads but may be slower or run out of memory
recorded      stored in the receipt, never part of the key

Source of the hard fields: NVIDIA's support matrix. A TensorRT for RTX engine runs on every operating system
and machine: NVIDIA's page on CPU-only engines names Linux and Windows, and the runtimes for x86-64 and
aarch64 make the same bytes (docs/hardware.md).
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ..errors import HardwareError
from ..values import Value

HARD = ("product", "runtime_version", "os", "machine", "compute_capability", "architectures")
# Only hardware files have them: in the signature of a probed host they would change the keys of its engines.
OPTIONAL_FIELDS = ("ecc", "shared_memory_per_block", "texture_alignment")
DEVICE_CLASS = (
    *("gpu_name", "sm_count", "memory_gib", "memory_bus_bits", "l2_bytes", "integrated"),
    *OPTIONAL_FIELDS,
)
FILENAME_ONLY = ("jetpack", "cuda")
PRODUCTS = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}  # product → runtime in a filename
SCHEMA = 1
# The SMs of the default target of TensorRT for RTX 1.7, from the capability mask of its plans; that mask
# has one more bit, for later architectures, which no list of SMs sets.
RTX_DEFAULT = (80, 86, 89, 120, 121)

_TEXT = ("product", "runtime_version", "os", "machine", "compute_capability", "gpu_name")
_COUNTS = (
    *("sm_count", "memory_gib", "memory_bus_bits", "l2_bytes"),
    *("shared_memory_per_block", "texture_alignment"),
)
_BOOLS = ("integrated", "ecc")


class _Fields(Value):
    product: str
    runtime_version: str
    os: str | None
    machine: str | None
    compute_capability: str
    architectures: tuple[int, ...] | None = None
    gpu_name: str | None = None
    sm_count: int | None = None
    memory_gib: int | None = None
    memory_bus_bits: int | None = None
    l2_bytes: int | None = None
    integrated: bool | None = None
    ecc: bool | None = None
    shared_memory_per_block: int | None = None
    texture_alignment: int | None = None
    jetpack: str | None = None
    cuda: str | None = None
    recorded: Mapping[str, str] = {}


class HardwareSignature(_Fields):
    """One kind of hardware. None means unknown: the field is not compared.

    runtime_version: four parts ("10.3.0.30"); compute_capability: "8.7", or "8.0+" for an RTX engine that
    also runs on later architectures; architectures: the SMs an RTX plan is compiled for, None for the default
    target, 8.0 and later; os, machine: None for RTX; memory_gib: from `cuda.memory_class`; ecc: whether it is
    switched on; shared_memory_per_block: bytes that a block may ask for; texture_alignment: bytes; cuda:
    version the runtime library was built for; jetpack and cuda are used in filenames only.
    """

    def __hash__(self) -> int:
        return hash(self[:-1])  # without `recorded`, a mapping that is not compared

    @cached_property
    def sm(self) -> int:
        """Compute capability without the dot: 87 for "8.7", 120 for "12.0"."""
        return int(self.compute_capability.rstrip("+").replace(".", ""))

    @cached_property
    def plus(self) -> bool:
        return self.compute_capability.endswith("+")

    @cached_property
    def platform(self) -> str:
        """`jp6.2` on Jetson, `cu13.0` elsewhere. Raises HardwareError if neither version is known."""
        version = self.jetpack or self.cuda
        if not version:
            raise HardwareError("neither JetPack nor CUDA version is known; set JETPACK= or the field `cuda`")
        return ("jp" if self.jetpack else "cu") + _major_minor(version)

    @cached_property
    def runtime(self) -> str:
        """`trt10.3` or `rtx1.7`."""
        return PRODUCTS[self.product] + _major_minor(self.runtime_version)

    @cached_property
    def rtx_default(self) -> bool:
        """Whether this is the default target of TensorRT for RTX."""
        return self.product == "tensorrt_rtx" and self.architectures is None

    def key_fields(self) -> dict[str, str]:
        """The known hard and device-class fields as text, sorted by name."""
        return dict(self._key_fields)

    @cached_property
    def _key_fields(self) -> dict[str, str]:
        return {
            name: _text(getattr(self, name))
            for name in sorted(HARD + DEVICE_CLASS)
            if getattr(self, name) is not None
        }

    def to_json(self) -> dict[str, Any]:
        """The contents of a hardware file; the inverse of `from_json`."""
        out: dict[str, Any] = {"schema": SCHEMA}
        for name in HARD + DEVICE_CLASS + FILENAME_ONLY:
            value = getattr(self, name)
            if value is not None:
                out[name] = list(value) if isinstance(value, tuple) else value
        if self.recorded:
            out["recorded"] = dict(sorted(self.recorded.items()))
        return out

    def canonical(self) -> str:
        """Canonical JSON, the same on every Python."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, data: Any, where: str) -> HardwareSignature:
        """A signature from parsed JSON. where: the file named in a HardwareError."""
        return cls(**_checked(data, where))

    def describe(self) -> str:
        """A one-line description for people."""
        parts = [self.gpu_name or "", f"sm{self.sm}{'+' if self.plus else ''}"]
        if self.memory_gib:
            parts.append(f"{self.memory_gib} GiB")
        parts += [self.machine or "", self.title]
        if self.jetpack:
            parts.append(f"JetPack {self.jetpack}")
        return ", ".join(part for part in parts if part)

    def brief(self, name: str | None) -> str:
        """For a short line: JetPack, unless `name` says it, and runtime; the GPU if there is no name."""
        parts = [] if name else [self.gpu_name]
        if self.jetpack and f"jp{self.jetpack}" not in (name or ""):
            parts.append(f"JetPack {self.jetpack}")
        return ", ".join(part for part in (*parts, self.title) if part)

    @property
    def title(self) -> str:
        """Name and version of the runtime: `TensorRT 10.3.0.30`."""
        names = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
        return f"{names[self.product]} {self.runtime_version}"


def check_fields(data: Any, where: str) -> dict[str, Any]:
    """Check the names and types of a hardware file's fields. Some may still be missing.

    Raises HardwareError, naming the file `where`.
    """
    if not isinstance(data, dict):
        raise HardwareError(f"{where}: not a JSON object; create one with `probe --json`")
    if data.get("schema") != SCHEMA:
        schema = reprlib.repr(data.get("schema"))
        raise HardwareError(f"{where}: unsupported schema {schema}; this version reads {SCHEMA}")
    known = {*HARD, *DEVICE_CLASS, *FILENAME_ONLY, "recorded"}
    fields = {k: v for k, v in data.items() if k not in ("schema", "source")}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise HardwareError(f"{where}: unknown field {reprlib.repr(unknown[0])}; known: {sorted(known)}")
    for name, value in fields.items():
        _check_type(name, value, where)
    if "architectures" in fields:
        fields["architectures"] = tuple(sorted(fields["architectures"]))
    return fields


def _checked(data: Any, where: str) -> dict[str, Any]:
    """The fields of a complete hardware file. Raises HardwareError."""
    fields = check_fields(data, where)
    rtx = fields.get("product") == "tensorrt_rtx"
    on = {"os": None, "machine": None} if rtx else {}  # files of earlier versions have both
    for name in ("product", "runtime_version", "os", "machine", "compute_capability"):
        if name not in fields and name not in on:
            raise HardwareError(f"{where}: missing field {name!r}")
    several = len(fields.get("architectures", ())) > 1
    if several and not fields["compute_capability"].endswith("+"):
        raise HardwareError(
            f"{where}: several architectures; set compute_capability to the lowest with a plus, "
            'such as "8.0+"'
        )
    return {**fields, **on, **(_targets(fields, where) if rtx else {})}


def _targets(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The field `architectures` of a target of TensorRT for RTX: absent for the default target."""
    capability, listed = fields["compute_capability"], fields.get("architectures")
    if capability == "8.0+" and listed in (None, RTX_DEFAULT):
        return {"architectures": None}
    if listed is None and capability.endswith("+"):
        raise HardwareError(
            f'{where}: compute_capability {capability} needs a list of `architectures`; the default is "8.0+"'
        )
    if listed and capability.rstrip("+") != (lowest := f"{listed[0] // 10}.{listed[0] % 10}"):
        raise HardwareError(
            f"{where}: compute_capability is {capability}, but the lowest of its architectures is "
            f'{listed[0]}; write "{lowest}{"+" * capability.endswith("+")}"'
        )
    return {"architectures": listed or (int(capability.replace(".", "")),)}


def _check_type(name: str, value: Any, where: str) -> None:
    def fail(expected: str) -> None:
        raise HardwareError(f"{where}: {name} is {reprlib.repr(value)}, not {expected}")

    if name in _TEXT and not (isinstance(value, str) and value):
        fail("a string")
    if name in _COUNTS and not (type(value) is int and value > 0):
        fail("a positive number")
    if name in _BOOLS and not isinstance(value, bool):
        fail("true or false")
    if name == "recorded" and not (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    ):
        fail("an object of strings")
    if name == "architectures" and not (
        isinstance(value, (list, tuple))
        and value
        and all(type(sm) is int and sm > 0 for sm in value)
        and len(set(value)) == len(value)
    ):
        fail("a list of SM numbers such as [86, 89]")
    if name == "product" and isinstance(value, str) and value not in PRODUCTS:
        fail(f"one of {sorted(PRODUCTS)}")
    if name in ("jetpack", "cuda", "runtime_version"):
        parts = value.split(".") if isinstance(value, str) else []
        if len(parts) < 2 or not all(is_number(part, 9) for part in parts):
            fail("a version such as 10.3.0.30 or 6.2")
    if name == "compute_capability":
        major, _, minor = value.removesuffix("+").partition(".")
        if not (is_number(major, 2) and major[0] != "0" and is_number(minor, 1)):
            fail('a compute capability such as "8.7"')


def is_number(text: str, digits: int) -> bool:
    """Whether `text` is a decimal number of at most so many digits. No regex: one costs a null build more."""
    return text.isascii() and text.isdecimal() and len(text) <= digits


def _major_minor(version: str) -> str:
    return ".".join(str(int(part)) for part in version.split(".")[:2])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value)
