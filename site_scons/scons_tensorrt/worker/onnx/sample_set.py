"""What every set of samples has in common: its limits, and the check that each sample fits the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scons_tensorrt.worker.common.errors import recipe_error


class ModelInput(NamedTuple):
    """shape: -1 is a dynamic dimension; None if the model does not state the rank."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...] | None


class SampleSet:
    """An iterable of {input name: array}, which can be iterated again. Each array has the input's dtype and
    shape. Raises WorkerError (RecipeError) that names the file."""

    def __init__(self, spec: Mapping[str, Any], inputs: Sequence[ModelInput]) -> None:
        self.path: str = spec["path"]
        self.inputs = inputs
        self.names = [name for name, _, _ in inputs]
        self._most: int | None = spec["most"]
        self._at_least: int = spec["at_least"]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        count = 0
        for where, arrays in self._read():
            sample = {
                name: _fitted(where, arrays[name], name, dtype, shape) for name, dtype, shape in self.inputs
            }
            if sample and not any(array.size for array in sample.values()):
                shapes = ", ".join("`%s` %s" % (name, shape_text(a.shape)) for name, a in sample.items())
                raise recipe_error("%s is empty in every input: %s; remove it" % (where, shapes))
            yield sample
            count += 1
            if count == self._most:
                break
        self._check_count(count)

    def _read(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yield (the sample as messages name it, its arrays as they are)."""
        raise NotImplementedError

    def _check_count(self, count: int) -> None:
        if count == 0:
            raise recipe_error("%s has no samples; add some" % self.path)
        if count < self._at_least:
            samples = "1 sample" if count == 1 else "%d samples" % count
            raise recipe_error(
                "%s has %s, fewer than at_least=%d; add samples or lower at_least"
                % (self.path, samples, self._at_least)
            )

    def _check_names(self, where: str, given: Collection[str]) -> None:
        """Raise WorkerError unless these names are exactly the model's inputs."""
        unknown = sorted(set(given) - set(self.names))
        missing = [name for name in self.names if name not in given]
        if unknown or missing:
            faults = ["`%s` is not an input of the model" % name for name in unknown[:3]]
            faults += ["input `%s` is missing" % name for name in missing[:3]]
            wanted = ", ".join("`%s`" % name for name in self.names)
            raise recipe_error("%s: %s; the model's inputs are %s" % (where, ", ".join(faults), wanted))


def shape_text(shape: Sequence[int] | None) -> str:
    """A shape for messages, `?` for a dynamic dimension."""
    if shape is None:
        return "of any rank"
    return "[%s]" % ", ".join("?" if dim < 0 else str(dim) for dim in shape)


def with_batch(array: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    """The array with the model's batch axis added if only that is missing and the batch is 1."""
    if shape and array.ndim == len(shape) - 1 and shape[0] in (1, -1):
        return array[None]
    return array


def _fitted(
    where: str, array: np.ndarray, name: str, dtype: np.dtype, shape: Sequence[int] | None
) -> np.ndarray:
    """The array as the model takes it. Raises WorkerError if its shape, dtype or values do not fit."""
    at = "%s, input `%s`" % (where, name)
    if shape is not None and not (
        len(shape) == array.ndim and all(dim in (-1, given) for dim, given in zip(shape, array.shape))
    ):
        raise recipe_error(
            "%s has shape %s; the model takes %s" % (at, shape_text(array.shape), shape_text(shape))
        )
    _check_finite(at, array)
    return _cast(at, array, dtype)


def _check_finite(at: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "fc":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
        kind = "NaN" if np.isnan(array[index]) else "Inf"
        raise recipe_error("%s has %s at %s, %d bad values in all" % (at, kind, list(index), int(bad.sum())))


def _cast(at: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array in `dtype`. A cast may round a wider float, and change nothing else."""
    if array.dtype == dtype:
        return np.ascontiguousarray(array).reshape(array.shape)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise recipe_error("%s is %s; the model takes %s" % (at, array.dtype, dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(dtype)
        if array.dtype.kind == "f":
            fits = bool(np.isfinite(made).all())
        else:
            fits = np.array_equal(made.astype(array.dtype), array)
    if not fits:
        raise recipe_error(
            "%s is %s with values that %s cannot represent; the model takes %s"
            % (at, array.dtype, dtype, dtype)
        )
    return made
