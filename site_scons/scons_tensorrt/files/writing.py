"""Atomic writes: a reader, or a crash, sees either the old bytes or the new ones."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

STALE_SECONDS = 24 * 3600.0
_tidied: set[Path] = set()  # folders from which this process has removed stale temporaries
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_device(path: Path) -> bool:
    """Whether a path is a device, or a link to an open file, as /dev/stdout is: root would replace the
    machine's own, for every program."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return os.readlink(path).startswith("/proc/")
        return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    except OSError:
        return False


def _refuse_device(path: Path) -> None:
    """Raise OSError for a device."""
    if is_device(path):
        raise OSError(errno.EINVAL, "a device is not replaced", os.fspath(path))


def new_file(path: Path, mode: int = 0o666) -> BinaryIO:
    """Create an empty file for writing, replacing a file or link of this name. Raises OSError."""
    _refuse_device(path)
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, mode), "wb")


def unlink_link(path: Path) -> None:
    """Remove a link in place of one of our folders: cleaning up would delete files elsewhere. Raises
    OSError."""
    if path.is_symlink():
        path.unlink()


def remove_tree(folder: str | os.PathLike[str]) -> None:
    """Remove one of our folders with its contents, ignoring errors. At any depth: inner folders are first
    moved up. Links are not followed."""
    with contextlib.suppress(OSError):
        top = os.open(folder, _FOLDER)
        try:
            prefix, count = f".{os.urandom(8).hex()}.removed", 0
            waiting = _folders_left(top)
            while waiting:
                name = waiting.pop()
                with contextlib.suppress(OSError):
                    inner = os.open(name, _FOLDER, dir_fd=top)
                    try:
                        for each in _folders_left(inner):
                            moved, count = f"{prefix}{count}", count + 1
                            with contextlib.suppress(OSError):
                                os.rename(each, moved, src_dir_fd=inner, dst_dir_fd=top)
                                waiting.append(moved)
                    finally:
                        os.close(inner)
                    os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        os.rmdir(folder)


def _folders_left(folder: int) -> list[str]:
    """Remove the files in an open folder; returns its subfolders. Raises OSError."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block ends. durable: survive a power cut (fsync of file
    and folder); mode: of the file, less the umask.

    The temporary's name is random: processes in two containers that share the folder may have the same
    process ID. Raises OSError; then, and if the block raises, `path` is unchanged and no temporary is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_device(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with new_file(temporary, mode) as out:
            yield out
            out.flush()
            if durable:
                os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
    if path.parent not in _tidied:  # once: to list a folder of 10,000 files for each is slow
        _tidied.add(path.parent)
        remove_stale(path.parent)


def write_atomic(path: Path, data: bytes, durable: bool = True, mode: int = 0o666) -> None:
    """Replace `path` by `data`, as `replacing` does. Raises OSError."""
    with replacing(path, durable, mode) as out:
        out.write(data)


def cause(error: OSError, step: str) -> str:
    """Why a file or folder could not be created, and the next step: `step`, or to remove the file that is
    in the way, or to make room."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; make room, then run again"
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
        place = Path(error.filename2 or error.filename or "")
        folders = [*reversed(place.parents), *([place] if error.errno == errno.EEXIST else ())]
        for folder in folders:
            if os.path.lexists(folder) and not os.path.isdir(folder):
                return f"{folder} is not a folder; remove it, or move it away"
        step = "remove it, or move it away"
    return f"{error.strerror}; {step}"


def remove_stale(folder: Path) -> None:
    """Remove temporaries that killed writers left behind: by age, because the writer may run on another
    machine."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(".tmp"):
                temporary = folder / name
                if time.time() - temporary.stat().st_mtime > STALE_SECONDS:
                    temporary.unlink()
