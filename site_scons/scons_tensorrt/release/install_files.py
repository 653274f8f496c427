"""Install engines: where the files go, and copies that are hashed as they are written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.sidecar import sidecar_bytes
from ..errors import HandoffError
from ..files.reading import blocks, open_file
from ..files.writing import replacing

DEFAULT_PREFIX = "/usr/local"
MODE = 0o644  # fixed, so that an image does not depend on the umask of its build


def place(folder: str, arguments: Mapping[str, str]) -> str:
    """The path at which `folder` is installed.

    arguments: of the command line. Reads install_root, PREFIX or prefix, and DESTDIR, as OpenEmbedded's
    scons.bbclass and the GNU conventions define them. A relative folder is below the prefix:

        >>> place("share/engines", {"install_root": "/image/usr", "PREFIX": "/usr", "prefix": "/usr"})
        '/image/usr/share/engines'
        >>> place("share/engines", {"DESTDIR": "/target", "PREFIX": "/usr"})
        '/target/usr/share/engines'
        >>> place("/opt/engines", {"install_root": "/image/usr", "PREFIX": "/usr", "prefix": "/usr"})
        '/image/opt/engines'

    Raises HandoffError.
    """
    if not folder or ".." in folder.split("/"):
        raise HandoffError(f"folder {folder!r}: use a folder inside the installation prefix")
    prefix, root = _prefix(arguments), arguments.get("install_root", "")
    destination = arguments.get("DESTDIR", "")
    if not os.path.isabs(folder):
        whole = root or (_below(destination, prefix) if destination else prefix)
        return os.path.normpath(os.path.join(whole, folder))
    if not destination and root:
        inner = os.path.normpath(prefix)
        if not os.path.normpath(root).endswith(inner):
            raise HandoffError(
                f"install_root={root} does not end in PREFIX={prefix}, so the location of the "
                f"absolute {folder} is unknown; set DESTDIR= too"
            )
        destination = os.path.normpath(root)[: -len(inner)] or "/"
    return _below(destination, folder) if destination else os.path.normpath(folder)


def _prefix(arguments: Mapping[str, str]) -> str:
    upper, lower = arguments.get("PREFIX", ""), arguments.get("prefix", "")
    if upper and lower and upper != lower:
        raise HandoffError(f"PREFIX={upper} and prefix={lower} differ; set only one")
    return upper or lower or DEFAULT_PREFIX


def _below(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path.lstrip("/")))


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
