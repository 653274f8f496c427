"""Decides which engine is kept when another replaces it, and reuses one that is not in place: one that was
kept, or one of another folder or model of the tree.

Kept engines are those that an engine of another key replaced (artifact/kept_engines.py). An engine of another
model has the wanted bytes if its ingredients are the same: the model's name is only in the filename. Neither
is trusted: the bytes are hashed before an engine is kept, and again before it is reused. If the engine in
place was altered, a new one is compiled all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..artifact.cache_key import make_key
from ..artifact.kept_engines import DEFAULT, KeptFolder, cache_size, copy_engine
from ..artifact.receipt import Receipt
from ..artifact.sidecar import read_sidecar
from ..artifact.state_folder import StateFolder
from ..errors import EngineError
from ..files.digest_cache import DigestCache, sha256_file
from ..files.reading import is_none
from ..values import Value
from .engine_spec import EngineSpec, made_from
from .up_to_date import NOT_DOWNLOADED

KEPT = "kept"
# Codes of a check that found nothing altered, see build/up_to_date.py.
_UNALTERED = ("new", "changed", "receipt_missing", "engine_missing", "engine_other", NOT_DOWNLOADED)


def cache_size_here() -> int:
    """The limit of kept engines, in bytes, from the environment. Raises RecipeError."""
    return cache_size(os.environ.get("TRT_CACHE_SIZE") or DEFAULT, "TRT_CACHE_SIZE")


class Reusable(Value):
    """An engine with the wanted bytes, according to its receipt. origin: for messages, "kept" or "copied from
    <path>"; own: whether it has the wanted filename, not that of another model."""

    path: Path
    receipt: Receipt
    origin: str
    own: bool


class Reused(Value):
    """An engine that was brought to the place of a compiled one. details: for its receipt."""

    receipt: Receipt
    details: Mapping[str, Any]
    origin: str


