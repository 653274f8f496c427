"""What a build needs to know of an ONNX before the compile: its inputs, and its external-data files.

The digest cache keeps a summary while the file is unchanged (build/input_digests.py), so that only a new
model is read (read_onnx.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ...errors import RecipeError
from ...values import Value

DYNAMIC = -1  # a dimension
INTEGERS = "of unsigned, shifted or 32-bit integers"  # after Quantize- or DequantizeLinear, in `refused`
LFS = b"version https://git-lfs.github.com/spec/"
LARGEST_POINTER = 1024  # bytes, the limit of git-lfs
_T = TypeVar("_T")


class OnnxInput(Value):
    """A graph input. shape: DYNAMIC for a dimension known only at run time; None if the rank is unknown;
    dtype: DataType number of onnx.proto3, 0 if not stated; tensor: False for a sequence or an optional,
    which have no shape."""

    name: str
    shape: tuple[int, ...] | None
    dtype: int = 0
    tensor: bool = True

    @property
    def dynamic(self) -> bool:
        return self.tensor and (self.shape is None or DYNAMIC in self.shape)

    def __str__(self) -> str:
        return f"`{self.name}` {list(self.shape) if self.shape is not None else '[rank unknown]'}"


class OnnxSummary(Value):
    """inputs: without initializers; external: minimum size in bytes of each external-data file, by its
    location relative to the model's folder, sorted; elements: number in weights and constants, by DataType
    number; quantized: whether there are QuantizeLinear or DequantizeLinear nodes; exact: locations whose
    file must have exactly that size; functions: whether there are local functions; shared: each name that
    several dimensions of inputs have, with their (input, axis); refused: patterns among the nodes that
    TensorRT refuses (node_patterns.py)."""

    inputs: tuple[OnnxInput, ...]
    external: Mapping[str, int]
    elements: Mapping[int, int] = {}
    quantized: bool = False
    exact: tuple[str, ...] = ()
    functions: bool = False
    shared: Mapping[str, tuple[tuple[str, int], ...]] = {}
    refused: tuple[str, ...] = ()

    def to_json(self) -> list[Any]:
        inputs = [[i.name, i.shape, i.dtype, i.tensor] for i in self.inputs]
        more = [self.quantized, list(self.exact), self.functions]
        shared = {name: [list(place) for place in places] for name, places in self.shared.items()}
        return [inputs, dict(self.external), sorted(self.elements.items()), *more, shared, list(self.refused)]

    @classmethod
    def from_json(cls, data: Any) -> OnnxSummary:
        """The inverse of `to_json`. Raises ValueError for anything else."""
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
            shared = {
                name: tuple((_a(str, of), _a(int, axis)) for of, axis in places)
                for name, places in data[6].items()
            }
            refused = tuple(_a(str, pattern) for pattern in data[7])
            return cls(
                inputs, external, elements, _a(bool, data[3]), exact, _a(bool, data[5]), shared, refused
            )
        except (TypeError, ValueError, LookupError, AttributeError, RecipeError) as error:
            raise ValueError(f"not a summary: {error}") from None


def _a(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise ValueError(f"not a summary: {kind.__name__} expected")
    return value


def inside_folder(location: str) -> str:
    """The location, if it is a path inside the model's folder. Raises RecipeError."""
    parts = PurePosixPath(location)
    if "\0" in location or not parts.parts:
        what = "has a NUL character in its name" if "\0" in location else "is not a file name"
        raise RecipeError(f"its external data {location[:200]!r} {what}; save the model with another name")
    if parts.is_absolute() or ".." in parts.parts:
        raise RecipeError(
            f"its external data {location[:200]!r} is outside its folder; save the model with the data "
            "beside it"
        )
    if len(location) > 1024 or any(len(os.fsencode(part)) > 255 for part in parts.parts):
        raise RecipeError(
            f"its external data {location[:32]!r}… has a name too long for a file; save the model with "
            "another name"
        )
    return location


def check_data(path: Path, label: str, needed: int, exact: bool) -> None:
    """Raise RecipeError unless the external-data file at `path` has the size that the model needs.

    label: the user's name for it; needed, exact: minimum size in bytes, and whether it must be exactly
    that. A file that is not there was not downloaded: who hashed it reports one that is missing. Raises
    OSError.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size <= LARGEST_POINTER and path.read_bytes().startswith(LFS):
        raise RecipeError(f"{label} is a Git LFS pointer, not the data; run `git lfs pull`")
    if size < needed:
        raise RecipeError(
            f"{label} has {size} bytes and the model needs {needed}: it is truncated; download it again"
        )
    if exact and size > needed:
        raise RecipeError(
            f"{label} has {size} bytes and the model needs {needed}: its tensor states no `length`, so the "
            "data must end with the file; download it again, or save the model again with onnx.save"
        )
