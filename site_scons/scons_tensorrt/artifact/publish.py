"""Publishes an engine and its sidecar so that no crash leaves a mixed pair.

The order, tested at every crash point on ext4, xfs and btrfs:

1. engine and sidecar are written as temporaries and flushed to disk;
2. the receipt is written durably: the commit point;
3. rename engine, flush folder, rename sidecar, flush folder.

The temporary sidecar is the journal: it exists from before step 2 until the last rename. If a later
run finds it, it finishes publishing without a compile. Before step 2 the old pair is untouched. Between
the renames engine and sidecar do not match, and such a pair is never reused.

Temporaries are in the state folder if a rename from there to the engine's folder works (tested, because
a bind mount has the same device number and still refuses), else beside the engine as dotfiles. Links in
place of these files are never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from ..errors import PublishError, ReceiptError
from ..files.digest_cache import sha256_file
from ..files.reading import is_none, open_file
from ..files.writing import cause, new_file, remove_tree, sync_file, sync_folder, unlink_link
from .receipt import Receipt, ReceiptFolder
from .sidecar import sidecar_bytes, sidecar_of
from .state_folder import StateFolder
from .tree_paths import hash_of

_OURS = re.compile(r"([0-9a-f]{64}|probe)\.(?:engine|sha256|[0-9]+)")  # what a sweep may remove


class Publication:
    """Publishes one engine, under its lock."""

    def __init__(self, state: StateFolder, engine: Path, key: str) -> None:
        self._state = state
        self._engine = engine
        self._key = key
        self._in_place = False
        self._beside: list[str] | None = None  # temporaries beside the engine, once they were looked for
        # Two trees with separate state folders may share an engine folder.
        path_id = self._path_id = f"{state.path_id(engine)}-{hash_of(state.root)}"
        self._places: tuple[tuple[Path, Path], ...] = (
            (state.partial(engine) / f"{key}.engine", state.partial(engine) / f"{key}.sha256"),
            (
                engine.with_name(f".{path_id}.{key}.engine.partial"),
                engine.with_name(f".{path_id}.{key}.sha256.partial"),
            ),
        )

    def open(self) -> Path:
        """The path for the compiler's output; removes leftovers of earlier compiles.

        Raises PublishError if the engine folder or the state folder is not writable.
        """
        try:
            self._engine.parent.mkdir(parents=True, exist_ok=True)
            unlink_link(self._places[0][0].parent)
            self._places[0][0].parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            place = self._places[0] if self._can_rename() else self._places[1]
            new_file(place[0]).close()  # fail before the compile if the folder is not writable
        except OSError as error:
            raise self._error(error) from None
        self._places = (place,)
        return place[0]

    def commit(self, receipt: Receipt, receipts: ReceiptFolder) -> None:
        """Steps 1 and 2: from now on the compile is not lost. Raises PublishError."""
        engine, sidecar = self._places[0]
        try:
            sync_file(engine)
            with new_file(sidecar) as out:
                out.write(sidecar_bytes(receipt.sha256))
                out.flush()
                os.fsync(out.fileno())
            sync_folder(sidecar.parent)
            receipts.put(receipt)
        except OSError as error:
            raise self._error(error) from None

    def pending(self, receipt: Receipt) -> bool:
        """Whether this receipt's engine was compiled but not completely published.

        Raises PublishError if that cannot be read: to assume no would compile it again.
        """
        try:
            for engine, sidecar in self._places:
                if _text(sidecar) != receipt.sha256:
                    continue
                for path in (engine, self._engine):
                    if _has_bytes_of(path, receipt):
                        self._places = ((engine, sidecar),)
                        self._in_place = path == self._engine
                        return True
        except OSError as error:
            raise self._error(error) from None
        return False

    def finish(self) -> None:
        """Step 3. Raises PublishError."""
        engine, sidecar = self._places[0]
        folder = self._engine.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._in_place:
                engine.unlink(missing_ok=True)  # not the engine of the receipt, which is in place
            else:
                os.replace(engine, self._engine)
            sync_folder(folder)
            os.replace(sidecar, sidecar_of(self._engine))
            sync_folder(folder)
        except OSError as error:
            raise self._error(error) from None
        with contextlib.suppress(OSError, ReceiptError):
            self._sweep(in_place=True)
        self._tidy()

    def abandon(self) -> None:
        """Remove the temporaries of a failed compile."""
        for path in self._places[0]:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._tidy()

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):  # it may still have a finished compile of another key
            self._state.partial(self._engine).rmdir()

    def sweep(self) -> None:
        """Remove the temporaries of this engine, which is in place, and those without a receipt. Raises
        OSError and ReceiptError."""
        unlink_link(self._state.partial(self._engine))
        self._sweep(in_place=True)
        for place in self._places:
            for path in place:
                path.unlink(missing_ok=True)
        for name in ("model", "plugins", "run"):
            remove_tree(self._state.partial(self._engine) / name)
        self._tidy()

    def _sweep(self, in_place: bool = False) -> None:
        """Remove the temporaries of killed runs: those without a receipt, and engines without a journal.
        in_place: this engine is published, so journals of replaced engines are useless."""
        dot, folder = f".{self._path_id}.", self._engine.parent
        if self._beside is None:  # a folder of 10,000 engines is listed once for each that is built
            self._beside = [name for name in _names(folder) if name.startswith(dot)]
        partial = self._state.partial(self._engine)
        for place, names, before, after in (
            (partial, _names(partial), "", ""),
            (folder, self._beside, dot, ".partial"),
        ):
            for path in map(place.joinpath, names):
                name = _OURS.fullmatch(path.name.removeprefix(before).removesuffix(after))
                if not name or not path.name.endswith(after):
                    continue
                alone = not path.with_name(path.name.replace(".sha256", ".engine")).exists()
                replaced = in_place and name[1] != self._key and alone
                uncommitted = not path.with_name(path.name.replace(".engine", ".sha256")).exists()
                if replaced or uncommitted or not self._state.receipts.knows(self._engine.name, name[1]):
                    path.unlink(missing_ok=True)

    def _can_rename(self) -> bool:
        probe = self._places[0][0].with_name(f"probe.{os.getpid()}")
        there = self._engine.with_name(f".{self._path_id}.{probe.name}.partial")
        new_file(probe).close()
        try:
            os.replace(probe, there)
            there.unlink()
            return True
        except OSError as error:
            probe.unlink(missing_ok=True)
            if error.errno == errno.EXDEV:
                return False
            raise

    def _error(self, error: OSError) -> PublishError:
        where = self._state.relative(error.filename2 or error.filename or self._engine)
        return PublishError(
            f"{where}: {cause(error, 'make room or make the folder writable, then run again')}"
        )


def _names(folder: Path) -> list[str]:
    """The names in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: Path) -> str | None:
    try:
        with open_file(path, follow=False) as source:
            return source.read(65).decode("ascii", "replace")
    except OSError as error:
        if is_none(error):
            return None
        raise


def _has_bytes_of(path: Path, receipt: Receipt) -> bool:
    try:
        return path.lstat().st_size == receipt.size and sha256_file(path, False) == receipt.sha256
    except OSError as error:
        if is_none(error):
            return False
        raise