class ReusableEngines:
    """limit: of the kept engines, in bytes; say: print a line; alone: use kept engines alone, not those of
    other folders and models."""

    def __init__(
        self,
        state: StateFolder,
        digest_cache: DigestCache,
        limit: int,
        say: Callable[[str], None] = lambda text: None,
        alone: bool = False,
    ) -> None:
        self._state = state
        self._digest_cache = digest_cache
        self._folder = KeptFolder(state.kept, limit)
        self._limit = limit
        self._say = say
        self._alone = alone

    def find(self, spec: EngineSpec, code: str) -> Reusable | None:
        """What `take` would use. Writes nothing."""
        for found in self._candidates(spec, code):
            with contextlib.suppress(OSError):
                if self._digest_cache.sha256(found.path, follow=False) == found.receipt.sha256:
                    return found
        return None

    def take(self, spec: EngineSpec, code: str, partial: Path, equal: Path | None = None) -> Reused | None:
        """Write the engine to `partial`; None if there is none, and then what is in the file does not count.
        code: of the up-to-date check; equal: an engine of this run with the same inputs. A kept engine stays
        kept until `replaced`, so that a run that is killed loses nothing."""
        for found in self._candidates(spec, code, equal):
            try:
                if found.own and found.origin == KEPT:
                    self._folder.take(found.path, partial)
                else:
                    copy_engine(found.path, partial)
                if sha256_file(partial, follow=False) == found.receipt.sha256:
                    return Reused(found.receipt, self._details(found, spec), found.origin)
                if found.origin == KEPT:
                    found.path.unlink()
                    self._say_of(found, "is damaged and was removed")
            except FileNotFoundError:  # another build took it
                continue
            except OSError as error:
                if found.origin == KEPT:
                    self._say_of(found, f"is not used: {error.strerror}")
        return None

    def _say_of(self, kept: Reusable, problem: str) -> None:
        self._say(f"engines: the kept engine {self._state.relative(kept.path)} {problem}")

    def _details(self, found: Reusable, spec: EngineSpec) -> Mapping[str, Any]:
        """The receipt's details; for another model's engine, with this one's name and inputs."""
        before = found.receipt.details
        return before if found.own else details_of_copy(before, found.receipt.filename, spec, self._state)

    def _candidates(self, spec: EngineSpec, code: str, equal: Path | None = None) -> Iterator[Reusable]:
        if code not in _UNALTERED:
            return
        with contextlib.suppress(OSError, EngineError):  # an unreadable folder
            folders: list[Path] | None = None  # a large tree has large folders
            for name, key in self._names(spec, equal, new=code in ("new", NOT_DOWNLOADED)):
                own = name == spec.filename
                for receipt in self._state.receipts.of_key(name, key):
                    kept = self._folder.path(name, receipt.sha256)
                    if self._limit and _size(kept) is not None:
                        yield Reusable(kept, receipt, KEPT, own)
                    if folders is None:
                        folders = list(self._folders(spec.engine, equal))
                    for folder in folders:
                        path = folder / name
                        if path != spec.engine and _size(path) == receipt.size and _states(path, receipt):
                            origin = f"copied from {self._state.relative(path)}"
                            yield Reusable(path, receipt, origin, own)

    def _names(self, spec: EngineSpec, equal: Path | None, new: bool) -> Iterator[tuple[str, str]]:
        """The filename and key of engines with the wanted bytes: its own, and for a new name, those of other
        models. For every engine that changed, only `equal` is looked for: others take all receipts."""
        yield spec.filename, spec.key
        if equal and equal.name != spec.filename:
            yield equal.name, make_key(equal.name, spec.ingredients)
        if new and not self._alone:
            for name in self._state.receipts.same_inputs(spec.filename, spec.ingredients):
                yield name, make_key(name, spec.ingredients)

    def _folders(self, engine: Path, equal: Path | None) -> Iterator[Path]:
        """The folder of the engine `equal`; that of the engine, its parent, and the subfolders of both:
        engines of a named hardware are one level below those of the default host."""
        if self._alone:
            return
        if equal:
            yield equal.parent
        above = [f for f in (engine.parent, engine.parent.parent) if f.is_relative_to(self._state.top)]
        yield from above
        for folder in above:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                inner = [Path(each.path) for each in entries if each.is_dir(follow_symlinks=False)]
                yield from sorted(each for each in inner if each != engine.parent)

    def keep(self, spec: EngineSpec, copy: bool = False) -> None:
        """Keep the engine that is in place, if a receipt of another key matches it and its sidecar. copy: the
        file may be written to. An error is ignored: the engine is compiled again when it is needed."""
        if not self._limit:
            return
        with contextlib.suppress(OSError, EngineError):
            stated = read_sidecar(spec.engine)
            receipts = [r for r in self._state.receipts.of_file(spec.filename) if r.sha256 == stated]
            replaced = receipts and all(receipt.key != spec.key for receipt in receipts)
            if replaced and self._digest_cache.sha256(spec.engine, follow=False) == stated:
                self._folder.keep(spec.engine, stated, copy)

    def replaced(self, spec: EngineSpec, sha256: str) -> None:
        """The engine in place has these bytes now, so they need not be kept."""
        if self._limit:
            with contextlib.suppress(OSError):
                self._folder.drop(spec.filename, sha256)


def details_of_copy(
    before: Mapping[str, Any], filename: str, spec: EngineSpec, state: StateFolder
) -> dict[str, Any]:
    """The details of a receipt, of the engine `filename`, for an engine with the same bytes."""
    details = {name: value for name, value in before.items() if name not in ("log", "made_by")}
    return {**details, **made_from(spec, state), "copied": {"from": filename}}


def _size(path: Path) -> int | None:
    """The size of a file, in bytes; None if there is none."""
    try:
        return os.lstat(path).st_size
    except OSError as error:
        if is_none(error):
            return None
        raise


def _states(engine: Path, receipt: Receipt) -> bool:
    """Whether an engine's sidecar states the sha256 of the receipt."""
    try:
        return read_sidecar(engine) == receipt.sha256
    except EngineError:
        return False
