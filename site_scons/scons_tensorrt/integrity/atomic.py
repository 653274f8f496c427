"""Writing so that a reader, or a crash, finds the old bytes or the new ones."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

STALE_SECONDS = 24 * 3600.0


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace `path` by `data`. durable: also against a power cut (fsync of file and folder).

    Raises OSError; then `path` is untouched and no temporary is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{id(data):x}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(data)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
    remove_stale(path.parent)


def remove_stale(folder: Path) -> None:
    """Remove temporaries of `write_atomic` whose writer was killed: by age, because a writer's
    process may be another machine's."""
    with contextlib.suppress(OSError):
        for temporary in folder.glob(".*.tmp"):
            if time.time() - temporary.stat().st_mtime > STALE_SECONDS:
                temporary.unlink()
