"""Installing: where what a build hands on goes, and copies that are proven while they are made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..artifact.filename import SIDECAR_SUFFIX
from ..errors import HandoffError
from ..files.reading import blocks, open_file
from ..files.writing import new_file, remove_stale, sync_folder

DEFAULT_PREFIX = "/usr/local"
MODE = 0o644  # as `install -m 0644`: an image must not depend on the umask of who packed it


def place(folder: str, arguments: Mapping[str, str]) -> str:
    """Where `folder` is installed, an absolute path or one below the top.

    arguments: of the command line; install_root, PREFIX or prefix, and DESTDIR count, as
    OpenEmbedded's scons.bbclass and GNU's conventions give them. A relative folder is below the
    prefix, an absolute one is not:

        >>> place("share/engines", {"install_root": "/image/usr", "PREFIX": "/usr", "prefix": "/usr"})
        '/image/usr/share/engines'
        >>> place("share/engines", {"DESTDIR": "/target", "PREFIX": "/usr"})
        '/target/usr/share/engines'
        >>> place("/opt/engines", {"install_root": "/image/usr", "PREFIX": "/usr", "prefix": "/usr"})
        '/image/opt/engines'

    Raises HandoffError.
    """
    if not folder or ".." in folder.split("/"):
        raise HandoffError(f"folder {folder!r}: name one that stays below where it is installed")
    prefix, root = _prefix(arguments), arguments.get("install_root", "")
    destination = arguments.get("DESTDIR", "")
    if not os.path.isabs(folder):
        whole = root or (_below(destination, prefix) if destination else prefix)
        return os.path.normpath(os.path.join(whole, folder))
    if not destination and root:
        inner = os.path.normpath(prefix)
        if not os.path.normpath(root).endswith(inner):
            raise HandoffError(
                f"install_root={root} does not end in PREFIX={prefix}, so that nothing says where the "
                f"absolute {folder} goes; give DESTDIR= too"
            )
        destination = os.path.normpath(root)[: -len(inner)] or "/"
    return _below(destination, folder) if destination else os.path.normpath(folder)


def _prefix(arguments: Mapping[str, str]) -> str:
    upper, lower = arguments.get("PREFIX", ""), arguments.get("prefix", "")
    if upper and lower and upper != lower:
        raise HandoffError(f"PREFIX={upper} and prefix={lower} differ; give them alike")
    return upper or lower or DEFAULT_PREFIX


def _below(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path.lstrip("/")))


def install_engine(source: Path, target: Path, sha256: str) -> None:
    """Copy an engine and write its sidecar beside it. Raises HandoffError when the bytes that were
    copied are not those of `sha256`, and OSError; what stood there before then stands."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        copied = _copy(source, temporary)
        if copied != sha256:
            raise HandoffError(
                f"{source}: its bytes changed while it was installed ({copied[:12]}, not "
                f"{sha256[:12]}); run again"
            )
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    install_bytes(target.with_name(target.name + SIDECAR_SUFFIX), sha256.encode("ascii"))


def install_bytes(target: Path, data: bytes) -> None:
    """Write a small file. Raises OSError; what stood there before then stands."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        with new_file(temporary) as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), MODE)
            os.fsync(out.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    remove_stale(target.parent)


def _copy(source: Path, temporary: Path) -> str:
    """Hex sha256 of the bytes that were written, which are those that were read."""
    digest = hashlib.sha256()
    with open_file(source, follow=False) as data, new_file(temporary) as out:
        for block in blocks(data):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fchmod(out.fileno(), MODE)
        os.fsync(out.fileno())
    return digest.hexdigest()


def _temporary(target: Path) -> Path:
    """A name for a copy on its way. Those of killed installations go: an image would be packed with
    them."""
    import glob  # of no use where nothing is installed

    for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        if not os.path.exists(f"/proc/{left.name.split('.')[-2]}"):
            left.unlink(missing_ok=True)
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")
