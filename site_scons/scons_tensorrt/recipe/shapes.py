"""Optimization profiles: the smallest, the usual and the largest shape of each dynamic input.

`shapes={"x": (min, opt, max)}` or `shapes={"x": shape}` where all three are one; a list of
such maps makes several profiles. A shape is a tuple of sizes, in elements; of a shape tensor,
whole numbers that TensorRT computes shapes from, it is a tuple of values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RecipeError, plural
from .onnx.summary import OnnxInput

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]

_WHOLE = (6, 7)  # INT32 and INT64 of onnx.proto3
_LARGEST = 2**31 - 1


def parse_profiles(shapes: Any) -> tuple[Profile, ...]:
    """The profiles in what a user wrote as `shapes`. Raises RecipeError."""
    if shapes is None or (isinstance(shapes, (Mapping, list, tuple)) and not shapes):
        return ()
    maps = shapes if isinstance(shapes, (list, tuple)) else [shapes]
    return tuple(_parse_profile(each) for each in maps)


def _parse_profile(shapes: Any) -> Profile:
    if not isinstance(shapes, Mapping) or not shapes:
        raise RecipeError(
            f"shapes={shapes!r}: write a map from an input's name to (min, opt, max) or one shape"
        )
    return {str(name): _parse_range(str(name), value) for name, value in shapes.items()}


def _parse_range(name: str, value: Any) -> tuple[Shape, Shape, Shape]:
    if _is_list(value):
        if all(_is_size(size) for size in value):
            shape = tuple(value)
            return shape, shape, shape
        if len(value) == 3 and all(
            _is_list(shape) and all(_is_size(size) for size in shape) for shape in value
        ):
            low, usual, high = (tuple(shape) for shape in value)
            return low, usual, high
    raise RecipeError(
        f"shape of input `{name}` is {value!r}: write (min, opt, max) or one shape, each a "
        "tuple of whole numbers"
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _is_size(size: Any) -> bool:
    return type(size) is int and abs(size) <= _LARGEST  # a shape tensor's values may be negative


def text(bounds: tuple[Shape, Shape, Shape]) -> str:
    """For the key and for people: `1x3x32x32` or `1x3x32x32..1x3x64x64..1x3x128x128`."""
    words = ["x".join(str(size) for size in shape) or "scalar" for shape in bounds]
    return words[0] if len(set(words)) == 1 else "..".join(words)


def problems(profiles: Sequence[Profile], inputs: Sequence[OnnxInput]) -> list[str]:
    """What is wrong with `profiles` for a model with these inputs, each with what to write."""
    found: list[str] = []
    known = {i.name: i for i in inputs}
    for profile in profiles or ({},):
        for name, bounds in profile.items():
            if name not in known:
                listed = ", ".join(str(i) for i in inputs) or "none"
                found.append(f"shapes names `{name}`, which is no input; inputs: {listed}")
            else:
                found.extend(_against(known[name], bounds))
        found.extend(
            f"input {i} is dynamic: write shapes={{{i.name!r}: (min, opt, max)}} or one shape, "
            f"each like {_template(i)}"
            for i in inputs
            if i.dynamic and i.name not in profile
        )
    return list(dict.fromkeys(found))


def takes_values(wanted: OnnxInput) -> bool:
    """Whether bounds of this input are values, not sizes: TensorRT's shape tensors are whole
    numbers of rank 0, or of rank 1 with a fixed length."""
    return wanted.dtype in _WHOLE and wanted.shape is not None and wanted.shape in ((), wanted.shape[:1])


def _against(wanted: OnnxInput, bounds: tuple[Shape, Shape, Shape]) -> list[str]:
    if takes_values(wanted) and not wanted.dynamic:
        return _values_against(wanted, bounds)
    ranks = {len(shape) for shape in bounds}
    rank = len(wanted.shape) if wanted.shape is not None else len(bounds[0])
    if ranks != {rank}:
        what = f"write {plural(rank, 'size')}, like {_template(wanted)}"
        return [f"shape of {wanted} is {text(bounds)}: {what}"]
    found = []
    for axis, (low, usual, high) in enumerate(zip(*bounds)):
        if min(low, usual, high) < 0:
            found.append(f"shape of {wanted}, axis {axis}: {min(low, usual, high)} is no size")
        if not low <= usual <= high:
            found.append(f"shape of {wanted}, axis {axis}: not min {low} <= opt {usual} <= max {high}")
        fixed = wanted.shape[axis] if wanted.shape is not None else -1
        if fixed >= 0 and (low, usual, high) != (fixed, fixed, fixed):
            found.append(f"shape of {wanted}, axis {axis}: the model fixes it to {fixed}")
    return found


def _values_against(wanted: OnnxInput, bounds: tuple[Shape, Shape, Shape]) -> list[str]:
    """A shape tensor's bounds are its smallest, usual and largest values, one for each element."""
    length = wanted.shape[0] if wanted.shape else 1
    if {len(values) for values in bounds} != {length}:
        what = f"write {plural(length, 'value')}"
        return [f"values of shape tensor {wanted} are {text(bounds)}: {what} in each of min, opt, max"]
    return [
        f"values of shape tensor {wanted}, element {at}: not min {low} <= opt {usual} <= max {high}"
        for at, (low, usual, high) in enumerate(zip(*bounds))
        if not low <= usual <= high
    ]


def _template(wanted: OnnxInput) -> str:
    if wanted.shape is None:
        return "(sizes, ...)"
    sizes = ["?" if size < 0 else str(size) for size in wanted.shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
