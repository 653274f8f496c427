"""What must be known of an ONNX before its compile: its inputs, and its external-data files.

The memo keeps it for as long as the file is the same, so that only a new model is walked through
(onnx_file.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from ...errors import RecipeError

DYNAMIC = -1  # a dimension
LFS = b"version https://git-lfs.github.com/spec/"
LARGEST_POINTER = 1024  # bytes, as git-lfs has it
_T = TypeVar("_T")


class OnnxInput(NamedTuple):
    """A graph input. shape: -1 for a dimension known only at run time; None: rank unknown;
    dtype: of its elements, a DataType number of onnx.proto3, 0 where it is not said; tensor: False
    for a sequence or an optional, which have no shape to give."""

    name: str
    shape: tuple[int, ...] | None
    dtype: int = 0
    tensor: bool = True

    @property
    def dynamic(self) -> bool:
        return self.tensor and (self.shape is None or DYNAMIC in self.shape)

    def __str__(self) -> str:
        return f"`{self.name}` {list(self.shape) if self.shape is not None else '[rank unknown]'}"


class OnnxSummary(NamedTuple):
    """inputs: without the initializers that old models list among them; external: the
    locations of external data, relative to the model's folder, sorted, each with the bytes that
    the file must have at least; elements: of weights and constants, by DataType number;
    quantized: whether it has QuantizeLinear or DequantizeLinear nodes; exact: the locations whose file
    must have no byte more; functions: whether it has local functions."""

    inputs: tuple[OnnxInput, ...]
    external: Mapping[str, int]
    elements: Mapping[int, int] = {}
    quantized: bool = False
    exact: tuple[str, ...] = ()
    functions: bool = False

    def to_json(self) -> list[Any]:
        inputs = [[i.name, i.shape, i.dtype, i.tensor] for i in self.inputs]
        more = [self.quantized, list(self.exact), self.functions]
        return [inputs, dict(self.external), sorted(self.elements.items()), *more]

    @classmethod
    def from_json(cls, data: Any) -> OnnxSummary:
        """Raises ValueError for what `to_json` did not write."""
        try:
            inputs = tuple(
                OnnxInput(
                    _a(str, n),
                    None if s is None else tuple(_a(int, d) for d in s),
                    _a(int, t),
                    _a(bool, plain),
                )
                for n, s, t, plain in data[0]
            )
            external = {inside_folder(name): _a(int, least) for name, least in data[1].items()}
            elements = {_a(int, t): _a(int, n) for t, n in data[2]}
            exact = tuple(_a(str, name) for name in data[4])
            return cls(inputs, external, elements, _a(bool, data[3]), exact, _a(bool, data[5]))
        except (TypeError, ValueError, LookupError, AttributeError, RecipeError) as error:
            raise ValueError(f"not a summary: {error}") from None


def _a(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise ValueError(f"not a summary: {kind.__name__} expected")
    return value


def inside_folder(location: str) -> str:
    """The location, if it is one of a file below the model's folder. Raises RecipeError."""
    parts = PurePosixPath(location)
    if "\0" in location or not parts.parts:
        what = "has a NUL character in its name" if "\0" in location else "is the name of no file"
        raise RecipeError(f"its external data {location[:200]!r} {what}; save the model with another")
    if parts.is_absolute() or ".." in parts.parts:
        raise RecipeError(
            f"its external data {location[:200]!r} lies outside its folder; save the model with the "
            "data beside it"
        )
    if len(location) > 1024 or any(len(os.fsencode(part)) > 255 for part in parts.parts):
        raise RecipeError(
            f"its external data {location[:32]!r}… has a name that no file can have; save the model "
            "with another"
        )
    return location


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what git-lfs leaves in place of the real one. Raises OSError."""
    if path.stat().st_size > LARGEST_POINTER:
        return False
    with open(path, "rb") as file:
        return file.read(len(LFS)) == LFS


def check_data(path: Path, label: str, needed: int, exact: bool) -> None:
    """Raise RecipeError where the external-data file at `path` is not what a model takes.

    label: what people call it; needed, exact: as `ExternalData` tells. Raises OSError.
    """
    size = path.stat().st_size
    if size <= LARGEST_POINTER and is_lfs_pointer(path):
        raise RecipeError(f"{label} is a git-lfs pointer, not the data; run `git lfs pull`")
    if size < needed:
        raise RecipeError(
            f"{label} has {size} bytes and the model needs {needed}: it is cut short; fetch it again"
        )
    if exact and size > needed:
        raise RecipeError(
            f"{label} has {size} bytes and the model takes {needed}: its tensor states no `length`, so "
            "the data must end with the file; fetch it again, or save the model again with onnx.save"
        )
