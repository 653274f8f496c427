"""Remove one engine or file that `prune` found.

An engine's own receipts, partial files, log and lock go with it. Removal holds the engine's lock and is
safe to interrupt: first the sidecar (an engine without one is not used), then the engine, then a folder
flush, then the receipts, by which a later run finds what is left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

from ..artifact import sensitivity_file
from ..artifact.filename import RECORDED_SUFFIX, SUFFIX
from ..artifact.sidecar import read_sidecar, sidecar_of
from ..artifact.state_folder import StateFolder
from ..errors import HandoffError, SidecarError
from ..files.digest_cache import DigestCache
from ..files.engine_and_gpu_locks import engine_lock
from ..files.writing import remove_tree, sync_folder, unlink_link
from .own_files import CACHE, behind_link, is_ours, known_bytes, own_files, parsed, traces
from .prune_candidates import Item

_RECEIPT = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{16})?\.json")


def remove(
    item: Item,
    state: StateFolder,
    elsewhere: Callable[[str], set[str] | None],
    digest_cache: DigestCache,
    receipts: bool = True,
) -> None:
    """Remove one item.

    elsewhere: for a filename, the sha256 in the sidecars of other folders, None if it is declared and
    nowhere else; receipts: whether to remove its own receipts. Raises EngineError, also if its lock is
    held, and OSError.
    """
    name = item.path.name
    if item.path.parent in (state.kept, sensitivity_file.folder(state)):
        item.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            item.path.parent.rmdir()
        return
    if item.path.parent == state.root / "receipts":
        _remove_name(name + SUFFIX, state)
        return
    with _locked(state.lock(item.path), name):
        if not is_ours(state, item.path, digest_cache):
            raise HandoffError("the file changed meanwhile")
        mine = set[str]()
        if parsed(name):
            mine = known_bytes(state, item.path, digest_cache)
            with contextlib.suppress(SidecarError):
                mine.add(read_sidecar(item.path))
            sidecar_of(item.path).unlink(missing_ok=True)
            _remove_recorded(state, item.path.with_name(name + RECORDED_SUFFIX), digest_cache)
        item.path.unlink(missing_ok=True)
        if item.path.parent == state.calibration and CACHE.fullmatch(name):
            sidecar_of(item.path).unlink(missing_ok=True)  # an orphaned sidecar would be found again
        sync_folder(item.path.parent)
        others = elsewhere(name) if parsed(name) else None
        if receipts and others is None:
            _remove_receipts(state, name, None)
        elif receipts and others is not None:
            for sha256 in mine - others:
                _remove_receipts(state, name, sha256)
        _remove_traces(state, state.partial(item.path), state.lock(item.path), state.log(item.path))


def _remove_recorded(state: StateFolder, path: Path, digest_cache: DigestCache) -> None:
    """Remove what was recorded beside an engine, if a receipt matches it, with its receipts."""
    if known_bytes(state, path, digest_cache):
        path.unlink(missing_ok=True)
        _remove_receipts(state, path.name, None)
        _remove_traces(state, state.partial(path), state.lock(path), state.log(path))


def _remove_name(name: str, state: StateFolder) -> None:
    """Remove the receipts, locks, logs and partial files of an engine that is gone."""
    path_ids = sorted({path_id for engine, path_id, _ in traces(state) if engine == name})
    locks = {path_id: state.root / "locks" / f"{name}.{path_id}.lock" for path_id in path_ids}
    with contextlib.ExitStack() as held:
        for lock in locks.values():
            held.enter_context(_locked(lock, name))
        _remove_receipts(state, name, None)
        for path_id, lock in locks.items():
            log = state.root / "logs" / f"{name}.{path_id}.log"
            _remove_traces(state, state.root / "partial" / path_id, lock, log)


def _locked(lock: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of an engine; raises if another process holds it."""
    return engine_lock(lock, name, lambda holder: None, lambda: True)


def _remove_receipts(state: StateFolder, name: str, sha256: str | None) -> None:
    """Remove the receipts of the engine with this sha256, or all of this name."""
    folder = state.root / "receipts" / name.removesuffix(SUFFIX)
    for path in own_files(state, folder):
        ours = _RECEIPT.fullmatch(path.name)
        if ours and (not sha256 or path.name.endswith(f".{sha256[:16]}.json")):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_traces(state: StateFolder, partial: Path, lock: Path, log: Path) -> None:
    """Remove partial files, log and lock; the lock last, while it is held."""
    if not behind_link(state, partial.parent):
        unlink_link(partial)
        remove_tree(partial)
    for path in (log, lock.with_suffix(".holder"), lock):
        if not behind_link(state, path.parent):
            path.unlink(missing_ok=True)
