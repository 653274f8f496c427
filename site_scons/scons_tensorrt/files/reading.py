"""Opening files that others may have put there.

A name can be a pipe that nobody writes to, a device without end, or a link to another file: what
is opened here is a regular file, and opening it waits for nobody.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator

_PIECE = 1 << 16  # bytes
_BLOCK = 1 << 20
# Nothing there, or nothing that this package puts there: whatever else keeps from reading is told.
_ODD = ("//", "/./", "/../")
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.EFBIG)


LINKED_FOLDER = "a link to a folder elsewhere, which is not followed"


def absolute(path: str | os.PathLike[str]) -> str:
    """As os.path.abspath, which takes its time, for the thousands of paths that are so already."""
    name = os.fspath(path)
    plain = name.startswith("/") and not name.endswith(("/", "/.", "/.."))
    return name if plain and not any(odd in name for odd in _ODD) else os.path.abspath(name)


def is_none(error: OSError) -> bool:
    """Whether reading failed because no file of ours is there, rather than one that can't be read."""
    return error.errno in _NONE


def open_file(path: str | os.PathLike[str], follow: bool = True) -> io.FileIO:
    """A regular file, to be read. follow: where a symbolic link stands, the file it leads to.
    Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "a symbolic link, which is never followed", path) from None
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device that is not there
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
    """Whether somebody has this file open for writing, as far as the kernel tells: for a file of another
    user's it does not, nor on file systems without leases."""
    import fcntl
    import signal

    try:
        # Whoever opens it for writing just now makes the kernel send this signal, which is ignored;
        # its default, SIGIO, would end the process.
        fcntl.fcntl(source, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # refused while it is open for writing
        fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    except AttributeError:  # not Linux
        return False
    return False


def blocks(source: io.FileIO) -> Iterator[bytes]:
    """The bytes of an open file from where it stands. Of one that grows meanwhile there are some more
    than it had, by which its sha256 tells, and an end. Raises OSError."""
    left = os.fstat(source.fileno()).st_size - source.tell()
    while left >= 0 and (block := source.read(_BLOCK)):
        left -= len(block)
        yield block


def read_small(path: str | os.PathLike[str], most: int, follow: bool = True) -> bytes:
    """A file's bytes. follow: as `open_file`. Raises OSError, also for more than `most` bytes."""
    with open_file(path, follow) as source:
        if os.fstat(source.fileno()).st_size <= most:
            data = bytearray()
            while piece := source.read(min(_PIECE, most + 1 - len(data))):  # it may grow meanwhile
                data += piece
            if len(data) <= most:
                return bytes(data)
    raise OSError(errno.EFBIG, f"more than {most} bytes", path)


def text_of(module: str) -> str:
    """The source of a module of this package, by its loader: the package may run from a zip file."""
    import pkgutil  # only what starts a child process needs it

    package, _, name = module.rpartition(".")
    data = pkgutil.get_data(package, f"{name}.py")
    if data is None:
        raise FileNotFoundError(errno.ENOENT, "its loader has no source", module)
    return data.decode("utf-8")


def walk_files(folder: str) -> Iterator[tuple[str, str]]:
    """Every file below a folder, links too, and why a folder cannot be looked into, or is not: one
    outside that a link leads to. However deep."""
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
        return True  # nobody knows what is there
    return linked and not os.path.join(os.path.realpath(entry.path), "").startswith(top)
