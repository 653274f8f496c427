"""Kept engines: the folder `kept/`, where an engine is linked before a build with another key replaces it, so
that it can come back. Which engine is kept, and when it is reused: build/reuse_local_engine.py.

An engine is kept by a hard link, made before another engine takes its name, so nothing is copied and no crash
leaves the name without an engine. Only where a link is impossible (another file system) it is copied.

A file is named by the engine and the first 16 characters of its sha256, as its receipt is. The bytes are
hashed before they are used again. When the files exceed a limit, the least recently used go: the link and the
replacement set a file's ctime, so it is the time when the engine was last in use.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from pathlib import Path

from ..errors import RecipeError
from ..files.reading import open_file
from ..files.sizes import parse_size
from ..files.writing import new_file, replacing
from ..values import Value
from .filename import SUFFIX

_NAME = re.compile(rf"(.+)\.[0-9a-f]{{16}}{re.escape(SUFFIX)}")
_BLOCK = 1 << 20
DEFAULT = "5Gi"  # the limit, also in scons_tool/settings.py


def cache_size(text: str, name: str) -> int:
    """The limit in bytes from a setting; 0 keeps nothing. name: of the setting. Raises RecipeError."""
    try:
        return parse_size(text)
    except ValueError:
        raise RecipeError(f"{name}={text}: write a size such as 5G, or 0 to keep nothing") from None


class KeptEngine(Value):
    """filename: of the engine; size: bytes; used: when it was last in use, seconds since the epoch."""

    path: Path
    filename: str
    size: int
    used: float


class KeptFolder:
    """limit: of all its files, in bytes. Methods raise OSError."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def path(self, filename: str, sha256: str) -> Path:
        return self._folder / f"{filename.removesuffix(SUFFIX)}.{sha256[:16]}{SUFFIX}"

    def engines(self) -> list[KeptEngine]:
        """The kept engines, least recently used first; none if the folder is missing or a link."""
        found = []
        for name in os.listdir(self._folder) if self._is_folder() else ():
            parts, path = _NAME.fullmatch(name), self._folder / name
            with contextlib.suppress(FileNotFoundError):  # another process took it
                now = os.lstat(path)
                if parts and not stat.S_ISDIR(now.st_mode):
                    found.append(KeptEngine(path, parts[1] + SUFFIX, now.st_size, now.st_ctime))
        return sorted(found, key=lambda kept: (kept.used, kept.path))

    def keep(self, engine: Path, sha256: str, copy: bool = False) -> None:
        """Keep the bytes of an engine, which has this sha256, if they are within the limit; then remove
        what is beyond it. copy: the engine's file may be written to later."""
        if not self._limit or os.lstat(engine).st_size > self._limit or self._folder.is_symlink():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self.path(engine.name, sha256)
        place.unlink(missing_ok=True)  # its bytes may be damaged
        if copy or not _link(engine, place):
            with open_file(engine, follow=False) as source, replacing(place, durable=False) as out:
                shutil.copyfileobj(source, out, _BLOCK)
        self._trim()

    def take(self, kept: Path, to: Path) -> None:
        """Put the bytes of a kept engine at `to`, replacing that file. It stays kept until `drop`: a run that
        is killed loses nothing."""
        if self._folder.is_symlink():
            raise FileNotFoundError(kept)
        to.unlink(missing_ok=True)
        # With a third link, another engine would share the file, and an edit of one would change both.
        if not _link(kept, to) or os.lstat(kept).st_nlink != 2:
            copy_engine(kept, to)

    def drop(self, filename: str, sha256: str) -> None:
        """An engine with these bytes is in use again."""
        if self._is_folder():
            self.path(filename, sha256).unlink(missing_ok=True)

    def _is_folder(self) -> bool:
        return self._folder.is_dir() and not self._folder.is_symlink()

    def _trim(self) -> None:
        kept = self.engines()
        size = sum(each.size for each in kept)
        for each in kept:
            if size <= self._limit:
                break
            each.path.unlink(missing_ok=True)
            size -= each.size


def copy_engine(source: Path, to: Path) -> None:
    """Copy an engine, replacing the file `to`. Raises OSError."""
    with open_file(source, follow=False) as data, new_file(to) as out:
        shutil.copyfileobj(data, out, _BLOCK)


def _link(source: Path, to: Path) -> bool:
    """Whether `to` is now a hard link to the file `source`. Raises FileNotFoundError."""
    try:
        os.link(source, to, follow_symlinks=False)
        return True
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        return False
