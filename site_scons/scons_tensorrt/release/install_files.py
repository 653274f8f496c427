"""Install engines: copies that are hashed as they are written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.sidecar import sidecar_bytes
from ..errors import HandoffError
from ..files.reading import blocks, open_file
from ..files.writing import replacing

MODE = 0o644  # fixed, so that an image does not depend on the umask of its build


def install_engine(source: Path, target: Path, sha256: str) -> None:
    """Copy an engine and write its sidecar. Raises as `install_file`."""
    install_file(source, target, sha256)
    install_bytes(target.with_name(target.name + SIDECAR_SUFFIX), sidecar_bytes(sha256))


def install_file(source: Path, target: Path, sha256: str) -> None:
    """Copy a file.

    Raises HandoffError if the copy does not have this sha256, and OSError; the target is then unchanged.
    """
    with replacing(target) as out:
        copied = _copy(source, out)
        if copied != sha256:
            raise HandoffError(
                f"{source}: changed while it was installed ({copied[:12]}, not {sha256[:12]}); run again"
            )


def install_bytes(target: Path, data: bytes) -> None:
    """Write a small file. Raises OSError; the target is then unchanged."""
    with replacing(target) as out:
        os.fchmod(out.fileno(), MODE)
        out.write(data)


def _copy(source: Path, out: BinaryIO) -> str:
    """Copy a file; returns the sha256 of the bytes written."""
    digest = hashlib.sha256()
    os.fchmod(out.fileno(), MODE)
    with open_file(source, follow=False) as data:
        for block in blocks(data):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()
