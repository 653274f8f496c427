"""Objects of a store: in a folder, or in a bucket of S3, GCS or Azure.

obstore talks to all of them. This module adds what it lacks: files in a folder are flushed to disk,
broken downloads resume, data is hashed in transit, and every operation has a time limit. A bad upload
is never visible: the object appears only after its last part.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import StoreError
from ..files.reading import open_file
from ..values import Value
from .bucket_pages import listed, start_of
from .copy_and_hash import PIECE, DigestMismatch, Hashing, Progress, checked, copied
from .folder_store import Folder
from .obstore_client import connect, in_words, is_kept, is_missing, is_too_short, is_unsupported
from .store_threads import SLOWEST, TIMEOUT_S, within

_T = TypeVar("_T")
PART = 16 << 20  # bytes of an upload's part; up to four in memory
SMALL_PIECE = 64 << 10  # bytes read at once from a small object
DOWNLOAD_TRIES = 3  # of a broken transfer; uploads are tried again by obstore
PATIENCE_S = 10.0  # for a silent server
_NAME = re.compile(r"[0-9a-f]{64}")  # object names: a cache key, or a sha256


class Item(Value):
    """An object. size: bytes; changed: seconds since the epoch."""

    path: str
    size: int
    changed: float


class ObjectStore:
    """One store. Every method raises StoreError if the store cannot be used."""

    def __init__(
        self,
        url: str,
        writes: bool = False,
        patience_s: float = PATIENCE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """patience_s: to connect, or until the next byte; timeout_s: for a whole operation, plus 1 s for
        each MB of a transfer."""
        self._timeout_s = timeout_s
        self.url = url.rstrip("/")
        parts = urlsplit(url)
        if parts.scheme == "file":
            _check_file(url, parts)
        root = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if root and not writes and not root.is_dir():
            raise StoreError(f"no such folder: {root}")
        self._creates: bool | None = None  # whether conditional writes work; probed once
        self._o, self._store = connect(self.url, patience_s, mkdir=writes)
        self._folder: Folder | None = None
        with self._errors():
            self._folder = Folder(root) if root else None

    @property
    def is_folder(self) -> bool:
        return self._folder is not None

    # Small objects: entries.

    def read(self, path: str, most: int = 4 << 20) -> tuple[bytes, float] | None:
        """At most the first `most` bytes of a small object, and its mtime (seconds since the epoch); None
        if there is none."""
        with self._errors():
            if self._folder:
                return self._folder.read(path, most)
            return self._if_there(lambda: self._read(path, most))

    def _read(self, path: str, most: int) -> tuple[bytes, float]:
        try:
            found = self._o.get(self._store, path, options={"range": (0, most)})
        except Exception as error:
            if is_too_short(error):
                return b"", time.time()
            raise
        data = bytearray()
        for piece in found.stream(min_chunk_size=SMALL_PIECE):  # a server may ignore the range
            data += piece
            if len(data) >= most:
                break
        return bytes(data[:most]), found.meta["last_modified"].timestamp()

    def _if_there(self, call: Callable[[], _T]) -> _T | None:
        """As `_bounded`; None if the object is missing."""
        try:
            return self._bounded(call)
        except Exception as error:
            if is_missing(error):
                return None
            raise

    def _bounded(self, call: Callable[[], _T], size: int = 0) -> _T:
        """Run `call` within the time limit of an operation on `size` bytes."""
        return call() if self._folder else within(self._timeout_s + size / SLOWEST, call)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small object unless it exists; whether it was written."""
        return self._bounded(lambda: self._create(path, data))

    def _create(self, path: str, data: bytes) -> bool:
        with self._errors():
            self._check_place(path)
            if self._creates is None:
                self._creates = self._probe()
            if self._creates:
                written = self._put_new(path, data)
            else:  # of two concurrent writers the last wins: both entries are complete
                written = self.size(path) is None
                if written:
                    self._o.put(self._store, path, data)
            if written:
                self._flush(path)
            return written

    def _probe(self) -> bool:
        """Whether this server keeps the promise of `create`: some take the condition and ignore it."""
        path = f"probe/{os.urandom(8).hex()}"
        self._check_place(path)
        try:
            self._put_new(path, b"1")
            return not self._put_new(path, b"2")
        except Exception as error:
            if is_unsupported(error):
                return False
            raise
        finally:
            with contextlib.suppress(Exception):
                self._o.delete(self._store, path)

    def _put_new(self, path: str, data: bytes) -> bool:
        try:
            self._o.put(self._store, path, data, mode="create")
            return True
        except Exception as error:
            if is_kept(error):
                return False
            raise

    def replace(self, path: str, data: bytes) -> None:
        """Write a small object, whatever was there."""
        with self._errors():
            self._check_place(path)
            self._bounded(lambda: self._o.put(self._store, path, data, use_multipart=False))
            self._flush(path)

    def remove(self, path: str) -> None:
        """Remove an object, if there is one."""
        with self._errors():
            if self._folder:
                self._folder.remove(path)
            else:
                self._if_there(lambda: self._o.delete(self._store, path))

    def size(self, path: str) -> int | None:
        """Bytes of an object; None where there is none."""
        with self._errors():
            if self._folder:
                return self._folder.size(path)
            return self._if_there(lambda: int(self._o.head(self._store, path)["size"]))

    def all_of(self, prefix: str) -> Iterator[Item]:
        """Every object directly below a prefix with a valid object name; anything else is left alone."""
        with self._errors():
            if self._folder:
                for name, size, changed in self._folder.list(prefix, _NAME.fullmatch):
                    yield Item(f"{prefix}/{name}", size, changed)
                return
            pages = iter(self._o.list(self._store, prefix, offset=start_of(prefix)))
            for each in listed(pages, prefix, self._bounded):
                if _NAME.fullmatch(each["path"].removeprefix(f"{prefix}/")):
                    yield Item(each["path"], each["size"], each["last_modified"].timestamp())

    # Large objects: streamed, hashed.

    def download(
        self,
        path: str,
        sha256: str,
        size: int,
        to: BinaryIO | None,
        progress: Progress = lambda done: None,
    ) -> bool:
        """Download an object to `to` (None: verify only); False if there is none. Reads at most `size`
        bytes. Raises DigestMismatch for another sha256 or size, and OSError as `to` does."""
        if self._folder:
            there = copied(self._folder.root / path, sha256, size, to, progress)
            if not there:
                self._folder.check_root()
            return there
        done, tries = 0, 0
        end = time.monotonic() + self._timeout_s + size / SLOWEST
        with Hashing(size) as digest:
            while done < size:
                try:
                    pieces = self._pieces(path, done, size)
                    while piece := within(end - time.monotonic(), partial(next, pieces, None)):
                        tries = 0
                        if len(piece) > size - done:
                            raise DigestMismatch(f"it has more than {size} bytes")
                        digest.update(piece)
                        if to:
                            to.write(piece)
                        done += len(piece)
                        progress(done)
                    if done != size:
                        raise DigestMismatch(f"it ends after {done} of {size} bytes")
                except _Broken as broken:
                    if is_missing(broken.cause):
                        return False
                    if is_too_short(broken.cause):
                        raise DigestMismatch(f"it ends within {done} of {size} bytes") from None
                    tries += 1
                    if tries >= DOWNLOAD_TRIES:
                        raise StoreError(in_words(broken.cause)) from None
                    time.sleep(0.1 * 3**tries)
        if digest.hexdigest() != sha256:
            raise DigestMismatch(f"its sha256 is {digest.hexdigest()[:12]}…")
        return True

    def _pieces(self, path: str, start: int, end: int) -> Iterator[bytes]:
        try:
            found = self._o.get(self._store, path, options={"range": (start, end)})
            yield from found.stream(min_chunk_size=PIECE)
        except Exception as error:
            raise _Broken(error) from None

    def upload(
        self, path: str, source: Path, sha256: str, size: int, progress: Progress = lambda done: None
    ) -> None:
        """Upload a file. Raises DigestMismatch, and writes nothing, if the file changed; OSError if it
        cannot be read."""
        with open_file(source, follow=False) as data:
            if os.fstat(data.fileno()).st_size != size:
                raise DigestMismatch(f"{source.name} was replaced during the upload")
            pieces = checked(data, source.name, sha256, progress)
            with self._errors():
                self._check_place(path)
                if size <= PART:  # one request; an iterator takes three
                    whole = b"".join(pieces)
                    self._bounded(lambda: self._o.put(self._store, path, whole, use_multipart=False), size)
                else:
                    more = {"chunk_size": PART, "max_concurrency": 4}
                    self._bounded(lambda: self._o.put(self._store, path, pieces, **more), size)
                self._flush(path)

    def _check_place(self, path: str) -> None:
        """Raises StoreError if the parent folder is a link."""
        if self._folder:
            self._folder.check(path.rpartition("/")[0])

    def _flush(self, path: str) -> None:
        """fsync a file in a folder: obstore does not, so a power cut would leave an empty file."""
        if self._folder:
            self._folder.flush(path)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DigestMismatch, StoreError):
            raise
        except Exception as error:
            if self._folder:
                self._folder.check_root()
            raise StoreError(in_words(error)) from None


def _check_file(url: str, parts: SplitResult) -> None:
    """Raises StoreError for a URL with a part that would be ignored: it would name another folder."""
    extra = parts.netloc not in ("", "localhost") or parts.query or parts.fragment
    if extra or not parts.path.startswith("/") or not parts.path.strip("/"):
        raise StoreError(f"{url}: write file:///FOLDER with an absolute path, %23 for # and %3F for ?")


class _Broken(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause
