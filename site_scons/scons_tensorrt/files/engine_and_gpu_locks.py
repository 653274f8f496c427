"""Locks across processes, threads and users: one for each engine, held through check, compile and
publish; one for each GPU, held through a compile that times kernels."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import inspect
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import Interrupted, LockTimeout, PublishError
from .reading import read_small
from .writing import cause, new_file

POLL_SECONDS = 0.1
# Errors of flock without support for locks: NFS without its lock service, FUSE, old kernels.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
LONGEST_HOLDER = 4096  # bytes of a holder file
_held = threading.local()  # .paths: the engine locks that this thread holds


@contextlib.contextmanager
def engine_lock(
    path: Path,
    what: str,
    waiting: Callable[[str], None],
    stopping: Callable[[], bool],
    timeout_s: float | None = None,
    say_after_s: float = 0.0,
) -> Iterator[None]:
    """Hold the lock file `path`. In a thread that holds it already, it does nothing: a runtime of the Python
    API may call ours for the engine that it compiles.

    what: the engine, for messages; waiting: called once, after say_after_s seconds, with a description of the
    holder; stopping: ends the wait. Raises LockTimeout after timeout_s seconds, Interrupted, or PublishError.
    """
    held: set[Path] = _held.__dict__.setdefault("paths", set())
    if path in held:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():  # a lock library may truncate its target
            raise PublishError(f"{path} is a symbolic link; remove it")
        lock = _file_lock(path)
        _wait(path, lock, what, waiting, stopping, timeout_s, say_after_s)
    except (OSError, NotImplementedError) as error:  # NotImplementedError: filelock's for ENOSYS
        raise PublishError(f"{path}: {_why_no_lock(error)}") from None
    try:
        with contextlib.suppress(OSError), new_file(path.with_suffix(".holder")) as out:
            out.write(_holder_text(what))
        held.add(path)
        yield
    finally:
        held.discard(path)
        lock.release()


@contextlib.contextmanager
def gpu_lock(
    uuid: str,
    turn: threading.Lock,
    what: str,
    waiting: Callable[[str], None],
    stopping: Callable[[], bool],
    timeout_s: float | None = None,
) -> Iterator[None]:
    """Hold a physical GPU, machine-wide: concurrent compiles would disturb each other's kernel timings.

    Always taken after the engine's lock. turn: serialises the threads of this process, whose waiting
    does not count as a timeout. Raises as engine_lock does.
    """
    while not turn.acquire(timeout=POLL_SECONDS):
        if stopping():
            raise Interrupted(f"{what}: stopped while waiting for the GPU")
    path = gpu_lock_path(uuid)
    try:
        with contextlib.ExitStack() as held:
            try:
                lock = _SharedLock(path)
                held.callback(lock.release)
                _wait(path, lock, what, waiting, stopping, timeout_s)
                lock.write_holder(_holder_text(what))
            except OSError as error:  # not one of what is done under the lock
                raise PublishError(f"{path}: {error.strerror}; remove the file") from None
            yield
    finally:
        turn.release()


def gpu_lock_path(uuid: str) -> Path:
    """The same file for every user and state folder of this machine."""
    folder = Path("/run/lock")
    try:
        shared = folder.stat().st_mode & 0o002
    except OSError:
        shared = 0
    return (folder if shared else Path("/tmp")) / f"scons-tensorrt-gpu-{uuid}.lock"


def _why_no_lock(error: OSError | NotImplementedError) -> str:
    number = error.errno if isinstance(error, OSError) else errno.ENOSYS
    if number in NO_LOCKS:
        return (
            "this file system does not support locks, so builds could disturb each other; set TRT_STATE_DIR "
            "to a folder on another one"
        )
    if isinstance(error, OSError) and error.strerror:
        return cause(error, "make the folder writable")
    return f"{os.strerror(number or errno.EIO)}; make the folder writable"


class _SharedLock:
    """A lock file shared by all users. Lock libraries rightly refuse another user's file in a
    world-writable folder. This one contains only its holder, and links are not followed."""

    def __init__(self, path: Path) -> None:
        try:
            # Without O_CREAT, which the kernel forbids for other users' files in sticky folders.
            self._file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o666)
            with contextlib.suppress(OSError):
                os.fchmod(self._file, 0o666)  # the umask removed the write permission of others
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise OSError(errno.EINVAL, "not a regular file", path)

    def attempt(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(POLL_SECONDS)
            return False

    def write_holder(self, data: bytes) -> None:
        """Write the holder to the locked file itself: its name may be another file by now."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, data, 0)

    def release(self) -> None:
        os.close(self._file)


class _FileLock:
    """A lock of the filelock library, with the interface of _SharedLock."""

    def __init__(self, lock: Any, timeout: type[Exception]) -> None:
        self._lock, self._timeout = lock, timeout

    def attempt(self) -> bool:
        try:
            self._lock.acquire(timeout=POLL_SECONDS, poll_interval=0.02)
            return True
        except self._timeout:
            return False

    def release(self) -> None:
        self._lock.release()


def _file_lock(path: Path) -> _FileLock:
    try:
        import filelock  # takes 0.1 s, and a run that reuses everything needs no lock
    except ImportError:
        raise PublishError(
            f"filelock is not installed for {sys.executable}: run `{sys.executable} -m pip install filelock`"
        ) from None
    # A new object for each holder: a shared one would not exclude threads. Never a soft lock, which a
    # killed process would leave behind.
    options: dict[str, Any] = {"thread_local": False}
    if "fallback_to_soft" in inspect.signature(filelock.FileLock.__init__).parameters:
        options["fallback_to_soft"] = False
    return _FileLock(filelock.FileLock(path, **options), filelock.Timeout)


def _wait(
    path: Path,
    lock: _FileLock | _SharedLock,
    what: str,
    waiting: Callable[[str], None],
    stopping: Callable[[], bool],
    timeout_s: float | None,
    say_after_s: float = 0.0,
) -> None:
    began, reported = time.monotonic(), False
    while not lock.attempt():  # after an attempt, the holder file is there
        if stopping():
            raise Interrupted(f"{what}: stopped while waiting for {_holder(path)}")
        if not reported and time.monotonic() - began >= say_after_s:
            waiting(_holder(path))
            reported = True
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise LockTimeout(
                f"waited {timeout_s:g} s (TRT_LOCK_TIMEOUT) for {_holder(path)} to release {path}; run "
                "again when it is done, or with a longer TRT_LOCK_TIMEOUT"
            )


def _holder_text(what: str) -> bytes:
    """The contents of a holder file."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"pid": os.getpid(), "host": os.uname().nodename, "since": now, "engine": what}
    return json.dumps(holder).encode()


def _holder(path: Path) -> str:
    """A description of the lock's holder."""
    try:
        beside = path.with_suffix(".holder")
        said = json.loads(read_small(beside if beside.exists() else path, LONGEST_HOLDER))
        host = said.get("host")
        there = "" if host in (None, os.uname().nodename) else f" on {host}"
        if not there and int(said["pid"]) == os.getpid():
            there = " (this one)"
        return f"process {int(said['pid'])}{there}, compiling {said['engine']} since {said['since']}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return "another process"
