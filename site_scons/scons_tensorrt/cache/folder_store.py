"""A store in a local folder.

Anyone who can write to the folder can replace a file by a link, a pipe or a folder. So objects must be
regular files and are opened without blocking or following links. Listing and removing use the
descriptor of a folder that is not a link; only the store's root may be a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StoreError
from ..files.reading import is_none, open_file
from ..files.writing import sync_folder

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """root: of the store, which is there. Every method raises OSError, or StoreError if a folder in the store
    is a link, or the store is no longer there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._device = self._device_now()

    def _device_now(self) -> int:
        return os.stat(os.path.join(self.root, ".")).st_dev  # the "." makes an automounter mount it

    def check_root(self) -> None:
        """Raises StoreError if the store is no longer there: where its file system was unmounted, an empty
        folder remains, in which every entry seems to be missing."""
        try:
            now = self._device_now()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"no such folder: {self.root}") from None
        except OSError as error:
            raise StoreError(f"{self.root}: {error.strerror}") from None
        if now != self._device:
            raise StoreError(f"{self.root} was mounted or unmounted meanwhile")

    def read(self, path: str, most: int) -> tuple[bytes, float] | None:
        """At most the first `most` bytes of a file, and its mtime; None if there is no file. Anything but
        a regular file counts as empty: a writer replaces it."""
        try:
            with open_file(self.root / path, follow=False) as source:
                return source.read(most), os.fstat(source.fileno()).st_mtime
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                self.check_root()
                return None
            if is_none(error):
                return b"", 0.0
            raise

    def size(self, path: str) -> int | None:
        """Size in bytes; None if there is no regular file."""
        try:
            found = os.lstat(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            self.check_root()
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def remove(self, path: str) -> None:
        """Remove a file or a link, if there is one."""
        folder, _, name = path.rpartition("/")
        with contextlib.suppress(FileNotFoundError), self._open_folder(folder) as at:
            os.unlink(name, dir_fd=at)

    def flush(self, path: str) -> None:
        """fsync a file and its folder."""
        with open_file(self.root / path, follow=False) as written:
            os.fsync(written.fileno())
        sync_folder((self.root / path).parent)

    def list(self, folder: str, is_ours: Callable[[str], object]) -> Iterator[tuple[str, int, float]]:
        """Name, size (bytes) and mtime of each regular file in `folder` that `is_ours` accepts."""
        with contextlib.suppress(FileNotFoundError), self._open_folder(folder) as at:
            for name in os.listdir(at):
                if not is_ours(name):
                    continue
                try:
                    found = os.stat(name, dir_fd=at, follow_symlinks=False)
                except FileNotFoundError:  # removed by another process
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield name, found.st_size, found.st_mtime
        self.check_root()

    def check(self, folder: str) -> None:
        """Raises StoreError if `folder` is a link or not a folder; it may be missing."""
        self.check_root()
        with contextlib.suppress(FileNotFoundError), self._open_folder(folder):
            pass

    @contextlib.contextmanager
    def _open_folder(self, folder: str) -> Iterator[int]:
        """The descriptor of a folder of the store."""
        root = os.open(self.root, _FOLDER)
        try:
            at = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=root)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise StoreError(
                    f"{self.root / folder} is a link or not a folder, and is left alone; move the "
                    "folder itself there"
                ) from None
            raise
        finally:
            os.close(root)
        try:
            yield at
        finally:
            os.close(at)
