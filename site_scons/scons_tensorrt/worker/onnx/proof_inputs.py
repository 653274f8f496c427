"""The inputs at which a prepared ONNX is compared with its original."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import fix_and_freeze_inputs, infer_shapes

SAMPLES = 16  # of a set that are compared
# Random inputs are by the first of these with which the original runs and its outputs are finite: whole
# numbers below the first value; whether the others are between 0 and 1, as a logarithm needs.
TRIES = ((100, False), (2, False), (1, False), (100, True), (2, True))


class Point(NamedTuple):
    """Inputs to compare at. where: for messages, such as `opt of profile 0`; optional: whether the original
    may fail, and rounded values may be off, since there are samples too."""

    where: str
    inputs: Mapping[str, np.ndarray]
    optional: bool = False


def points(
    model: ModelProto, profiles: Sequence[Mapping[str, Any]], samples: Mapping[str, Any] | None
) -> list[list[Point]]:
    """For each place where to compare, the inputs to try until the original runs: the samples, and random
    ones at min, opt and max of each profile. model: the prepared one."""
    if samples is None:
        return list(_random_points(model, profiles))
    from scons_tensorrt.worker.onnx import open_samples as sample_sets

    found = itertools.islice(sample_sets.read(samples, sample_sets.inputs_of(model)), SAMPLES)
    given = [[Point("sample %d" % number, arrays)] for number, arrays in enumerate(found)]
    drawn = _random_points(model, profiles)
    return given + [[point._replace(optional=True) for point in tries] for tries in drawn]


def _random_points(model: ModelProto, profiles: Sequence[Mapping[str, Any]]) -> Iterator[list[Point]]:
    """For each different shape of the profiles, random inputs: whole numbers are smaller with each try."""
    seen = set()
    for number, profile in enumerate(profiles or [{}]):
        for at, bound in enumerate(("min", "opt", "max")):
            sizes = {name: tuple(shapes[at]) for name, shapes in profile.items()}
            if tuple(sorted(sizes.items())) in seen:
                continue
            seen.add(tuple(sorted(sizes.items())))
            where = "%s of profile %d" % (bound, number) if profile else "its fixed shapes"
            yield [Point(where, _random_inputs(model, sizes, *each)) for each in TRIES]


def _random_inputs(
    model: ModelProto, sizes: Mapping[str, Sequence[int]], largest: int, positive: bool
) -> dict[str, np.ndarray]:
    """Inputs of these sizes; a shape tensor has them for its values. largest, positive:
    see `TRIES`."""
    random = np.random.default_rng(len(sizes))
    made = {}
    for value in fix_and_freeze_inputs.model_inputs(model):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type == TensorProto.STRING:
            raise recipe_error(
                "input `%s` is not a tensor of numbers, so the prepared model cannot be compared; "
                "write prepare='none'" % value.name
            )
        dims = [dim.dim_value if infer_shapes.is_static(dim) else 1 for dim in tensor.shape.dim]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        given = sizes.get(value.name)
        if given is not None and dtype.kind == "i" and len(dims) <= 1 and _is_fixed(tensor):
            made[value.name] = np.asarray(given, dtype).reshape(dims)
            continue
        shape = dims if given is None else given
        if dtype.kind in "iu":
            made[value.name] = random.integers(0, largest, shape).astype(dtype)
        elif dtype.kind == "b":
            made[value.name] = random.integers(0, 2, shape).astype(dtype)
        else:
            drawn = random.random(shape) if positive else random.standard_normal(shape)
            made[value.name] = np.asarray(drawn).astype(dtype)
    return made


def _is_fixed(tensor: Any) -> bool:
    """Whether all sizes are in the model: bounds of such an input, of integers and of rank 0 or 1, are its
    values (recipe/shapes.py)."""
    return all(infer_shapes.is_static(dim) for dim in tensor.shape.dim)
