"""One lock an engine, held through check, compile and publish, across processes and threads."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
        import filelock  # 0.1 s to import, and a run that reuses everything needs none
    except ImportError:
        raise PublishError(
            f"filelock is not installed for {sys.executable}: run `{sys.executable} -m pip "
            "install filelock`"
        ) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A fresh object for each holder: one that threads share would not exclude them.
        lock = filelock.FileLock(path, thread_local=False)
        began, told = time.monotonic(), False
        while True:
            try:
                lock.acquire(timeout=0 if not told else POLL_SECONDS, poll_interval=0.02)
                break
            except filelock.Timeout:
                pass
            if stopping():
                raise Interrupted(f"{what}: stopped while it waited for {_holder(path)}")
            if not told:
                waiting(_holder(path))
                told = True
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise LockTimeout(f"{what}: still held after {timeout_s:g} s by {_holder(path)}")
    except OSError as error:
        raise PublishError(f"{path}: {error.strerror}; make the state folder writable") from None
    try:
        _sign(path)
        yield
    finally:
        lock.release()


def _sign(path: Path) -> None:
    """Leave in a file beside the lock who holds it, for whoever waits."""
    with contextlib.suppress(OSError):
        text = json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        path.with_suffix(".holder").write_text(text, encoding="utf-8")


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.with_suffix(".holder").read_text(encoding="utf-8"))
        return f"process {int(said['pid'])} since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
