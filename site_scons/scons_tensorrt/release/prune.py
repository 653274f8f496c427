"""Prune engines and files that are no longer declared.

An engine is removed only if no declared engine has its name on any known hardware and a receipt matches
its bytes: files that this package did not write are kept. The same holds for converted files. An engine's
own receipts, partial files, log and lock go with it. Links below the state folder are never followed.

Removal holds the engine's lock and is safe to interrupt: first the sidecar (an engine without one is not
used), then the engine, then a folder flush, then the receipts, by which a later run finds what is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.plan import LARGEST_ENGINE
from ..artifact.sidecar import read_sidecar, sidecar_of
from ..artifact.state import DATA_SUFFIX, StateFolder
from ..build.calibration import LARGEST as LARGEST_CACHE
from ..errors import EngineError, HandoffError, SidecarError
from ..files.digest_cache import DigestCache
from ..files.locks import engine_lock
from ..files.writing import remove_tree, sync_folder, unlink_link

DAY_S = 86400.0
_RECEIPT = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{16})?\.json")
_CACHE = re.compile(r".+\.[0-9a-f]{16}\.cache")
# A lock or log: the name and path ID of its engine.
_TRACE = re.compile(rf"(.+{re.escape(SUFFIX)})\.([0-9a-f]{{16}})\.(?:lock|holder|log)", re.DOTALL)
NOT_OURS = "no receipt matches it; remove it by hand"


class Folder(NamedTuple):
    """A folder of engines. names: the declared filenames, None if unknown; why: the reason to remove
    other engines; host: a filename of the default hardware, whose folder other hosts may share, else
    None."""

    path: Path
    names: frozenset[str] | None
    why: str
    host: EngineFilename | None = None


class Item(NamedTuple):
    """A candidate for removal. path: an engine, a file of the state folder, or the receipts folder of an
    engine that is gone; group: KEEP= keeps the newest of each; age_s: seconds since it was written."""

    path: Path
    why: str
    group: tuple[str, ...]
    size: int
    age_s: float


def find(
    state: StateFolder,
    folders: Iterable[Folder],
    models: frozenset[tuple[str, str]],
    steps: frozenset[Path],
    exports: frozenset[str],
    digest_cache: DigestCache,
) -> tuple[list[Item], list[str]]:
    """The candidates for removal, and messages on files that are kept.

    models: the declared (name, precision) pairs; steps: ONNX files that this run declares; exports: the
    names of exported ONNX.
    """
    items: list[Item] = []
    kept: list[str] = []
    declared: set[str] = set()
    present: set[str] = set()
    for folder in folders:
        names = _engines_in(folder.path)
        present |= names
        declared |= folder.names or set()
        if folder.names is None:
            kept += [folder.why] if names else []
            continue
        for name in sorted(names - folder.names):
            why = _why_kept(state, folder, name, models, digest_cache)
            if why:
                kept.append(f"{state.relative(folder.path / name)} is kept: {why}")
            else:
                items.append(_engine(folder, name))
    for item in _steps(state, models, steps, exports):
        if is_ours(state, item.path, digest_cache):
            items.append(item)
        else:
            kept.append(f"{state.relative(item.path)} is kept: {NOT_OURS}")
    items += _names(state, declared | present, models)
    return items, kept


def _engines_in(folder: Path) -> set[str]:
    return {n for n in (e.name.removesuffix(SIDECAR_SUFFIX) for e in entries(folder)) if parsed(n)}


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder; empty if it does not exist. Raises HandoffError for an unreadable folder:
    treating it as empty would remove the receipts of its engines."""
    try:
        return list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HandoffError(f"{folder}: {error.strerror}; nothing is pruned until it can be read") from None


def parsed(name: str) -> EngineFilename | None:
    try:
        return EngineFilename.parse(name)
    except EngineError:
        return None


def _why_kept(
    state: StateFolder,
    folder: Folder,
    name: str,
    models: frozenset[tuple[str, str]],
    digest_cache: DigestCache,
) -> str | None:
    """Why an undeclared engine is kept, None if it can go."""
    found = EngineFilename.parse(name)
    if folder.host and (found.model, found.precision) in models:
        mine = (found.sm, found.runtime[:3]) == (folder.host.sm, folder.host.runtime[:3])
        if not mine:
            return "another host may need it; prune there or remove it by hand"
    return None if is_ours(state, folder.path / name, digest_cache) else NOT_OURS


