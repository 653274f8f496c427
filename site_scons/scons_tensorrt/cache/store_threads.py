"""Store operations in threads: obstore cannot be interrupted, a server may send its answer
drop by drop, and SCons's threads have small stacks."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from ..errors import StoreError

TIMEOUT_S = 60.0  # for one operation
SLOWEST = 1e6  # bytes a second: the slowest transfer that is not a timeout
_T = TypeVar("_T")


def in_thread(call: Callable[[], _T], name: str = "") -> Future[_T]:
    """Run `call` in a daemon thread: unlike an executor's, it does not delay the end of the process. Its
    context is a copy of this thread's, but a new one if it has a name of its own."""
    future: Future[_T] = Future()
    context = contextvars.Context() if name else contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name or "store operation", daemon=True).start()
    return future


def within(seconds: float, call: Callable[[], _T]) -> _T:
    """Run `call` and return its result. Raises what it raises, or StoreError on timeout; its thread then
    keeps running."""
    try:
        future = in_thread(call)
    except RuntimeError:  # Python 3.12 starts no thread at the end of a run; TRT_STORE_WAIT limits uploads
        return call()
    if not wait([future], max(0.0, seconds)).done:
        raise StoreError("an operation took longer than STORE_TIMEOUT allows")
    return future.result()
