"""An end for every operation of a store's server, however it spreads what it sends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..errors import StoreError

TIMEOUT_S = 60.0  # for one operation
SLOWEST = 1e6  # bytes a second, for which a transfer may take longer
_T = TypeVar("_T")


def within(seconds: float, call: Callable[[], _T]) -> _T:
    """What `call` returns. Raises as it does, and StoreError when it takes longer; it is then left
    alone in its thread, because the library that waits there cannot be stopped."""
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
