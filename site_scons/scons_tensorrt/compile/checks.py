"""What is checked around a compile, because neither TensorRT nor a filesystem says it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import EngineBuildError, SignatureError
from ..integrity.memo import DigestMemo
from ..integrity.plan import read_header, why_not_whole
from .process import Compiled
from .wanted import Wanted


def check_plan(wanted: Wanted, partial: Path, made: Compiled) -> None:
    """What TensorRT leaves unsaid: a short write, other architectures than were asked for.

    Raises EngineBuildError or SignatureError.
    """
    signature = wanted.hardware.signature
    try:
        size = partial.stat().st_size
        fault = why_not_whole(partial)
        header = read_header(partial)
    except OSError as error:
        raise EngineBuildError(f"the compiler left no engine ({error.strerror})") from None
    if fault is None and size != made.size:
        fault = f"it has {size} bytes, and the compiler wrote {made.size}"
    if fault is None and header.product not in (None, signature.product):
        fault = f"it is a plan of {header.product}"
    if fault is not None:
        raise EngineBuildError(f"the compiler left no whole engine: {fault}")
    wanted_sms = signature.architectures
    if wanted_sms and header.architectures and set(wanted_sms) != set(header.architectures):
        raise SignatureError(f"architectures: wanted {wanted_sms}, the plan has {header.architectures}")


def stamps_of(wanted: Wanted) -> dict[str, tuple[int, ...]]:
    """What changes when an input is written to or swapped, even if the old bytes come back."""
    stamps: dict[str, tuple[int, ...]] = {}
    for name, path in wanted.inputs().items():
        try:
            stat = os.stat(path)
        except OSError:
            continue  # the digest will say it
        moved = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        # A hard link made meanwhile (a VariantDir's copy) moves the ctime too, and no byte.
        stamps[name] = (*moved, stat.st_ctime_ns, stat.st_nlink)
    return stamps


def check_inputs(wanted: Wanted, memo: DigestMemo, before: Mapping[str, tuple[int, ...]]) -> None:
    """Raise EngineBuildError when an input is not what it was at `before`, see `stamps_of`."""
    after = stamps_of(wanted)
    for name, path in wanted.inputs().items():
        old, new = before.get(name), after.get(name)
        same = old is not None and new is not None and old[:4] == new[:4]
        if same and old and new and old[4] != new[4]:
            same = old[5] != new[5]
        try:
            same = same and memo.sha256(path) == wanted.ingredients[name]
        except OSError:
            same = False
        if not same:
            raise EngineBuildError(f"{path.name} changed while it was compiled; run again")
