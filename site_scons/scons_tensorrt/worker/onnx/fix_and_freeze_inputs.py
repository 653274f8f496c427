"""The rewrites of a model's inputs: frozen to constants, and their symbolic dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, TensorShapeProto, ValueInfoProto, numpy_helper

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import graph_walk, infer_shapes

if TYPE_CHECKING:
    Bounds = tuple[tuple[int, ...], ...]  # (min, opt, max) in each profile


def model_inputs(model: ModelProto) -> Sequence[ValueInfoProto]:
    """The graph's inputs without the initializers that old models list among them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def frozen_values(model: ModelProto, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values to freeze, in the types of the inputs. values: {input: number or nested lists}. Raises
    WorkerError (RecipeError) for one that does not have the input's type and shape."""
    known = {value.name: value for value in model_inputs(model)}
    graph_walk.check_names("freeze", "input", sorted(values), sorted(known))
    return {name: _array(known[name], values[name]) for name in sorted(values)}


def freeze(model: ModelProto, values: Mapping[str, np.ndarray]) -> str | None:
    """Replace inputs by constants."""
    known = {value.name: value for value in model_inputs(model)}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        model.graph.input.remove(known[name])
    return "%s frozen" % graph_walk.count(len(values), "input") if values else None


def _array(value: ValueInfoProto, given: Any) -> np.ndarray:
    """The value in the type of the input."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        raise recipe_error("freeze: input `%s` is not a tensor of numbers" % value.name)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    try:
        array = np.asarray(given)
        exact = np.asarray(array, dtype)
    except (TypeError, ValueError, OverflowError):
        raise recipe_error(
            "freeze: %r is no value for input `%s`, which is %s; write a number or nested lists of one size"
            % (given, value.name, dtype)
        ) from None
    whole = np.dtype(dtype).kind in "iub"
    if array.dtype.kind not in "iufb" or (whole and not np.array_equal(exact, array)):
        raise recipe_error(
            "freeze: %r does not fit input `%s`, which is %s" % (given, value.name, np.dtype(dtype))
        )
    if tensor.HasField("shape"):
        wanted = [dim.dim_value if infer_shapes.is_static(dim) else -1 for dim in tensor.shape.dim]
        if len(wanted) != exact.ndim or any(w not in (-1, have) for w, have in zip(wanted, exact.shape)):
            shape = ["?" if size < 0 else size for size in wanted]
            raise recipe_error(
                "freeze: the value for input `%s` has shape %s; the model takes [%s]"
                % (value.name, list(exact.shape), ", ".join(map(str, shape)))
            )
    return exact


def _symbolic(
    model: ModelProto, profiles: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[ValueInfoProto, int, TensorShapeProto.Dimension, Bounds]]:
    """(input, axis, dimension, its (min, opt, max) in every profile) of each symbolic dimension that all
    profiles state."""
    for value in model_inputs(model):
        ranges = [profile[value.name] for profile in profiles if value.name in profile]
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if infer_shapes.is_static(dim) or len(ranges) < max(1, len(profiles)):
                continue
            bounds = tuple(tuple(shape[axis] for shape in each) for each in ranges)
            yield value, axis, dim, bounds


def name_dimensions(model: ModelProto, profiles: Sequence[Mapping[str, Any]]) -> str | None:
    """Give the dimensions of inputs names of their own where one name stands for sizes that contradict in a
    profile: TensorRT takes dimensions of one name for equal. Dimensions with the same bounds still share a
    name, but not within one input if the name says nothing."""
    found = list(_symbolic(model, profiles))
    taken = {dim.dim_param for _, _, dim, _ in found}
    changed = 0
    for name in sorted(taken - {""}):
        if not _contradict([bounds for _, _, dim, bounds in found if dim.dim_param == name]):
            continue
        names: dict[Bounds, str] = {}
        for value, axis, dim, bounds in found:
            if dim.dim_param != name:
                continue
            if bounds not in names or not name.strip("?_-0123456789"):
                names[bounds] = graph_walk.new_name("%s_%d" % (value.name, axis), taken)
            dim.dim_param = names[bounds]
            changed += 1
    return "names of %s" % graph_walk.count(changed, "dimension") if changed else None


def _contradict(bounds: Sequence[Bounds]) -> bool:
    """Whether dimensions with these bounds cannot have one name: no size is in all ranges, or opt differs."""
    for profile in zip(*bounds):
        lows, usual, highs = zip(*profile)
        if len(set(usual)) > 1 or max(lows) > min(highs):
            return True
    return False


def fix_dimensions(model: ModelProto, profiles: Sequence[Mapping[str, Any]]) -> str | None:
    """Make symbolic dimensions constant that have one size in all profiles."""
    changed = 0
    for _, _, dim, bounds in _symbolic(model, profiles):
        sizes = {size for each in bounds for size in each}
        if len(sizes) == 1:
            dim.Clear()
            dim.dim_value = sizes.pop()
            changed += 1
    return "%s fixed" % graph_walk.count(changed, "dimension") if changed else None
