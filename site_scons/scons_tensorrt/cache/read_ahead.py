"""Read-ahead: downloads what a run will ask for before it does.

An SCons job asks for one engine at a time, and an engine takes two requests, one after the other: for its
entry, then for its data. Here many are downloaded at once, so that the latency of a distant store is paid
once, not for each engine.

Until it is claimed, data is in a file without a name (O_TMPFILE), in the state folder: no other process can
open it by a path, and it disappears with this process, however that ends. When the data is claimed, the file
gets the name of the engine's temporary file. A read-ahead that fails prints nothing and changes nothing in
the store: the engine is then looked up as if there had been none.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import StoreError
from ..files.signing_keys import TrustedKeys
from ..values import Value
from .bounded import in_thread
from .entry import LARGEST, CacheEntry, EntryRejected, blob_path, entry_path, verify_entry
from .object_store import ObjectStore
from .transfer import DigestMismatch

AHEAD = 64  # entries that are downloaded, or about to be, and not claimed
MOST_BYTES = 1 << 30  # of data that is not claimed
FREE_SHARE = 4  # no more data than a quarter of the free space of the disk
THREADS, FOLDER_THREADS = 16, 4  # downloads at once, from a bucket and from a folder
CLOSE_S = 0.5  # how long the end of a run waits for downloads to stop


class Wanted(Value):
    """An entry that will be looked up: see CacheEntry."""

    kind: str
    key: str
    name: str


class _Closed(Exception):
    """The run ends."""


class Ahead:
    """One entry and its data. found: as of `ObjectStore.read`; size, received: bytes of the data; seconds:
    that its download took."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.found: tuple[bytes, float] | None = None
        self.size = self.received = 0
        self.seconds = 0.0
        self.error: StoreError | None = None
        self.done = threading.Event()
        self._files: dict[str, int] = {}  # descriptors by sha256

    def wait(self, progress: Callable[[int, int], None]) -> None:
        """Wait until it is downloaded, or failed. progress: called with the bytes received and of all. Raises
        StoreError."""
        while not self.done.wait(0.1):
            progress(self.received, self.size)
        if self.error:
            raise self.error

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
    """Used by several threads."""

    def __init__(self, remote: ObjectStore, trusted: TrustedKeys) -> None:
        self._remote, self._trusted = remote, trusted
        self._folder = Path()
        self._most_threads = FOLDER_THREADS if remote.is_folder else THREADS
        self._changed = threading.Condition()
        self._queue: dict[tuple[str, str], Wanted] = {}
        self._held: dict[tuple[str, str], Ahead] = {}  # not claimed
        self._threads = self._working = 0
        self._data = True  # whether files without a name are possible there
        self._closed = False

    def add(self, wanted: Iterable[Wanted], folder: Path) -> None:
        """Download these, in this order, as far as there is room for them. folder: for the data, on the disk
        of the engines."""
        with self._changed:
            if self._closed:
                return
            self._folder = folder
            self._queue.update({(each.kind, each.key): each for each in wanted})
            while self._threads < min(self._most_threads, len(self._queue)):
                self._threads += 1
                in_thread(self._work)

    @contextlib.contextmanager
    def claimed(self, wanted: Wanted) -> Iterator[Ahead | None]:
        """What was downloaded for an entry, or is being downloaded; None if it was not begun or failed."""
        place = wanted.kind, wanted.key
        with self._changed:
            self._queue.pop(place, None)
            found = self._held.pop(place, None)
            self._changed.notify_all()
        try:
            yield found
        finally:
            if found:
                found.drop()

    def close(self, seconds: float = CLOSE_S) -> None:
        """Stop, and remove what is not claimed. seconds: how long to wait for downloads to stop."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
            # A thread that returns from obstore while the interpreter shuts down would end the process.
            self._changed.wait_for(lambda: not self._working, seconds)
            for each in self._held.values():
                if each.done.is_set():
                    each.drop()
            self._held.clear()

    def _work(self) -> None:
        while (each := self._next()) is not None:
            try:
                self._download(each)
            except StoreError as error:
                each.error = error
                self._give_up()
            except (OSError, DigestMismatch, EntryRejected, _Closed):
                pass
            finally:
                self._end(each)

    def _next(self) -> Ahead | None:
        """The next to download, when there is room; None if there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue or len(self._held) < AHEAD)
            if not self._queue:
                self._threads -= 1
                return None
            place = next(iter(self._queue))
            each = self._held[place] = Ahead(self._queue.pop(place))
            self._working += 1
            return each

    def _end(self, each: Ahead) -> None:
        place = each.wanted.kind, each.wanted.key
        with self._changed:
            self._working -= 1
            if self._closed or not each.found:
                if self._held.get(place) is each:
                    del self._held[place]
                each.drop()
            each.done.set()
            self._changed.notify_all()

    def _give_up(self) -> None:
        """After a failure of the store, only lookups of the run use it: they report it."""
        with self._changed:
            self._queue.clear()
            self._changed.notify_all()

    def _download(self, each: Ahead) -> None:
        """Raises StoreError, OSError, DigestMismatch, EntryRejected, _Closed."""
        kind, key, name = each.wanted
        found = self._remote.read(entry_path(kind, key), LARGEST)
        if found is None:
            return
        entry = verify_entry(found[0], self._trusted, kind, key)
        if entry.name != name:
            return
        each.found = found
        if self._reserve(each, entry):
            began = time.monotonic()
            for sha256, size in entry.blobs():
                self._download_file(each, sha256, size)
            each.seconds = time.monotonic() - began

    def _reserve(self, each: Ahead, entry: CacheEntry) -> bool:
        """Wait until there is room for its data, or it is claimed. False if there is none at all."""
        place, size = (entry.kind, entry.key), sum(size for _, size in entry.blobs())
        disk = os.statvfs(self._folder)
        most = min(MOST_BYTES, disk.f_bavail * disk.f_frsize // FREE_SHARE)

        def may_begin() -> bool:
            held = sum(each.size for each in self._held.values())
            return self._closed or place not in self._held or held + size <= most

        with self._changed:
            if self._closed or not self._data or size > most:
                return False
            self._changed.wait_for(may_begin)
            each.size = size
            return not self._closed

    def _download_file(self, each: Ahead, sha256: str, size: int) -> None:
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
