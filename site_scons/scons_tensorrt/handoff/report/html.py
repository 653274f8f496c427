"""HTML that cannot be broken out of: every text is escaped where it becomes an element, and only what
was made here is taken as it is.

Standard library alone, as the command line promises: a template engine would be one more thing that a
device or a CI image must have, and what it is for, escaping by itself, is twenty lines.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

from ...errors import one_line

_EMPTY = frozenset(("meta", "input", "wbr"))


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Any) -> Html:
    """A value as text; what would steer a reader (bidirectional marks, control characters) is shown."""
    return value if isinstance(value, Html) else Html(html.escape(one_line(str(value))))


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """An element. children: text, elements, iterables of them; None and False are none. attributes: a
    trailing `_` is dropped, others become `-`; None and False leave one out, True gives none a value."""
    named = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        named.append(f" {name}" if value is True else f' {name}="{escape(value)}"')
    start = f"<{tag}{''.join(named)}>"
    return Html(start if tag in _EMPTY else f"{start}{join(children)}</{tag}>")


def breakable(name: str) -> Html:
    """A long name that may go on in the next line after each `_` or `/`."""
    return Html(re.sub(r"([_/]+)", r"\1<wbr>", escape(name)))


def join(children: Iterable[Any]) -> Html:
    """Children one after another."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str) or not isinstance(child, Iterable):
            parts.append("" if child is None or child is False else escape(child))
        else:
            parts.append(join(child))
    return Html("".join(parts))
