"""The files of a store that is a folder.

Whoever may write to the folder can put a link, a pipe or a folder where a file of ours belongs. An
object is a regular file, opened without waiting and never through a link. What lists or removes goes
by the descriptor of a folder that is no link itself; the store's root may be one.
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

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """root: of the store. Every method raises OSError, or StoreError where a folder of the store is a
    link."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, most: int) -> tuple[bytes, float] | None:
        """A file's first bytes, `most` of them at most, and when it was written; None where no file
        is. What is no regular file has no bytes: another writer replaces it."""
        try:
            with open_file(self.root / path, follow=False) as source:
                return source.read(most), os.fstat(source.fileno()).st_mtime
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            if is_none(error):
                return b"", 0.0
            raise

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where no regular file is."""
        try:
            found = os.lstat(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def remove(self, path: str) -> None:
        """Remove a file or a link, if there is one."""
        folder, _, name = path.rpartition("/")
        with contextlib.suppress(FileNotFoundError), self._opened(folder) as at:
            os.unlink(name, dir_fd=at)

    def list(self, folder: str, is_ours: Callable[[str], object]) -> Iterator[tuple[str, int, float]]:
        """Name, size (bytes) and time of change of each regular file in `folder` whose name is ours."""
        with contextlib.suppress(FileNotFoundError), self._opened(folder) as at:
            for name in os.listdir(at):
                if not is_ours(name):
                    continue
                try:
                    found = os.stat(name, dir_fd=at, follow_symlinks=False)
                except FileNotFoundError:  # removed meanwhile
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield name, found.st_size, found.st_mtime

    def check(self, folder: str) -> None:
        """Raises StoreError where a folder of the store is a link or no folder; it may be missing."""
        with contextlib.suppress(FileNotFoundError), self._opened(folder):
            pass

    @contextlib.contextmanager
    def _opened(self, folder: str) -> Iterator[int]:
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
