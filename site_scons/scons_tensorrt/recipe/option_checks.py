"""Checks of option values, which raise RecipeError with what to write instead.

Also how messages write an option (in Python, or in TOML for an engines.toml), and where it is declared.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import RecipeError
from ..values import Value

# Words that messages begin with instead of an option's name.
_ABOUT = {
    **dict.fromkeys(("shape", "input", "values"), "shapes"),
    "flag": "flags",
    "plugin": "plugins",
    "source": "onnx",
    "model": "name",
    "reference": "accuracy",
}


class _Thread(threading.local):
    toml = False


_thread = _Thread()  # the syntax of its messages


class Place(Value):
    """Where an engine is declared. file: for messages; line: 0 for an engine of the command line; keys: in an
    engines file, the line of each key."""

    file: str
    line: int
    keys: Mapping[str, int] = {}

    @property
    def toml(self) -> bool:
        """Whether it is an engines file, whose keys are not written as in Python."""
        return bool(self.keys)

    def at(self, option: str | None = None) -> str:
        """FILE:LINE, of the key `option` if that is known."""
        line = self.keys.get(option or "", self.line)
        return f"{self.file}:{line}" if line else self.file


def is_text(value: Any, text: str) -> bool:
    """Whether the value is this text. The lists of SCons cannot be compared with one."""
    return isinstance(value, str) and value == text


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RecipeError(f"{setting(name, value)}: write {literal(True)} or {literal(False)}")
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise RecipeError(f"{setting(name, value)}: write one of {', '.join(known)}")
    return value


def names(name: str, value: Any) -> tuple[str, ...]:
    """A list of names, sorted and without duplicates."""
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not is_list or not all(isinstance(each, str) and each for each in value):
        raise RecipeError(f"{setting(name, value)}: write a list of names")
    return tuple(sorted(set(value)))


def is_number(value: Any) -> bool:
    """Whether it is a number, and neither a bool nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def count(name: str, value: Any, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise RecipeError(
            f"{setting(name, value)}: write a whole number {'above 0' if least else 'from 0 up'}"
        )
    return value


def seconds(value: Any) -> float | None:
    """The option `timeout_s`."""
    if value is None:
        return None
    if not is_number(value) or not value > 0:
        raise RecipeError(f"{setting('timeout_s', value)}: write a number of seconds above 0")
    try:
        return float(value)
    except OverflowError:
        raise RecipeError("timeout_s is too large; leave it out for no limit") from None


def hint(name: str, known: Iterable[str]) -> str:
    """For an unknown name: the most similar known one, or all."""
    import difflib  # needed only for an error

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def option_of(problem: str) -> str | None:
    """The option or key that a message of this room is about: it begins with it."""
    found = re.match(r"(?:unknown option |option )?(\w+)", problem)
    return _ABOUT.get(found[1], found[1]) if found else None


@contextmanager
def messages_in(toml: bool) -> Iterator[None]:
    """Write the messages of this thread in the syntax of TOML, or of Python."""
    before, _thread.toml = _thread.toml, toml
    try:
        yield
    finally:
        _thread.toml = before


def literal(value: Any) -> str:
    """`True`; in TOML `true`."""
    return to_toml(value) if _thread.toml else repr(value)


def setting(name: str, value: Any) -> str:
    """`precision='fp16'`; in TOML `precision = "fp16"`."""
    return assigned(name, literal(value))


def assigned(name: str, text: str) -> str:
    """`name=text`, where the text stands for a value."""
    return f"{name} = {text}" if _thread.toml else f"{name}={text}"


def option(name: str) -> str:
    """The name of an option: `calibration=`; in TOML `calibration`."""
    return name if _thread.toml else f"{name}="


def in_brackets(*texts: str) -> str:
    """`(min, opt, max)`; in TOML `[min, opt, max]`."""
    text = ", ".join(texts)
    if _thread.toml:
        return f"[{text}]"
    return f"({text},)" if len(texts) == 1 else f"({text})"


def entry(key: str, text: str) -> str:
    """A map of one key, where the text stands for its value: `{'x': text}`; in TOML `{ x = text }`."""
    return f"{{ {_key(key)} = {text} }}" if _thread.toml else f"{{{key!r}: {text}}}"


def word(python: str, toml: str) -> str:
    """What is called differently in the two."""
    return toml if _thread.toml else python


def to_toml(value: Any) -> str:
    """A value as in TOML."""
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, Mapping):
        items = ", ".join(f"{_key(str(key))} = {to_toml(each)}" for key, each in value.items())
        return f"{{ {items} }}" if items else "{}"
    return str(value)  # a number or a date; a node of SCons


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
