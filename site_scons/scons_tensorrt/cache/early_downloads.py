"""Read-ahead: downloads what a run will ask for before it does.

An SCons job asks for one engine at a time, and an engine takes two requests, one after the other: for its
entry, then for its data. Here many are downloaded at once, so that the latency of a distant store is paid
once, not for each engine.

Until it is asked for, data is in a file without a name (O_TMPFILE), in the state folder: no other process
can open it by a path, and it disappears with this process, however that ends. Then the file gets the name of
the engine's temporary file. A read-ahead that fails prints nothing and changes nothing in the store: the
engine is then looked up as if there had been none.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files.signing_keys import TrustedKeys
from ..values import Value
from .copy_and_hash import DigestMismatch, Progress
from .entry import LARGEST, CacheEntry, EntryRejected, blob_path, entry_path, verify_entry
from .object_store import ObjectStore
from .store_threads import in_thread

AHEAD = 64  # entries that are downloaded, or being downloaded, and not asked for yet
MOST_BYTES = 1 << 30  # of data that is not asked for yet
FREE_SHARE = 4  # and no more than a quarter of the free space of the disk
THREADS, FOLDER_THREADS = 16, 4  # downloads at once, from a bucket and from a folder
THREAD = "store download"
CLOSE_S = 0.5  # how long the end of a run waits for downloads to stop
_Around = Callable[[CacheEntry, int], AbstractContextManager[Any]]


class Wanted(Value):
    """An entry that will be looked up: see CacheEntry. data: whether its data will be asked for, too; then:
    returns what will be looked up next, once this entry is known; called in another thread."""

    kind: str
    key: str
    name: str
    data: bool = True
    then: Callable[[CacheEntry], Sequence[Wanted]] = lambda entry: ()


class _Closed(Exception):
    """The run ends."""


class _Ahead:
    """One entry and its data. found: as of `ObjectStore.read`; read: set when that is known; entry: if it is
    trusted and its data wanted; size, received: bytes of the data; seconds: that its download took; done: set
    when nothing more will be downloaded."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.found: tuple[bytes, float] | None = None
        self.read = threading.Event()
        self.entry: CacheEntry | None = None
        self.size = self.received = 0
        self.seconds = 0.0
        self.error: StoreError | None = None
        self.done = threading.Event()
        self._files: dict[str, int] = {}  # descriptors by sha256

    def keep(self, sha256: str, descriptor: int) -> None:
        """Keep a file with this sha256 until it is placed."""
        self._files[sha256] = descriptor

    def place(self, sha256: str, to: Path) -> bool:
        """Give the file with this sha256 the name `to`. False if there is none, or if `to` is on another
        disk."""
        descriptor = self._files.pop(sha256, None)
        if descriptor is None:
            return False
        folder = -1
        try:
            folder = os.open(to.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            to.unlink(missing_ok=True)
            # A descriptor of the folder makes Python call linkat(), which can follow the link in /proc.
            os.link(f"/proc/self/fd/{descriptor}", to.name, dst_dir_fd=folder, follow_symlinks=True)
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
            if folder >= 0:
                os.close(folder)

    def drop(self) -> None:
        """Remove the files that were not placed."""
        while self._files:
            os.close(self._files.popitem()[1])


class ReadAhead:
    """Used by several threads. around: entered for each download, with its size in bytes."""

    def __init__(self, remote: ObjectStore, trusted: TrustedKeys) -> None:
        self._remote, self._trusted = remote, trusted
        self._most_threads = FOLDER_THREADS if remote.is_folder else THREADS
        self._folder = Path()
        self._changed = threading.Condition()
        self._queue: dict[tuple[str, str], Wanted] = {}
        self._held: dict[tuple[str, str], _Ahead] = {}  # begun, and not asked for yet
        self._asked: dict[str, list[_Ahead]] = {}  # asked for, by the sha256 of data that is not placed yet
        self._threads = self._working = 0
        self._data = True  # whether files without a name are possible
        self.around: Callable[[CacheEntry, int], AbstractContextManager[Any]] = lambda entry, size: (
            nullcontext()
        )
        self._closed = False

    # What a run does.

    def add(self, wanted: Iterable[Wanted], folder: Path, first: bool = False) -> None:
        """Download these, in this order, as far as there is room. folder: for the data, on the disk of the
        engines; first: before all others."""
        with self._changed:
            if self._closed:
                return
            self._folder = folder
            more = {(each.kind, each.key): each for each in wanted}
            self._queue = {**more, **self._queue} if first else {**self._queue, **more}
            while self._threads < min(self._most_threads, self._working + len(self._queue)):
                self._threads += 1
                in_thread(self._work, THREAD)

    def entry(self, kind: str, key: str) -> tuple[bytes, float] | None:
        """As `ObjectStore.read` of an entry, if it was downloaded; waits for one that is being downloaded.
        None if it is not, or not there. Raises StoreError."""
        with self._changed:
            self._queue.pop((kind, key), None)
            found = self._held.pop((kind, key), None)
            self._changed.notify_all()
        if found is None:
            return None
        found.read.wait()
        if found.error:
            raise found.error
        with self._changed:
            for sha256, _ in found.entry.blobs() if found.entry else ():
                self._asked.setdefault(sha256, []).append(found)
        return found.found

    def place(self, sha256: str, to: Path, progress: Progress) -> float | None:
        """Move data that was downloaded with its entry to `to`; waits for what is being downloaded. Returns
        the seconds that the download took, None if the data is not there. progress: called with the bytes
        received. Raises StoreError."""
        with self._changed:
            waiting = self._asked.get(sha256)
            found = waiting.pop() if waiting else None
        if found is None:
            return None
        while not found.done.wait(0.1):
            progress(found.received)
        if found.error:
            raise found.error
        seconds, found.seconds = found.seconds, 0.0  # of all its files: count them once
        return seconds if found.place(sha256, to) else None

    def close(self, seconds: float = CLOSE_S) -> None:
        """Stop, and remove what is not placed. seconds: how long to wait for downloads to stop."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
            # A thread that returns from obstore while the interpreter shuts down could end the process.
            self._changed.wait_for(lambda: not self._working, seconds)
            for each in [*self._held.values(), *(each for found in self._asked.values() for each in found)]:
                if each.done.is_set():
                    each.drop()
            self._held.clear()
            self._asked.clear()

    # What its threads do.

    def _work(self) -> None:
        while (each := self._next()) is not None:
            try:
                self._download(each)
            except StoreError as error:
                each.error = error
                with self._changed:
                    self._queue.clear()  # the run's own lookups report it
            except (OSError, DigestMismatch, EntryRejected, _Closed):
                pass
            finally:
                self._end(each)

    def _next(self) -> _Ahead | None:
        """The next to download, when there is room; None if there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue or len(self._held) < AHEAD)
            if not self._queue:
                self._threads -= 1
                return None
            place = next(iter(self._queue))
            each = self._held[place] = _Ahead(self._queue.pop(place))
            self._working += 1
            return each

    def _end(self, each: _Ahead) -> None:
        place = each.wanted.kind, each.wanted.key
        with self._changed:
            self._working -= 1
            if (each.error or not each.found) and self._held.get(place) is each:
                del self._held[place]
            if self._closed or each.error:
                each.drop()
            each.read.set()
            each.done.set()
            self._changed.notify_all()

    def _download(self, each: _Ahead) -> None:
        """Raises StoreError, OSError, DigestMismatch, EntryRejected, _Closed."""
        kind, key, name, data, then = each.wanted
        each.found = self._remote.read(entry_path(kind, key), LARGEST)
        if each.found is None:
            return
        entry = verify_entry(each.found[0], self._trusted, kind, key)
        if entry.name != name:
            return
        self.add(then(entry), self._folder, first=True)
        if not data:
            return
        each.entry = entry
        each.read.set()
        if self._reserve(each, entry):
            began = time.monotonic()
            with self.around(entry, each.size):
                for sha256, size in entry.blobs():
                    self._download_file(each, sha256, size)
            each.seconds = time.monotonic() - began

    def _reserve(self, each: _Ahead, entry: CacheEntry) -> bool:
        """Wait until there is room for its data, or it is asked for. False if there is none at all."""
        place, size = (entry.kind, entry.key), sum(size for _, size in entry.blobs())
        disk = os.statvfs(self._folder)
        most = min(MOST_BYTES, disk.f_bavail * disk.f_frsize // FREE_SHARE)

        def may_begin() -> bool:
            held = sum(each.size for each in self._held.values())
            return self._closed or place not in self._held or held + size <= most

        with self._changed:
            if not self._data or size > most:
                return False
            self._changed.wait_for(may_begin)
            each.size = size
            return not self._closed

    def _download_file(self, each: _Ahead, sha256: str, size: int) -> None:
        before = each.received

        def advance(done: int) -> None:
            each.received = before + done
            if self._closed:
                raise _Closed

        try:
            descriptor = os.open(self._folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except OSError:
            self._data = False
            raise
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            with os.fdopen(os.dup(descriptor), "wb") as out:
                if not self._remote.download(blob_path(sha256), sha256, size, out, advance):
                    return
            undo.pop_all()
            each.keep(sha256, descriptor)
