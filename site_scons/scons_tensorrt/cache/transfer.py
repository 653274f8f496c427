"""Transfers that hash the data as it moves."""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StoreError
from ..files.reading import is_none, open_file

PIECE = 4 << 20  # bytes
Progress = Callable[[int], None]  # called with the bytes done so far


class DigestMismatch(Exception):
    """The data does not match its sha256 or size; the text says how."""


class Hashing:
    """A sha256 computed during a transfer, for a large one in a thread; final after the `with`."""

    def __init__(self, size: int) -> None:
        self._digest = hashlib.sha256()
        self._queue: queue.Queue[bytes] | None = None
        if size > 2 * PIECE:
            self._queue = queue.Queue(4)
            self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)

    def __enter__(self) -> Hashing:
        if self._queue:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._queue:
            self._queue.put(b"")
            self._thread.join()

    def _work(self) -> None:
        assert self._queue
        while piece := self._queue.get():
            self._digest.update(piece)

    def update(self, piece: bytes) -> None:
        if self._queue:
            self._queue.put(piece)
        else:
            self._digest.update(piece)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def copied(path: Path, sha256: str, size: int, to: BinaryIO | None, progress: Progress) -> bool:
    """`ObjectStore.download` from a folder: the kernel copies the file, and the copy is hashed during the
    flush. obstore would pass it through this process twice, 8 KiB at a time."""
    try:
        source = open_file(path, follow=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if is_none(error):
            raise DigestMismatch("it is not a regular file") from None
        raise StoreError(f"{path}: {error.strerror}") from None
    with source:
        if to is None:
            _look(source, sha256, size, progress)
            return True
        done = _kernel_copy(source.fileno(), to.fileno(), size)
    if done != size:
        raise DigestMismatch(f"it ends after {done} of {size} bytes")
    with (
        ThreadPoolExecutor(1) as pool,
        open(f"/proc/self/fd/{to.fileno()}", "rb", buffering=0) as made,
    ):
        flushed = pool.submit(os.fdatasync, to.fileno())
        _look(made, sha256, size, progress)
        flushed.result()  # the kernel reports an error once: a later fsync would miss it
    return True


def _look(data: Any, sha256: str, size: int, progress: Progress) -> None:
    """Raise DigestMismatch if the first `size` bytes do not have this sha256."""
    digest, done = hashlib.sha256(), 0
    while piece := data.read(min(PIECE, size - done)):
        digest.update(piece)
        done += len(piece)
        progress(done)
    if done != size:
        raise DigestMismatch(f"it ends after {done} of {size} bytes")
    if digest.hexdigest() != sha256:
        raise DigestMismatch(f"its sha256 is {digest.hexdigest()[:12]}…")


def _kernel_copy(source: int, to: int, size: int) -> int:
    """Copy at most `size` bytes; returns the count. Raises OSError."""
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, to, size - done)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            piece = os.read(source, min(PIECE, size - done))  # another file system, or an old kernel
            count = os.write(to, piece)
            if count < len(piece):
                os.lseek(source, count - len(piece), os.SEEK_CUR)
        if not count:
            break
        done += count
    return done


def checked(data: Any, name: str, sha256: str, progress: Progress) -> Iterator[bytes]:
    """A file's bytes. Raises DigestMismatch after the last piece if the file changed, which aborts the
    upload."""
    digest, done = hashlib.sha256(), 0
    while piece := data.read(PIECE):
        digest.update(piece)
        done += len(piece)
        progress(done)
        yield piece
    if digest.hexdigest() != sha256:
        raise DigestMismatch(f"{name} was replaced during the upload")