def is_ours(state: StateFolder, path: Path, digest_cache: DigestCache) -> bool:
    """Whether a receipt matches an engine, the sidecar left of one, or a converted file.

    Raises EngineError for unreadable receipts.
    """
    name = path.name
    if path.parent == state.calibration:  # calibration caches have no receipts
        return _is_calibration(path, digest_cache)
    receipts = list(state.receipts.all_of(name.removesuffix(DATA_SUFFIX)))
    if name.endswith(DATA_SUFFIX):
        stated = {receipt.details.get("data_sha256") for receipt in receipts} - {None}
        return bool(stated) and _digest(path, digest_cache) in stated
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
        receipts = state.receipts.all_of(path.name)
        stated = {receipt.sha256 for receipt in receipts if receipt.size == size}
        return stated & {_digest(path, digest_cache)} if stated else set()
    return set()


def _is_calibration(path: Path, digest_cache: DigestCache) -> bool:
    """Whether this is a calibration cache with its sidecar, or a sidecar without a cache."""
    cache = path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))
    if not _CACHE.fullmatch(cache.name):
        return False
    with contextlib.suppress(SidecarError):
        stated = read_sidecar(cache)
        return (
            _digest(cache, digest_cache, LARGEST_CACHE) == stated if os.path.lexists(cache) else path != cache
        )
    return False


def _digest(path: Path, digest_cache: DigestCache, most: int = LARGEST_ENGINE) -> str | None:
    try:
        return digest_cache.sha256(path, follow=False, most=most)
    except OSError:
        return None


def _receipts(state: StateFolder, name: str) -> Path:
    return state.root / "receipts" / name.removesuffix(SUFFIX)


def _engine(folder: Folder, name: str) -> Item:
    path, fields = folder.path / name, EngineFilename.parse(name)
    group = (str(folder.path), fields.model, fields.precision)
    return _item(path, folder.why, group, (path, sidecar_of(path)))


def _item(path: Path, why: str, group: tuple[str, ...], files: Iterable[Path]) -> Item:
    size, last = 0, 0.0
    for file in files:
        with contextlib.suppress(OSError):
            found = file.lstat()
            size, last = size + found.st_size, max(last, found.st_mtime)
    return Item(path, why, group, size, max(0.0, time.time() - last))


def _steps(
    state: StateFolder,
    models: frozenset[tuple[str, str]],
    steps: frozenset[Path],
    exports: frozenset[str],
) -> Iterator[Item]:
    """Converted files and calibration caches of undeclared models and precisions.

    Those of a declared one are kept even if this run's hardware needs none.
    """
    for path in sorted(_own_files(state, state.onnx)):
        name, _, rest = path.name.partition(".")
        precision = rest.partition(".")[0]
        declared = (name, precision) in models or (name in exports and precision == "onnx")
        if path in steps or declared or path.name.startswith("."):
            continue
        yield _item(path, "no declared engine uses it", ("onnx", name, precision), (path,))
    for path in sorted(_own_files(state, state.calibration)):
        name = path.name.partition(".")[0]
        if path.name.startswith(".") or name in {model for model, _ in models}:
            continue
        cache = path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))
        if path == cache or not os.path.lexists(cache):  # a sidecar goes with its cache
            files = (cache, sidecar_of(cache))
            yield _item(path, "no declared engine uses it", ("calibration", name), files)


def _behind_link(state: StateFolder, path: Path) -> bool:
    """Whether a path below the state folder is a link or behind one."""
    below = path.relative_to(state.root).parts
    return any(state.root.joinpath(*below[: count + 1]).is_symlink() for count in range(len(below)))


def _own_files(state: StateFolder, folder: Path) -> list[Path]:
    """The files of a folder below the state folder; empty behind a link."""
    return [] if _behind_link(state, folder) else _files_in(folder)


def _files_in(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in entries(folder) if entry.is_file(follow_symlinks=False)]


