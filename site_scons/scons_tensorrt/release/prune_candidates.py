"""Find engines and files that are no longer declared.

An engine is removed if no declared engine has its name, on any known hardware, and a receipt matches its
bytes. Files that this package did not write stay. The same holds for converted files. Links below the
state folder are never followed. scons_tool/engines_prune.py leaves out what other trees may own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..artifact import sensitivity_file
from ..artifact.filename import RECORDED_SUFFIX, SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..artifact.kept_engines import KeptFolder
from ..artifact.sensitivity_file import onnx_of
from ..artifact.sidecar import sidecar_of
from ..artifact.state_folder import DATA_SUFFIX, StateFolder
from ..errors import HandoffError
from ..files.digest_cache import DigestCache
from ..values import Value
from .own_files import digest_of, entries, is_ours, own_files, own_folders, parsed, receipt_folders, traces

DAY_S = 86400.0
REPLACED = "another build replaced it"
NOT_OURS = "no receipt matches it; remove it by hand"


class Folder(Value):
    """A folder of engines. names: the declared filenames, None if unknown; why: the reason to remove
    other engines; host: a filename of the default hardware, whose folder other hosts may share, else
    None."""

    path: Path
    names: frozenset[str] | None
    why: str
    host: EngineFilename | None = None


class Item(Value):
    """A candidate for removal. path: an engine, a file of the state folder, or the receipts folder of an
    engine that is gone; group: KEEP= keeps the newest of each; age_s: seconds since it was written."""

    path: Path
    why: str
    group: tuple[str, ...]
    size: int
    age_s: float


def find(
    state: StateFolder,
    folders: Sequence[Folder],
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
    recorded = [item for folder in folders for item in _recorded(folder, steps)]
    for item in (*recorded, *_steps(state, models, steps, exports)):
        if is_ours(state, item.path, digest_cache):
            items.append(item)
        else:
            kept.append(f"{state.relative(item.path)} is kept: {NOT_OURS}")
    items += _names(state, declared | present, models)
    items += _kept(state)
    items += _figures(state, digest_cache)
    return items, kept


def _engines_in(folder: Path) -> set[str]:
    return {n for n in (e.name.removesuffix(SIDECAR_SUFFIX) for e in entries(folder)) if parsed(n)}


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


def _engine(folder: Folder, name: str) -> Item:
    path, fields = folder.path / name, EngineFilename.parse(name)
    group = (str(folder.path), fields.model, fields.precision)
    files = path, sidecar_of(path), path.with_name(name + RECORDED_SUFFIX)
    return _item(path, folder.why, group, files)


def _recorded(folder: Folder, steps: frozenset[Path]) -> Iterator[Item]:
    """Recorded files of engines that no longer declare one, on any hardware, or that are gone. Those of other
    engines to remove go with these."""
    made = {parsed(path.name.removesuffix(RECORDED_SUFFIX)) for path in steps}
    declared = {(each.model, each.precision) for each in made if each}
    for entry in entries(folder.path):
        engine = entry.name.removesuffix(RECORDED_SUFFIX)
        fields = parsed(engine) if engine != entry.name else None
        if fields is None or folder.names is None or (fields.model, fields.precision) in declared:
            continue
        if engine in folder.names or not os.path.lexists(folder.path / engine):
            group = (str(folder.path), "recorded", fields.model, fields.precision)
            path = folder.path / entry.name
            yield _item(path, "no declared engine records samples", group, (path,))


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
    for path in sorted(own_files(state, state.onnx)):
        name, _, rest = path.name.partition(".")
        precision = rest.partition(".")[0]
        declared = (name, precision) in models or (name in exports and precision == "onnx")
        if path in steps or declared or path.name.startswith("."):
            continue
        yield _item(path, "no declared engine uses it", ("onnx", name, precision), (path,))
    for path in sorted(own_files(state, state.calibration)):
        name = path.name.partition(".")[0]
        if path.name.startswith(".") or name in {model for model, _ in models}:
            continue
        cache = path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))
        if path == cache or not os.path.lexists(cache):  # a sidecar goes with its cache
            files = (cache, sidecar_of(cache))
            yield _item(path, "no declared engine uses it", ("calibration", name), files)


def _names(state: StateFolder, known: set[str], models: frozenset[tuple[str, str]]) -> Iterator[Item]:
    """Receipts, locks and logs of undeclared engines that are gone, also those of an interrupted prune."""
    left = {path.name + SUFFIX: own_files(state, path) for path in receipt_folders(state)}
    for name, _, path in traces(state):
        left.setdefault(name, []).append(path)
    for name, files in sorted(left.items()):
        fields = parsed(name)
        if fields is None or name in known or (fields.model, fields.precision) in models:
            continue
        path = state.root / "receipts" / name.removesuffix(SUFFIX)
        group = ("receipts", fields.model, fields.precision)
        yield _item(path, "its engine is gone and not declared", group, files)


def _figures(state: StateFolder, digest_cache: DigestCache) -> Iterator[Item]:
    """Figures of layers (of `sensitivity`) whose ONNX no tree with this state folder has any more."""
    found = {path: onnx_of(path) for path in own_files(state, sensitivity_file.folder(state))}
    if not any(found.values()):
        return
    top = state.root / "onnx"
    made = [path for folder in (top, *own_folders(state, top)) for path in own_files(state, folder)]
    there = {digest_of(path, digest_cache) for path in made if path.suffix == ".onnx"}
    for path, of in sorted(found.items()):
        if of and not there & {of, None}:  # None: one cannot be read
            yield _item(path, "the ONNX that it is of is gone", ("sensitivity",), (path,))


def _kept(state: StateFolder) -> Iterator[Item]:
    """Kept engines; their age is the time since they were replaced."""
    try:
        kept = KeptFolder(state.kept, 0).engines()
    except OSError as error:
        raise HandoffError(f"{state.kept}: {error.strerror}; make it readable, or remove it") from None
    for each in kept:
        fields = parsed(each.filename)
        if fields:
            group = ("kept", fields.model, fields.precision)
            yield Item(each.path, REPLACED, group, each.size, max(0.0, time.time() - each.used))


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
