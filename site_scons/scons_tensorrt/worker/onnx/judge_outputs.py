"""Decides whether outputs are within the bound of an accuracy gate, for a converted ONNX and for an engine:
error and bound of each output.

An output of one sample has one error and one bound. Of all samples, the one that uses the largest share
of its bound decides. Elements that are the same NaN or infinity in both models are equal; in one alone, their
error is infinite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scons_tensorrt.worker.common.errors import accuracy_error

BINS = 32  # of a histogram


class Figures:
    """The worst figures of each output so far. options: rtol, atol, metric; histograms: whether they have
    one of the values."""

    def __init__(self, names: Sequence[str], options: Mapping[str, Any], histograms: bool = False) -> None:
        self._options = options
        self._histograms = histograms
        self._worst: dict[str, dict[str, Any]] = {name: {} for name in names}
        self._ranks: dict[str, tuple[bool, float]] = {}
        self._count = 0

    def add(self, number: int, outputs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Add a sample. outputs: {name: (the original's, the converted)}."""
        self._count += 1
        for name, (original, converted) in outputs.items():
            figures = measure(name, original, converted, self._options)
            figures["sample"] = number
            self.keep(name, figures, original, converted)

    def keep(self, name: str, figures: dict[str, Any], original: np.ndarray, converted: np.ndarray) -> None:
        """Keep the figures of an output if they are its worst. An empty output ranks below all others."""
        rank = original.size > 0, share(figures)
        if name not in self._ranks or rank > self._ranks[name]:
            found = histogram(original, converted) if self._histograms else None
            self._worst[name] = {**figures, "histogram": found} if found else figures
            self._ranks[name] = rank

    def worst_sample(self) -> int:
        """The number of the sample that uses the largest share of its bound."""
        worst = max((each for each in self._worst.values() if each), key=share, default={"sample": 0})
        return int(worst["sample"])

    def worst(self) -> dict[str, dict[str, Any]]:
        """The figures of each output's worst sample, by name."""
        return {name: figures for name, figures in self._worst.items() if figures}

    @property
    def compared(self) -> bool:
        return bool(self._ranks)

    def judged(
        self,
        target: str,
        corners: Mapping[str, Any] | None = None,
        quantized: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """All figures, also written to `target`, a JSON file. corners: the facts of corners, whose times are
        not written; quantized: see quantized_layers.py. Raises WorkerError (AccuracyError) if an output is
        beyond its bound, or nothing was compared."""
        outputs = self.worst()
        bounds = {name: self._options[name] for name in ("rtol", "atol", "metric")}
        figures: dict[str, Any] = {"samples": self._count, "outputs": outputs, **bounds}
        if corners:
            figures["corners"] = corners
        if quantized:
            figures["quantized"] = quantized
        with open(target, "w", encoding="utf-8") as out:
            json.dump(_without_times(figures), out, sort_keys=True, indent=1)
            out.write("\n")
        self.judge()
        return figures

    def judge(self) -> None:
        """Raise WorkerError (AccuracyError) if an output is beyond its bound, or nothing was compared."""
        if self._ranks and not any(compared for compared, _ in self._ranks.values()):
            raise accuracy_error(
                "every output is empty in every sample, so nothing was compared; add samples whose "
                "outputs are not empty",
            )
        _judge(self.worst(), self._options)


def _without_times(value: Any) -> Any:
    """The same without `seconds`, so that equal figures are equal bytes."""
    if isinstance(value, Mapping):
        return {name: _without_times(each) for name, each in value.items() if name != "seconds"}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _judge(found: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    # Not `error > bound`, which is false for NaN.
    beyond = [name for name in found if not found[name]["error"] <= found[name]["bound"]]
    if not beyond:
        return
    name = max(beyond, key=lambda name: share(found[name]))
    more = ", and of %d more" % (len(beyond) - 1) if len(beyond) > 1 else ""
    raise accuracy_error(
        "output `%s`%s: %s error %.4g, beyond %.4g (%s; sample %d, worst at %s: %.6g, and %.6g in the "
        "original); widen rtol= or atol=, or keep more in float32"
        % (
            *(name, more, options["metric"], found[name]["error"], found[name]["bound"]),
            bound_text(options),
            *(found[name][key] for key in ("sample", "at", "converted", "original")),
        ),
    )


def bound_text(options: Mapping[str, Any]) -> str:
    """The bound of a gate, for messages."""
    if options["metric"] == "cosine":
        return "1 - cosine <= atol %g" % options["atol"]
    return "atol %g + rtol %g x |original|" % (options["atol"], options["rtol"])


def share(figures: Mapping[str, Any]) -> float:
    """The share of its bound that an output uses."""
    return float(_shares(np.float64(figures["error"]), np.float64(figures["bound"])))


def _shares(error: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The share of its bound that each error uses; see `share_of_bound` in recipe/gate_options.py."""
    with np.errstate(all="ignore"):
        share = np.where(error == 0, 0.0, error / bounds)
    return np.where(np.isnan(share), np.inf, share)


def measure(
    name: str, original: np.ndarray, converted: np.ndarray, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of one output of one sample: error and bound by the metric, and where the largest error
    is; for information, the largest and the mean absolute error, and the cosine. Raises WorkerError
    (AccuracyError) if the shapes differ."""
    if original.shape != converted.shape:
        raise accuracy_error(
            "output `%s` has shape %s, and %s in the original"
            % (name, list(converted.shape), list(original.shape)),
        )
    if original.size == 0:
        return {"error": 0.0, "bound": 0.0, "at": [], "original": 0.0, "converted": 0.0}
    # Outputs may be large, so arrays are reused, and what finite values do not need is left out.
    a, b = np.array(original, np.float64), np.array(converted, np.float64)
    finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
    metric, rtol, atol = options["metric"], options["rtol"], options["atol"]
    with np.errstate(all="ignore"):
        error = np.asarray(np.subtract(b, a))  # numpy computes a scalar as a plain number
        np.abs(error, out=error)
        size = np.asarray(np.abs(a))
        if not finite:
            error[~(np.isfinite(a) & np.isfinite(b))] = np.inf
            error[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
            size[~np.isfinite(a)] = 0.0
        if metric in ("max", "mean", "median"):
            reduce = {"max": np.max, "mean": np.mean, "median": np.median}[metric]
            judged, bound = reduce(error), float(atol + rtol * reduce(size))
        largest = float(size.max())
        if metric == "elemwise":
            bounds = np.multiply(size, rtol, out=size)
            bounds += atol
            at = np.unravel_index(int(np.argmax(_shares(error, bounds))), a.shape)
            judged, bound = error[at], float(bounds[at])
        else:
            at = np.unravel_index(int(np.argmax(error)), a.shape)
        values = float(a[at]), float(b[at])
        cosine = _cosine(a, b, largest) if finite else float(np.array_equal(a, b, equal_nan=True))
        if metric == "cosine":
            judged, bound = 1.0 - cosine, atol
    return {
        "error": float(judged),
        "bound": bound,
        "at": [int(i) for i in at],
        "original": values[0],
        "converted": values[1],
        "max_abs": float(error.max()),
        "mean_abs": float(error.mean()),
        "cosine": cosine,
    }


def histogram(original: np.ndarray, converted: np.ndarray) -> dict[str, Any] | None:
    """How many elements have which values: `low` and `high`, the ends of the bins, and the counts in each bin
    of both tensors. Without elements that are not finite; None if there are no others."""
    tensors = [
        each[np.isfinite(each)] for each in (original.astype(np.float64), converted.astype(np.float64))
    ]
    ends = [end for each in tensors if each.size for end in (float(each.min()), float(each.max()))]
    if not ends or not np.isfinite(max(ends) - min(ends)):
        return None
    low, high = min(ends), max(ends)
    counts = [np.histogram(each, BINS, (low, high))[0].tolist() for each in tensors]
    return {"low": low, "high": high, "original": counts[0], "converted": counts[1]}


def _cosine(a: np.ndarray, b: np.ndarray, largest: float) -> float:
    """The cosine of two finite tensors as vectors; 1 for two of zeros. Overwrites both. largest: magnitude of
    the first."""
    scale = max(largest, float(b.max()), -float(b.min()))
    if scale == 0.0:
        return 1.0
    x, y = np.divide(a, scale, out=a).ravel(), np.divide(b, scale, out=b).ravel()
    lengths = float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return float(x @ y) / lengths if lengths else 0.0
