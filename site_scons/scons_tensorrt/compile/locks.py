"""One lock an engine, held through check, compile and publish, across processes and threads."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import Interrupted, LockTimeout, PublishError

POLL_SECONDS = 0.1


@contextlib.contextmanager
def engine_lock(
    path: Path,
    what: str,
    waiting: Callable[[str], None],
    stopping: Callable[[], bool],
    timeout_s: float | None = None,
) -> Iterator[None]:
    """Hold the lock file `path`.

    what: the engine, for messages; waiting: told once, in words, who holds it; stopping: ends
    the wait. Raises LockTimeout after timeout_s seconds, Interrupted, or PublishError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, what, waiting, stopping, timeout_s)
    except OSError as error:
        raise PublishError(f"{path}: {error.strerror}; make the folder writable") from None
    try:
        _sign(path, what)
        yield
    finally:
        lock.release()


def gpu_lock(
    uuid: str,
    what: str,
    waiting: Callable[[str], None],
    stopping: Callable[[], bool],
    timeout_s: float | None = None,
) -> contextlib.AbstractContextManager[None]:
    """Hold a physical GPU, machine-wide: compiles that time kernels disturb each other on one.

    Taken after the engine's lock, never before. Raises as engine_lock does.
    """
    return engine_lock(gpu_lock_path(uuid), what, waiting, stopping, timeout_s)


def gpu_lock_path(uuid: str) -> Path:
    """The same file for every user and state folder of this machine."""
    folder = Path("/run/lock")
    try:
        shared = folder.stat().st_mode & 0o002
    except OSError:
        shared = 0
    return (folder if shared else Path("/tmp")) / f"scons-tensorrt-gpu-{uuid}.lock"


def _acquire(
    path: Path,
    what: str,
    waiting: Callable[[str], None],
    stopping: Callable[[], bool],
    timeout_s: float | None,
) -> Any:
    try:
        import filelock  # 0.1 s to import, and a run that reuses everything needs none
    except ImportError:
        raise PublishError(
            f"filelock is not installed for {sys.executable}: run `{sys.executable} -m pip "
            "install filelock`"
        ) from None
    # A fresh object for each holder: one that threads share would not exclude them.
    lock = filelock.FileLock(path, thread_local=False, mode=0o666)
    began, told = time.monotonic(), False
    while True:
        try:
            # Not told before the first poll is over: by then the holder has signed.
            lock.acquire(timeout=POLL_SECONDS, poll_interval=0.02)
            return lock
        except filelock.Timeout:
            pass
        if stopping():
            raise Interrupted(f"{what}: stopped while it waited for {_holder(path)}")
        if not told:
            waiting(_holder(path))
            told = True
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise LockTimeout(
                f"waited {timeout_s:g} s (TRT_LOCK_TIMEOUT) for {_holder(path)}; run again when "
                "it is done"
            )


def _sign(path: Path, what: str) -> None:
    """Leave in a file beside the lock who holds it and for what, for whoever waits."""
    with contextlib.suppress(OSError):
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        text = json.dumps({"pid": os.getpid(), "since": now, "engine": what})
        path.with_suffix(".holder").write_text(text, encoding="utf-8")


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.with_suffix(".holder").read_text(encoding="utf-8"))
        return f"process {int(said['pid'])}, which compiles {said['engine']} since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
