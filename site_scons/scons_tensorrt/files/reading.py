"""Opens files in folders that others can write to.

A path may be a pipe without a writer, an endless device, or a link. Only regular files are opened, and
opening never blocks.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator

_PIECE = 1 << 16  # bytes
_BLOCK = 1 << 20
# Missing, or not a file that this package wrote; any other error is reported.
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.EFBIG)


LINKED_FOLDER = "a link to a folder elsewhere, which is not followed"


def absolute(path: str | os.PathLike[str]) -> str:
    """As os.path.abspath, but fast for paths that are absolute already."""
    name = os.fspath(path)
    plain = name.startswith("/") and not name.endswith(("/", "/.", "/.."))
    odd = not plain or "//" in name or "/./" in name or "/../" in name
    return os.path.abspath(name) if odd else name


def is_none(error: OSError) -> bool:
    """Whether reading failed because there is no file of ours, rather than an unreadable one."""
    return error.errno in _NONE


def open_file(path: str | os.PathLike[str], follow: bool = True) -> io.FileIO:
    """Open a regular file for reading. follow: symbolic links. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "a symbolic link, which is never followed", path) from None
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device without a driver
            raise OSError(errno.EINVAL, "not a regular file", path) from None
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_for_writing(source: io.FileIO) -> bool:
    """Whether a process has this file open for writing. The kernel does not say so for a file of another
    user, or on file systems without leases."""
    import fcntl
    import signal

    try:
        # A concurrent open for writing makes the kernel send this signal, which is ignored; the
        # default, SIGIO, would kill the process.
        fcntl.fcntl(source, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # refused while it is open for writing
        fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    except AttributeError:  # not Linux
        return False
    return False


def blocks(source: io.FileIO) -> Iterator[bytes]:
    """The bytes of an open file from its position. If it grows meanwhile, stops soon after its old end,
    with enough to change the sha256. Raises OSError."""
    left = os.fstat(source.fileno()).st_size - source.tell()
    while left >= 0 and (block := source.read(_BLOCK)):
        left -= len(block)
        yield block


def read_small(path: str | os.PathLike[str], most: int, follow: bool = True) -> bytes:
    """A file's bytes. follow: see `open_file`. Raises OSError, also for more than `most` bytes."""
    with open_file(path, follow) as source:
        data = read_at_most(source, most)
    if data is None:
        raise OSError(errno.EFBIG, f"more than {most} bytes", path)
    return data


def read_at_most(source: io.FileIO, most: int) -> bytes | None:
    """The bytes of an open file; None if there are more than `most`. Raises OSError."""
    data = bytearray()
    if os.fstat(source.fileno()).st_size <= most:
        while piece := source.read(min(_PIECE, most + 1 - len(data))):  # it may grow meanwhile
            data += piece
        if len(data) <= most:
            return bytes(data)
    return None


def text_of(module: str) -> str:
    """The source of a module of this package, from its loader: it may be in a zip file."""
    import pkgutil  # needed only to start a child process

    package, _, name = module.rpartition(".")
    data = pkgutil.get_data(package, f"{name}.py")
    if data is None:
        raise FileNotFoundError(errno.ENOENT, "its loader has no source", module)
    return data.decode("utf-8")


def walk_files(folder: str) -> Iterator[tuple[str, str]]:
    """Every file and link below a folder, at any depth, with "" or the reason why it was not entered: an
    unreadable folder, or a link to a folder outside."""
    waiting, top = [folder], os.path.join(os.path.realpath(folder), "")
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield here, f"not readable ({error.strerror})"
            continue
        inner = [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
        waiting += reversed(inner)
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                yield entry.path, LINKED_FOLDER if _leads_out(entry, top) else ""


def _leads_out(entry: os.DirEntry[str], top: str) -> bool:
    """Whether an entry is a link to a folder that is not below `top`."""
    try:
        linked = entry.is_symlink() and entry.is_dir()
    except OSError:
        return True  # unknown target
    return linked and not os.path.join(os.path.realpath(entry.path), "").startswith(top)
