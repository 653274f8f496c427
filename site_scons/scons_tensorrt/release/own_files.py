"""The files that this package wrote: those that a receipt matches, and those of the state folder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.plan_header import LARGEST_ENGINE
from ..artifact.sidecar import read_sidecar
from ..artifact.state_folder import DATA_SUFFIX, StateFolder
from ..build.calibration_cache import LARGEST as LARGEST_CACHE
from ..errors import EngineError, HandoffError, SidecarError
from ..files.digest_cache import DigestCache

CACHE = re.compile(r".+\.[0-9a-f]{16}\.cache")  # of calibration
# A lock or log: the name and path ID of its engine.
_TRACE = re.compile(rf"(.+{re.escape(SUFFIX)})\.([0-9a-f]{{16}})\.(?:lock|holder|log)", re.DOTALL)


def parsed(name: str) -> EngineFilename | None:
    try:
        return EngineFilename.parse(name)
    except EngineError:
        return None


def is_ours(state: StateFolder, path: Path, digest_cache: DigestCache) -> bool:
    """Whether a receipt matches an engine, the sidecar left of one, or a converted file.

    Raises EngineError for unreadable receipts.
    """
    name = path.name
    if path.parent == state.calibration:  # calibration caches have no receipts
        return _is_calibration(path, digest_cache)
    receipts = list(state.receipts.of_file(name.removesuffix(DATA_SUFFIX)))
    if name.endswith(DATA_SUFFIX):
        stated = {receipt.details.get("data_sha256") for receipt in receipts} - {None}
        return bool(stated) and digest_of(path, digest_cache) in stated
    if parsed(name) and not os.path.lexists(path):
        with contextlib.suppress(SidecarError):
            digest = read_sidecar(path)
            return any(receipt.sha256 == digest for receipt in receipts)
        return False
    return bool(known_bytes(state, path, digest_cache))


def known_bytes(state: StateFolder, path: Path, digest_cache: DigestCache) -> set[str]:
    """The sha256 of a file that matches a receipt; empty if none matches.

    Raises EngineError for unreadable receipts.
    """
    with contextlib.suppress(OSError):  # size first: a huge sparse file takes minutes to hash
        size = path.lstat().st_size
        receipts = state.receipts.of_file(path.name)
        stated = {receipt.sha256 for receipt in receipts if receipt.size == size}
        return stated & {digest_of(path, digest_cache)} if stated else set()
    return set()


def _is_calibration(path: Path, digest_cache: DigestCache) -> bool:
    """Whether this is a calibration cache with its sidecar, or a sidecar without a cache."""
    cache = path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))
    if not CACHE.fullmatch(cache.name):
        return False
    with contextlib.suppress(SidecarError):
        stated = read_sidecar(cache)
        return (
            digest_of(cache, digest_cache, LARGEST_CACHE) == stated
            if os.path.lexists(cache)
            else path != cache
        )
    return False


def digest_of(path: Path, digest_cache: DigestCache, most: int = LARGEST_ENGINE) -> str | None:
    """The sha256 of a file of at most `most` bytes; None if it cannot be read."""
    try:
        return digest_cache.sha256(path, follow=False, most=most)
    except OSError:
        return None


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder; empty if it does not exist. Raises HandoffError for an unreadable folder:
    treating it as empty would remove the receipts of its engines."""
    try:
        return list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HandoffError(f"{folder}: {error.strerror}; nothing is pruned until it can be read") from None


def own_files(state: StateFolder, folder: Path) -> list[Path]:
    """The files of a folder below the state folder; empty behind a link."""
    return _own(state, folder, lambda entry: entry.is_file(follow_symlinks=False))


def receipt_folders(state: StateFolder) -> list[Path]:
    """The folder of each engine's receipts."""
    return own_folders(state, state.root / "receipts")


def own_folders(state: StateFolder, folder: Path) -> list[Path]:
    """The folders in a folder below the state folder; empty behind a link."""
    return _own(state, folder, lambda entry: entry.is_dir(follow_symlinks=False))


def _own(state: StateFolder, folder: Path, fits: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
    return [] if behind_link(state, folder) else [Path(e.path) for e in entries(folder) if fits(e)]


def behind_link(state: StateFolder, path: Path) -> bool:
    """Whether a path below the state folder is a link or behind one."""
    below = path.relative_to(state.root).parts
    return any(state.root.joinpath(*below[: count + 1]).is_symlink() for count in range(len(below)))


def traces(state: StateFolder) -> list[tuple[str, str, Path]]:
    """Each lock and log: the name and path ID of its engine, and its path."""
    files = (path for name in ("locks", "logs") for path in own_files(state, state.root / name))
    return [(found[1], found[2], path) for path in files if (found := _TRACE.fullmatch(path.name))]
