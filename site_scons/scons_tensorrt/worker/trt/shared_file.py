"""Files that several compiles may read and replace at once."""

from __future__ import annotations

import contextlib
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of the file at `path`. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Do not follow a link, nor wait for the reader of a pipe.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock = os.open(path + ".lock", flags, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def replace(path: str, data: bytes) -> None:
    """Atomically replace the file at `path`, whose lock is held. Raises OSError."""
    temporary = path + ".tmp"
    if os.path.lexists(temporary):  # of a killed compile, or a link
        os.unlink(temporary)
    try:
        with open(temporary, "xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