def _own_folders(state: StateFolder, folder: Path) -> list[Path]:
    """The folders in a folder below the state folder; empty behind a link."""
    if _behind_link(state, folder):
        return []
    return [Path(entry.path) for entry in entries(folder) if entry.is_dir(follow_symlinks=False)]


def _locks_and_logs(state: StateFolder) -> list[Path]:
    return [path for name in ("locks", "logs") for path in _own_files(state, state.root / name)]


def _names(state: StateFolder, known: set[str], models: frozenset[tuple[str, str]]) -> Iterator[Item]:
    """Receipts, locks and logs of undeclared engines that are gone, also those of an interrupted prune."""
    traces: dict[str, list[Path]] = {
        path.name + SUFFIX: _own_files(state, path) for path in _own_folders(state, state.root / "receipts")
    }
    for path in _locks_and_logs(state):
        found = _TRACE.fullmatch(path.name)
        if found:
            traces.setdefault(found[1], []).append(path)
    for name, files in sorted(traces.items()):
        fields = parsed(name)
        if fields is None or name in known or (fields.model, fields.precision) in models:
            continue
        group = ("receipts", fields.model, fields.precision)
        why = "its engine is gone and not declared"
        yield _item(_receipts(state, name), why, group, files)


def choose(items: Iterable[Item], keep: int, older_s: float) -> list[Item]:
    """The items to remove: older than `older_s`, and not among the newest `keep` of their group."""
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    chosen = []
    for group in groups.values():
        group.sort(key=lambda item: (item.age_s, item.path))
        chosen += [item for item in group[keep:] if item.age_s >= older_s]
    return sorted(chosen, key=_order)


def _order(item: Item) -> tuple[str, bool]:
    """External data before its ONNX: the ONNX takes the receipt with it, which the data needs."""
    name = str(item.path)
    return name.removesuffix(DATA_SUFFIX), not name.endswith(DATA_SUFFIX)


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
        item.path.unlink(missing_ok=True)
        if item.path.parent == state.calibration and _CACHE.fullmatch(name):
            sidecar_of(item.path).unlink(missing_ok=True)  # an orphaned sidecar would be found again
        sync_folder(item.path.parent)
        others = elsewhere(name) if parsed(name) else None
        if receipts and others is None:
            _remove_receipts(state, name, None)
        elif receipts and others is not None:
            for sha256 in mine - others:
                _remove_receipts(state, name, sha256)
        _remove_traces(state, state.partial(item.path), state.lock(item.path), state.log(item.path))


def _remove_name(name: str, state: StateFolder) -> None:
    """Remove the receipts, locks, logs and partial files of an engine that is gone."""
    stem = f"{name}."
    traces = [_TRACE.fullmatch(path.name) for path in _locks_and_logs(state)]
    path_ids = {found[2] for found in traces if found and found[1] == name}
    with contextlib.ExitStack() as held:
        for path_id in sorted(path_ids):
            held.enter_context(_locked(state.root / "locks" / f"{stem}{path_id}.lock", name))
        _remove_receipts(state, name, None)
        for path_id in path_ids:
            lock = state.root / "locks" / f"{stem}{path_id}.lock"
            log = state.root / "logs" / f"{stem}{path_id}.log"
            _remove_traces(state, state.root / "partial" / path_id, lock, log)


@contextlib.contextmanager
def _locked(lock: Path, name: str) -> Iterator[None]:
    """Hold the lock of an engine; raises if another process holds it."""
    with engine_lock(lock, name, lambda holder: None, lambda: True):
        yield


def _remove_receipts(state: StateFolder, name: str, sha256: str | None) -> None:
    """Remove the receipts of the engine with this sha256, or all of this name."""
    folder = _receipts(state, name)
    for path in _own_files(state, folder):
        ours = _RECEIPT.fullmatch(path.name)
        if ours and (not sha256 or path.name.endswith(f".{sha256[:16]}.json")):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_traces(state: StateFolder, partial: Path, lock: Path, log: Path) -> None:
    """Remove partial files, log and lock; the lock last, while it is held."""
    if not _behind_link(state, partial.parent):
        unlink_link(partial)
        remove_tree(partial)
    for path in (log, lock.with_suffix(".holder"), lock):
        if not _behind_link(state, path.parent):
            path.unlink(missing_ok=True)
