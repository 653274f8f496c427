"""Sets of samples, in the options `calibration` and `accuracy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..values import Value
from .option_checks import count, literal, option, setting


class Samples(Value):
    """A set of samples. where: path or node of a `.npz`, a folder of `.npy`, or a reader's `.py`;
    function: of the reader; most: how many to use, None for all; at_least: how many there must be; files:
    other files that the reader reads."""

    where: Any
    function: str | None = None
    most: int | None = None
    at_least: int = 1
    files: tuple[Any, ...] = ()

    def key_fields(self) -> dict[str, Any]:
        """What, besides the files, determines which samples are used."""
        return {"function": self.function, "most": self.most, "at_least": self.at_least}


def sample_options(what: str, value: Any, first: str, more: str, optional: bool = False) -> dict[str, Any]:
    """The option as a map; a bare set of samples stands for {first: set}. optional: whether the set may be
    left out."""
    options = dict(value) if isinstance(value, Mapping) else {first: value}
    known = [first, *more.split(), "function", "most", "at_least", "files"]
    for name in options:
        if name not in known:
            raise RecipeError(f"{what}: unknown {setting(name, options[name])}; known: {', '.join(known)}")
    if not options.get(first) and not (optional and first not in options):
        raise RecipeError(
            f"{what}: no {option(first)}: give a .npz, a folder of .npy, or {literal('reader.py:function')}"
        )
    return options


def split_reader(where: object) -> tuple[str, str] | None:
    """The file and the function of `reader.py:function`; None if `where` is something else."""
    if not isinstance(where, str):
        return None
    file, _, function = where.rpartition(":")
    is_reader = file.endswith(".py") and function.isascii() and function.isidentifier()
    return (file, function) if is_reader else None


def parse_samples(what: str, options: dict[str, Any], at_least: int) -> Samples:
    where, function = options.pop("data"), options.pop("function", None)
    where, function = split_reader(where) or (where, function)
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise RecipeError(f"{what} {setting('function', function)}: write the name of a function")
    counts = {"most": options.pop("most", None), "at_least": options.pop("at_least", at_least)}
    for name, given in counts.items():
        if given is not None or name != "most":
            count(f"{what} {name}", given)
    if counts["most"] is not None and counts["most"] < counts["at_least"]:
        raise RecipeError(
            f"{what} {setting('most', counts['most'])}: fewer than {setting('at_least', counts['at_least'])}"
        )
    files = options.pop("files", ())
    files = tuple(files) if isinstance(files, (list, tuple)) else (files,)
    if files and not function:
        raise RecipeError(f"{what} {option('files')}: only for a reader, {literal('reader.py:function')}")
    return Samples(where, function, counts["most"], counts["at_least"], files)
