"""Calls a function for many items in threads: their reads overlap, and hashing runs on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

MOST = 8  # threads that read files
_A = TypeVar("_A")
_R = TypeVar("_R")


def in_order(
    call: Callable[[_A], _R], items: Iterable[_A], threads: int | None = None, ahead: int | None = None
) -> Iterator[_R]:
    """The results in the order of the items. threads: default: a core each, at most 8; ahead: how many items
    are taken before the result of the first is used, which bounds the memory. Raises what `call` and `items`
    raise, after the results of the items before."""
    from concurrent.futures import ThreadPoolExecutor  # not needed for what a null build does

    threads = threads or min(MOST, _cores())
    ahead = ahead or 4 * threads
    waiting = deque["Future[_R]"]()
    failure: Exception | None = None
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while failure is None:
            try:
                waiting.append(pool.submit(call, next(source)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if failure:
        raise failure


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
