"""Optimization profiles: the minimum, optimum and maximum shape of each dynamic input.

`shapes={"x": (min, opt, max)}`, or `shapes={"x": shape}` if all three are the same; a list of such maps
makes several profiles. A shape is a tuple of sizes, in elements. For a shape tensor (integers from which
TensorRT computes shapes) it is a tuple of values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RecipeError, plural
from .onnx.summary import OnnxInput
from .option_checks import assigned, entry, in_brackets, literal, setting, word

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]

_WHOLE = (6, 7)  # INT32 and INT64 of onnx.proto3
_LARGEST = 2**31 - 1


def parse_profiles(shapes: Any) -> tuple[Profile, ...]:
    """The profiles in the option `shapes`. Raises RecipeError."""
    if shapes is None or (isinstance(shapes, (Mapping, list, tuple)) and not shapes):
        return ()
    maps = shapes if isinstance(shapes, (list, tuple)) else [shapes]
    if not all(isinstance(each, Mapping) and each for each in maps):
        raise RecipeError(
            f"{setting('shapes', shapes)}: write a map from input name to one shape or "
            f"{in_brackets('min', 'opt', 'max')}, such as {setting('shapes', {'image': (1, 3, 32, 32)})}"
        )
    return tuple({str(name): _parse_range(str(name), each[name]) for name in each} for each in maps)


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
        f"shape of input `{name}` is {literal(value)}: write one shape or "
        f"{in_brackets('min', 'opt', 'max')}, each a {word('tuple', 'list')} of integers"
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _is_size(size: Any) -> bool:
    return type(size) is int and abs(size) <= _LARGEST  # a shape tensor's values may be negative


def text(bounds: Sequence[Sequence[int]]) -> str:
    """For the cache key and messages: `1x3x32x32` or `1x3x32x32..1x3x64x64..1x3x128x128`."""
    words = ["x".join(str(size) for size in shape) or "scalar" for shape in bounds]
    return words[0] if len(set(words)) == 1 else "..".join(words)


def problems(profiles: Sequence[Profile], inputs: Sequence[OnnxInput]) -> list[str]:
    """Why `profiles` do not fit a model with these inputs, each with the correction."""
    found: list[str] = []
    known = {i.name: i for i in inputs}
    for profile in profiles or ({},):
        for name, bounds in profile.items():
            if name not in known:
                listed = ", ".join(str(i) for i in inputs) or "none"
                found.append(f"shapes: the model has no input `{name}`; inputs: {listed}")
            else:
                found.extend(_against(known[name], bounds))
        found.extend(
            f"input {i} is dynamic: write "
            f"{assigned('shapes', entry(i.name, in_brackets('min', 'opt', 'max')))} or one shape, "
            f"each like {_template(i)}"
            for i in inputs
            if i.dynamic and i.name not in profile
        )
    return list(dict.fromkeys(found))


def takes_values(wanted: OnnxInput) -> bool:
    """Whether bounds of this input are values, not sizes: TensorRT's shape tensors are integers of rank 0,
    or of rank 1 with a fixed length."""
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
            found.append(f"shape of {wanted}, axis {axis}: {min(low, usual, high)} is negative")
        if not low <= usual <= high:
            found.append(f"shape of {wanted}, axis {axis}: {_out_of_order(low, usual, high)}")
        fixed = wanted.shape[axis] if wanted.shape is not None else -1
        if fixed >= 0 and (low, usual, high) != (fixed, fixed, fixed):
            found.append(f"shape of {wanted}, axis {axis}: its size in the model is {fixed}")
    return found


def _values_against(wanted: OnnxInput, bounds: tuple[Shape, Shape, Shape]) -> list[str]:
    """The same for a shape tensor, whose bounds have one value for each element."""
    length = wanted.shape[0] if wanted.shape else 1
    if {len(values) for values in bounds} != {length}:
        what = f"write {plural(length, 'value')}"
        return [f"values of shape tensor {wanted} are {text(bounds)}: {what} in each of min, opt, max"]
    return [
        f"values of shape tensor {wanted}, element {at}: {_out_of_order(*each)}"
        for at, each in enumerate(zip(*bounds))
        if not each[0] <= each[1] <= each[2]
    ]


def _out_of_order(low: int, usual: int, high: int) -> str:
    wrong = [f"min {low} > opt {usual}"] * (low > usual) + [f"opt {usual} > max {high}"] * (usual > high)
    return f"{' and '.join(wrong)}; write min <= opt <= max"


def _template(wanted: OnnxInput) -> str:
    if wanted.shape is None:
        return in_brackets("sizes", "...")
    return in_brackets(*("?" if size < 0 else str(size) for size in wanted.shape))
