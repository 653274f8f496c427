"""Checks after a compile or a transfer, of the engine and of its inputs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..artifact.plan_header import cut_short, parse_header, read_head
from ..errors import EngineBuildError, HardwareMismatchError
from ..files.digest_cache import DigestCache
from .engine_spec import EngineSpec
from .inputs_held_open import changed


def check_plan(spec: EngineSpec, partial: Path, wrote: int) -> None:
    """Check the engine in `partial`, because TensorRT reports neither a short write nor other architectures.
    wrote: its size in bytes according to its writer. Raises EngineBuildError or HardwareMismatchError."""
    signature = spec.hardware.signature
    try:
        head, size = read_head(partial)
    except OSError as error:
        raise EngineBuildError(f"the compiler wrote no engine ({error.strerror})") from None
    header, fault = parse_header(head), cut_short(head, size)
    if fault is None and size != wrote:
        fault = f"it has {size} bytes, but {wrote} were written"
    if fault is None and header.product not in (None, signature.product):
        fault = f"it is a plan of {header.product}"
    if fault is not None:
        raise EngineBuildError(f"the compiler wrote an invalid engine: {fault}")
    if header.architectures is None:
        return
    if signature.rtx_default and not header.later:
        raise HardwareMismatchError(f"the engine has SM {header.architectures}, not the default target")
    wanted = signature.architectures
    if wanted and (header.later or set(wanted) != set(header.architectures)):
        raise HardwareMismatchError(f"architectures: wanted {wanted}, the engine has {header.architectures}")


def check_inputs(spec: EngineSpec, digest_cache: DigestCache) -> None:
    """Raise EngineBuildError if an input changed since it was hashed. One that was not downloaded cannot."""
    for name, path in spec.inputs().items():
        if path in spec.absent and not os.path.lexists(path):
            continue
        if _digest(digest_cache, path) != spec.ingredients[name]:
            raise changed(path, "compiled")


def _digest(digest_cache: DigestCache, path: Path) -> str | None:
    """The file's sha256; None if it is missing for longer than SCons needs to relink a file of a
    VariantDir."""
    for _ in range(20):
        try:
            return digest_cache.sha256(path)
        except FileNotFoundError:
            time.sleep(0.02)
        except OSError:
            break
    return None
