"""The pages of a bucket listing; entries: maintenance.py. The server is untrusted: it may list without end,
or list invalid names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import StoreError, one_line

MOST = 1_000_000  # objects in one folder of a bucket
_UNREADABLE = re.compile(r'invalid path: Error parsing Path "(.*?)": ', re.DOTALL)


def start_of(prefix: str) -> str:
    """The offset of a listing: it skips names that begin with a dot or a slash, which obstore cannot
    read; all our names sort after it."""
    return f"{prefix}/0"


def listed(pages: Iterator[Any], prefix: str, bounded: Callable[..., Any]) -> Iterator[Any]:
    """Every object of a listing. bounded: calls with a time limit. Raises StoreError.

    An unreadable name ends the listing: it hides the rest of its page, and gc would remove the data of
    entries that it did not see.
    """
    seen: set[str] = set()
    while (page := bounded(lambda: _next(pages))) is not None:
        for each in page:
            path = each["path"]
            if path in seen:
                raise _wrong(prefix, f"{one_line(path)[:200]} twice")
            if len(seen) == MOST:
                raise _wrong(prefix, f"more than {MOST} objects")
            seen.add(path)
            yield each


def _next(pages: Iterator[Any]) -> Any:
    try:
        return next(pages, None)
    except Exception as error:
        found = _UNREADABLE.search(str(error))
        if not found:
            raise
        raise StoreError(
            f"the bucket has an object with an unreadable name, {one_line(found[1])[:200]}; remove it "
            "with the bucket's own tools and run again"
        ) from None


def _wrong(prefix: str, what: str) -> StoreError:
    return StoreError(f"the listing of {prefix}/ has {what}; check the server at the store's URL")
