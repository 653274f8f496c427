"""A time limit for every store operation, even if the server sends its answer drop by drop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..errors import StoreError

TIMEOUT_S = 60.0  # for one operation
SLOWEST = 1e6  # bytes a second: the slowest transfer that is not a timeout
_T = TypeVar("_T")


def within(seconds: float, call: Callable[[], _T]) -> _T:
    """Run `call` and return its result. Raises what it raises, or StoreError on timeout; its thread then
    keeps running, because obstore cannot be interrupted."""
    result: list[_T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="store operation", daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if raised:
        raise raised[0]
    if not result:
        raise StoreError("an operation took longer than STORE_TIMEOUT allows")
    return result[0]
