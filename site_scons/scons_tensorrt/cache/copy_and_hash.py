"""Copies data and hashes it as it moves. Downloads, and how often they are tried: object_store.py."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StoreError
from ..files.reading import is_none, open_file
from .store_threads import in_thread

PIECE = 4 << 20  # bytes
PART = 16 << 20  # bytes that the kernel copies at once: the hash begins after the first
BUFFER = 256 << 10  # bytes that are read and hashed at once
_FICLONE = 0x40049409  # ioctl_ficlone(2); where the number is another, files are copied
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
            try:
                self._thread.start()
            except RuntimeError:  # as in `within` of store_threads.py
                self._queue = None
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
    """`ObjectStore.download` from a folder. The kernel copies the file, and the copy is hashed meanwhile
    and during its flush: what is hashed is what lies in the tree, whatever happens to the source.
    obstore would pass the bytes through this process twice, 8 KiB at a time."""
    try:
        source = open_file(path, follow=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if is_none(error):
            raise DigestMismatch("it is not a regular file") from None
        raise _unreadable(path, error) from None
    with source:
        try:
            if to is None:
                found = _hashed(source, [size], progress)
            else:
                with open(f"/proc/self/fd/{to.fileno()}", "rb", buffering=0) as made:
                    found = _copy_and_hash(source, to.fileno(), made, size, progress)
        except _SourceError as error:
            raise _unreadable(path, error.cause) from None
    digest, done = found
    if done != size:
        raise DigestMismatch(f"it ends after {done} of {size} bytes")
    if digest != sha256:
        raise DigestMismatch(f"its sha256 is {digest[:12]}…")
    return True


class _SourceError(Exception):
    """The source of a copy cannot be read, or the copy itself."""

    def __init__(self, cause: OSError) -> None:
        super().__init__()
        self.cause = cause


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: {error.strerror}")


def _copy_and_hash(
    source: io.FileIO, to: int, made: io.FileIO, size: int, progress: Progress
) -> tuple[str, int]:
    """Copy at most `size` bytes; returns the sha256 of the copy and its size. made: opens the file of `to`
    for reading. A large copy is flushed. Raises OSError, _SourceError."""
    if size <= 2 * PIECE:
        return _hashed(made, list(_copy(source.fileno(), to, size)), progress)
    ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    hashing = in_thread(lambda: _hashed(made, iter(ends.get, None), progress))
    try:
        copies = [size] if _clone(source.fileno(), to, size) else _copy(source.fileno(), to, size)
        for end in copies:
            ends.put(end)
        ends.put(None)
        os.fdatasync(to)  # the kernel reports an error once: a later fsync would miss it
    finally:
        ends.put(None)
        wait([hashing])  # it reads from `made`
    return hashing.result()


def _hashed(data: io.FileIO, ends: Iterable[int], progress: Progress) -> tuple[str, int]:
    """The sha256 of a file up to the last of `ends`, its growing size, and the bytes that it really has up
    to there. Raises _SourceError."""
    digest, done, buffer = hashlib.sha256(), 0, memoryview(bytearray(BUFFER))
    try:
        for end in ends:
            while done < end and (count := data.readinto(buffer[: end - done])):
                digest.update(buffer[:count])
                done += count
                progress(done)
    except OSError as error:  # a clone shares the blocks of its source
        raise _SourceError(error) from None
    return digest.hexdigest(), done


def _clone(source: int, to: int, size: int) -> bool:
    """Make `to` share the blocks of `source`, as a snapshot that later writes to `source` do not change.
    Whether the file system does so (btrfs, xfs, and some others); if not, `to` is empty."""
    try:
        fcntl.ioctl(to, _FICLONE, source)
    except OSError:
        return False  # the copy reports what is more than a missing feature
    if os.fstat(to).st_size == size:
        os.posix_fadvise(to, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return True
    os.ftruncate(to, 0)
    return False


def _copy(source: int, to: int, size: int) -> Iterator[int]:
    """Copy at most `size` bytes, and yield the count after each part. Raises OSError, _SourceError."""
    done, by_kernel = 0, True
    while done < size:
        count = min(PART, size - done)
        try:
            if by_kernel and not (count := os.copy_file_range(source, to, count)):
                by_kernel = False  # some file systems say so before the end: a read tells
                continue
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            by_kernel = False  # another file system, or an old kernel; an error appears again below
            continue
        if not by_kernel:
            count = _copy_piece(source, to, min(PIECE, count))
        if not count:
            break
        done += count
        yield done


def _copy_piece(source: int, to: int, count: int) -> int:
    try:
        piece = memoryview(os.read(source, count))
    except OSError as error:
        raise _SourceError(error) from None
    count = len(piece)
    while piece:
        piece = piece[os.write(to, piece) :]
    return count


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
