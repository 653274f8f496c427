"""Checks of option values. Each raises RecipeError with what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import RecipeError


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RecipeError(f"{name}={value!r}: write True or False")
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise RecipeError(f"{name}={value!r}: write one of {', '.join(known)}")
    return value


def names(name: str, value: Any) -> tuple[str, ...]:
    """A list of names, sorted and without duplicates."""
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not is_list or not all(isinstance(each, str) and each for each in value):
        raise RecipeError(f"{name}={value!r}: write a list of names")
    return tuple(sorted(set(value)))


def is_number(value: Any) -> bool:
    """Whether it is a number, and neither a bool nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def hint(name: str, known: Iterable[str]) -> str:
    """For an unknown name: the most similar known one, or all."""
    import difflib  # needed only for an error

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
