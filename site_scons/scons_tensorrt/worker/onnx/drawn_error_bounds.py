"""How far an output may be from the original's on drawn inputs.

A draw is no input of real use, so it asks less than a sample. Elements that are not finite in the original
are not judged. An output that moves by more than `STEEP` times its inputs may be as far off as it moves.
Where it jumps, as the index of the largest value does, a `SHARE` of the elements may be off in fp32, and its
bound is not judged in other precisions. An output so small that zeros would pass the bound is held to `SHARE`
of its own size, and in fp32 one whose mean would pass it to `SHARE` of its spread. Samples, where they are
given, judge better: beside them, and except in fp32, the bound of draws is `BESIDE_SAMPLES` times that of the
gate, whatever the size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scons_tensorrt.worker.onnx.judge_outputs import measure

if TYPE_CHECKING:
    Outputs = Mapping[str, np.ndarray]

SHARE = 0.1
SMALL = 2.0**-14  # the smallest normal number of fp16: what is below may be lost in 16 bit
ROUNDING = {"fp32": 2.0**-18, "bf16": 2.0**-7}  # of an input, relative
ROUNDING_16 = 2.0**-10  # of all other precisions
TF32 = 2.0**-10  # of a value in fp32, which GPUs may multiply so
BESIDE_SAMPLES = 4.0
STEEP = 8.0  # an output that moves by more than so many roundings of the inputs, relative
MOVES = 4.0  # times its movement by one rounding of the inputs
NUDGES = (1.0, 16.0)  # roundings; the second finds outputs that jump
NOT_JUDGED = "not judged"


class Answers(NamedTuple):
    """The outputs of one run, see `corners.Run`; other: of what is compared, None if there is nothing to
    compare."""

    kind: str
    original: Outputs
    other: Outputs | None


def options_of_draws(options: Mapping[str, Any], sampled: bool) -> dict[str, Any]:
    """The options of a gate for draws: rtol, atol, metric, profiles, precision, wide (beside samples, except
    in fp32), sampled (beside samples), on_cpu (whether a CPU computes what is compared)."""
    corners = options["corners"]
    wide = sampled and corners["precision"] != "fp32"
    times = BESIDE_SAMPLES if wide else 1.0
    more = {"rtol": options["rtol"] * times, "atol": options["atol"] * times}
    return {**options, **corners, **more, "wide": wide, "sampled": sampled, "on_cpu": True}


def nudged(inputs: Outputs, precision: str) -> list[dict[str, np.ndarray]]:
    """The inputs, with the floating-point ones moved by each of `NUDGES`."""
    random = np.random.default_rng(0)
    size = ROUNDING.get(precision, ROUNDING_16)
    signs = {name: random.integers(0, 2, array.shape) * 2.0 - 1.0 for name, array in inputs.items()}
    return [
        {
            name: np.asarray(array * (1.0 + size * times * signs[name])).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for name, array in inputs.items()
        }
        for times in NUDGES
    ]


class Movement:
    """How far the outputs of the original move by themselves. draw: of the draw; compute: its outputs for the
    nudged inputs, called once they are needed."""

    def __init__(
        self, draw: Outputs, compute: Callable[[], Sequence[Outputs]], options: Mapping[str, Any]
    ) -> None:
        self._draw, self._compute, self._options = draw, compute, options
        self._moved: Sequence[Outputs] | None = None

    def _outputs(self) -> Sequence[Outputs]:
        if self._moved is None:
            self._moved = self._compute()
        return self._moved

    def shapes(self, name: str) -> set[tuple[int, ...]]:
        """The shapes of an output, of which there are several if they depend on the values of inputs."""
        return {each[name].shape for each in (self._draw, *self._outputs())}

    def of(self, name: str, error: Callable[[np.ndarray, np.ndarray], float]) -> tuple[float, float]:
        """How far an output moves by each of the nudges. error: of two outputs."""
        if len(self.shapes(name)) > 1:
            return float("inf"), float("inf")
        near, far = (error(*both_finite(self._draw[name], each[name])) for each in self._outputs())
        return near, far

    def allowed(self, name: str, error: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """How far an output may be off, because it moves by itself."""
        near, far = self.of(name, error)
        return max(MOVES * near, far)


class Measured(NamedTuple):
    """figures: as `figures.measure` has them; measure: the metric, "relative", "relative to its spread",
    "elements beyond" (a share), or `NOT_JUDGED`."""

    figures: dict[str, Any]
    measure: str

    @property
    def passes(self) -> bool:
        return bool(self.figures["error"] <= self.figures["bound"])


def measured(
    name: str, original: np.ndarray, other: np.ndarray, options: Mapping[str, Any], movement: Movement
) -> Measured:
    """The figures of an output, by the metric of the gate, or relative to its size where zeros would pass;
    otherwise if it moves by itself. Raises WorkerError (AccuracyError) for another shape."""
    found = _plain(name, original, other, options)
    if found.passes:
        return found

    def error(a: np.ndarray, b: np.ndarray) -> float:
        if found.measure in RELATIVE:
            return RELATIVE[found.measure](a, b)
        return float(measure(name, a, b, options)["error"])

    def beyond(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a.astype(np.float64), b.astype(np.float64)
        return float(np.mean(np.abs(b - a) > options["atol"] + options["rtol"] * np.abs(a)))

    bound = found.figures["bound"]
    near, far = movement.of(name, error)
    smooth = near > 0 and near * NUDGES[1] / 4 <= far <= near * NUDGES[1] * 4
    if max(near, far) > bound and not smooth and options["metric"] != "cosine":
        if options["precision"] != "fp32":
            return Measured({**found.figures, "bound": float("inf")}, NOT_JUDGED)
        bound = max(SHARE, MOVES * max(movement.of(name, beyond)))
        figures = {**found.figures, "error": beyond(original, other), "bound": bound}
        return Measured(figures, "elements beyond")
    size = ROUNDING.get(options["precision"], ROUNDING_16)
    steep = movement.of(name, RELATIVE.get(found.measure, relative))[0] > STEEP * size
    # An output of whole numbers moves in steps, such as the bytes of a picture.
    if not steep and original.dtype.kind not in "iu":
        return found
    return found._replace(figures={**found.figures, "bound": max(bound, MOVES * near, far)})


def _plain(name: str, original: np.ndarray, other: np.ndarray, options: Mapping[str, Any]) -> Measured:
    figures, metric = measure(name, original, other, options), options["metric"]
    if options["wide"] or metric == "cosine" or not original.size:
        return Measured(figures, metric)

    def would_pass(constant: float) -> bool:
        found = measure(name, original, np.full_like(original, constant), options)
        return bool(found["error"] <= found["bound"])

    values = original.astype(np.float64)
    largest = float(np.abs(values).max())
    if largest >= SMALL and would_pass(0):
        return Measured({**figures, "error": relative(original, other), "bound": SHARE}, "relative")
    deviation = float(values.std())
    if options["precision"] != "fp32" or original.dtype.kind != "f" or not deviation:
        return Measured(figures, metric)
    if would_pass(float(values.mean())):
        bound = SHARE + TF32 * largest / deviation
        found = {**figures, "error": spread(original, other), "bound": bound}
        return Measured(found, "relative to its spread")
    return Measured(figures, metric)


def both_finite(original: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with 0 where the original is not finite."""
    finite = np.isfinite(original)
    if finite.all():
        return original, other
    zero = np.zeros((), original.dtype)
    return np.where(finite, original, zero), np.where(finite, other, zero)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The length of the difference, as a share of that of the first."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    length, difference = float(np.linalg.norm(a)), float(np.linalg.norm(b - a))
    return difference / length if length else (float("inf") if difference else 0.0)


def spread(a: np.ndarray, b: np.ndarray) -> float:
    """The length of the difference, as a share of that of the first's differences from its mean."""
    mean = a.astype(np.float64).mean()
    return relative(a - mean, b - mean)


RELATIVE = {"relative": relative, "relative to its spread": spread}
