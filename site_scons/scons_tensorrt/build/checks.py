"""What is checked around a compile, because neither TensorRT nor a filesystem says it."""

from __future__ import annotations

import time
from pathlib import Path

from ..artifact.plan import cut_short, parse_header, read_head
from ..errors import EngineBuildError, HardwareMismatchError
from ..files.digest_cache import DigestCache
from .pinned_inputs import changed
from .spec import EngineSpec


def check_plan(spec: EngineSpec, partial: Path, wrote: int) -> None:
    """What TensorRT leaves unsaid: a short write, other architectures than were asked for. wrote:
    the bytes that the plan has by whoever wrote it.

    Raises EngineBuildError or HardwareMismatchError.
    """
    signature = spec.hardware.signature
    try:
        head, size = read_head(partial)
    except OSError as error:
        raise EngineBuildError(f"the compiler left no engine ({error.strerror})") from None
    header, fault = parse_header(head), cut_short(head, size)
    if fault is None and size != wrote:
        fault = f"it has {size} bytes, and {wrote} were written"
    if fault is None and header.product not in (None, signature.product):
        fault = f"it is a plan of {header.product}"
    if fault is not None:
        raise EngineBuildError(f"the compiler left no whole engine: {fault}")
    wanted_sms = signature.architectures
    if wanted_sms and header.architectures and set(wanted_sms) != set(header.architectures):
        raise HardwareMismatchError(
            f"architectures: wanted {wanted_sms}, the plan has {header.architectures}"
        )


def check_inputs(spec: EngineSpec, digest_cache: DigestCache) -> None:
    """Raise EngineBuildError when other bytes stand under the name of an input by now."""
    for name, path in spec.inputs().items():
        if _digest(digest_cache, path) != spec.ingredients[name]:
            raise changed(path, "compiled")


def _digest(digest_cache: DigestCache, path: Path) -> str | None:
    """The file's sha256; None when it is gone, and not only for the moment in which SCons links a
    VariantDir's copy anew."""
    for _ in range(20):
        try:
            return digest_cache.sha256(path)
        except FileNotFoundError:
            time.sleep(0.02)
        except OSError:
            break
    return None
