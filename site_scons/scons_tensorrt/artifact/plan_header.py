"""The header of a plan, read without a runtime.

TensorRT for RTX 1.x: `vtrt` at 0, total size u64 at 16, version bytes at 24, capability mask at 32, in which
bit 6 stands for architectures later than those listed. TensorRT: `ftrt` at 0, serialization version u32 at 4,
version bytes at 24. Neither layout is documented: these are from plans of RTX 1.7.1 and published TensorRT
plans. Anything else is treated as unknown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..files.reading import open_file
from ..hardware.signature import PRODUCTS
from .filename import EngineFilename

RTX_MAGIC = b"vtrt"
TENSORRT_MAGIC = b"ftrt"
HEADER_BYTES = 64
LARGEST_ENGINE = 1 << 40  # bytes; a larger file is sparse, and would take hours to hash
LATER = 0x40
MASK_SM = {0x01: 75, 0x02: 80, 0x04: 86, 0x08: 89, 0x10: 120, 0x20: 121}


@dataclass(frozen=True)
class PlanHeader:
    """product: None if unknown; size: of the plan, as stated; architectures: SMs; later: whether it
    also runs on later architectures."""

    product: str | None
    size: int | None = None
    version: tuple[int, ...] | None = None
    architectures: tuple[int, ...] | None = None
    later: bool = False


def read_head(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """The first HEADER_BYTES bytes of a plan file, and its size. Raises OSError."""
    with open_file(path, follow=False) as source:
        return source.read(HEADER_BYTES), os.fstat(source.fileno()).st_size


def parse_header(data: bytes) -> PlanHeader:
    """The header in the first HEADER_BYTES bytes of a plan; unknown if there are fewer."""
    if len(data) < HEADER_BYTES:
        return PlanHeader(None)
    version = tuple(data[24:28])
    if data[:4] == RTX_MAGIC:
        mask = int.from_bytes(data[32:36], "little")
        known = mask & ~sum((*MASK_SM, LATER)) == 0
        architectures = tuple(sm for bit, sm in MASK_SM.items() if mask & bit)
        return PlanHeader(
            "tensorrt_rtx",
            int.from_bytes(data[16:24], "little"),
            version,
            architectures if known and architectures else None,
            bool(known and architectures and mask & LATER),
        )
    if data[:4] == TENSORRT_MAGIC:
        return PlanHeader("tensorrt", None, version)
    return PlanHeader(None)


def cut_short(data: bytes, size: int) -> str | None:
    """Why a file of `size` bytes that begins with `data` (HEADER_BYTES of them) is not a complete plan;
    None if it may be."""
    if size == 0:
        return "it is empty"
    if len(data) < HEADER_BYTES and data[:4] == RTX_MAGIC:
        return f"it ends inside its header, after {len(data)} bytes"
    header = parse_header(data)
    if header.size is not None and header.size != size:
        return f"it has {size} bytes where its header promises {header.size}"
    return None


def too_large(size: int) -> str | None:
    """Why a file of this size cannot be an engine."""
    return f"it has {size} bytes, too many for an engine" if size > LARGEST_ENGINE else None


def why_not_named(header: PlanHeader, name: EngineFilename) -> str | None:
    """How a plan's header contradicts its filename; None if it does not."""
    if header.product is None:
        return None
    if not name.runtime.startswith(PRODUCTS[header.product]):
        return f"it is a plan of {header.product}, and its name says {name.runtime}"
    found = header.architectures
    if found and (min(found) < name.sm if name.plus else found != (name.sm,)):
        listed, plus = ", ".join(map(str, found)), "plus" * name.plus
        return f"its plan is for SM {listed}, and its name says sm{name.sm}{plus}"
    return None
