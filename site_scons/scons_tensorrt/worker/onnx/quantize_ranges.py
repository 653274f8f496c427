"""The ranges of activations: the largest magnitudes that a quantized model represents, from samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from scons_tensorrt.worker.common.errors import one_line, recipe_error
from scons_tensorrt.worker.onnx import model_file
from scons_tensorrt.worker.onnx.quantize_select import QuantizedNode
from scons_tensorrt.worker.onnx.runtime_options import session_options

BINS = 4096  # of a histogram; at least half of them are in use
LEVELS = 128  # magnitudes of an int8
CANDIDATES = 256  # thresholds that entropy tries
ALMOST_ZERO = 1e-4  # of one value


def open_session(
    model: ModelProto, tensors: Iterable[str], external: bool, temporary: str
) -> onnxruntime.InferenceSession:
    """A session of which these tensors are outputs too. Leaves the model as it is. Raises WorkerError
    (RecipeError)."""
    known = {value.name for value in (*model.graph.output, *model.graph.input)}
    with_outputs = ModelProto()
    with_outputs.CopyFrom(model)
    added = (onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in known)
    with_outputs.graph.output.extend(added)
    path = os.path.join(temporary, "calibrate.onnx")
    model_file.save_model(with_outputs, path, external)
    # How a sum is divided among threads changes the last bits of a scale.
    options = session_options("ORT_DISABLE_ALL", threads=1)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of its own, which differ between versions
        raise recipe_error(
            "ONNX Runtime cannot run it, so it cannot be calibrated: %s" % one_line(error)
        ) from None


def of_float32(
    places: Sequence[QuantizedNode], session: onnxruntime.InferenceSession, skipped: list[tuple[str, str]]
) -> list[QuantizedNode]:
    """The nodes whose activation is float32; the others are added to `skipped`."""
    types = {value.name: value.type for value in (*session.get_outputs(), *session.get_inputs())}
    others = [place for place in places if types[place.tensor] != "tensor(float)"]
    skipped.extend((place.label, "its input is %s" % types[place.tensor]) for place in others)
    return [place for place in places if types[place.tensor] == "tensor(float)"]


def collect_ranges(
    session: onnxruntime.InferenceSession,
    samples: Iterable[Mapping[str, np.ndarray]],
    places: Sequence[QuantizedNode],
    options: Mapping[str, Any],
) -> tuple[dict[str, float], int]:
    """({activation: the largest magnitude to represent}, the number of samples). One pass over the samples
    with one sample and its activations in memory at a time. Raises WorkerError (RecipeError)."""
    tensors = list(dict.fromkeys(place.tensor for place in places))
    inputs = {value.name for value in session.get_inputs()}
    outputs = [name for name in tensors if name not in inputs]
    seen = {name: Magnitudes(options["method"] != "minmax") for name in tensors}
    count = 0
    for sample in samples:
        where = "%s, sample %d" % (options["samples"]["path"], count)
        try:
            values = dict(zip(outputs, session.run(outputs, sample))) if outputs else {}
        except Exception as error:
            raise recipe_error(
                "%s: ONNX Runtime cannot run the model on it: %s" % (where, one_line(error))
            ) from None
        for name in tensors:
            if not seen[name].add(values.pop(name) if name in values else sample[name]):
                raise recipe_error(
                    "%s makes NaN or Inf in tensor `%s` of the model; remove the sample, or name the node "
                    "that reads the tensor in keep_nodes" % (where, name)
                )
        count += 1
    return {name: seen[name].limit(options) for name in tensors}, count


class Magnitudes:
    """The magnitudes of a tensor's values: the largest, and a histogram of all of them.

    The histogram ends at a power of two and doubles by joining neighbours, so its size is bounded
    and it does not depend on the order of the samples.
    """

    def __init__(self, with_histogram: bool) -> None:
        self.largest = 0.0
        self._counts = np.zeros(BINS if with_histogram else 0, np.int64)
        self._top = 0.0  # where the histogram ends; 0 as long as all values were

    def add(self, values: np.ndarray) -> bool:
        """Add the values of one sample; False if they are not all finite."""
        values = np.abs(values, dtype=np.float32).ravel()
        largest = float(values.max(initial=0.0))
        if not np.isfinite(largest):
            return False
        self.largest = max(self.largest, largest)
        if self._counts.size:
            self._widen(largest)
            index = values * np.float32(BINS / self._top) if self._top else np.zeros(values.size)
            np.minimum(index, BINS - 1, out=index)
            self._counts += np.bincount(index.astype(np.int64), minlength=BINS)
        return True

    def _widen(self, largest: float) -> None:
        if largest > self._top == 0.0:
            self._top = max(2.0 ** np.frexp(largest)[1], 2.0**-100)
        while largest > self._top:
            self._top *= 2
            joined = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([joined, np.zeros(BINS // 2, np.int64)])

    def limit(self, options: Mapping[str, Any]) -> float:
        """The largest magnitude to represent; 0 if every value was 0."""
        if not self._counts.size or not self.largest:
            return self.largest
        used = min(int(self.largest * (BINS / self._top)), BINS - 1) + 1
        counts = self._counts[:used]
        if options["method"] == "percentile":
            share = np.cumsum(counts) / counts.sum()
            end = int(np.searchsorted(share, options["percentile"] / 100)) + 1
        else:
            end = _entropy_end(counts)
        return min(end * (self._top / BINS), self.largest)


def _entropy_end(counts: np.ndarray) -> int:
    """How many bins to represent, for the least loss of information by 128 even steps.

    The method of TensorRT's entropy calibration as NVIDIA published it: the Kullback-Leibler divergence
    between the cut histogram, with its tail in the last bin, and the same in 128 steps. The first bin
    would outweigh the rest with all the zeros of a ReLU; it gets the count of its neighbour.
    """
    counts = counts.astype(np.float64)
    if len(counts) <= LEVELS:
        return len(counts)
    counts[0] = counts[1]
    tails = counts[::-1].cumsum()[::-1]
    best, best_end = np.inf, len(counts)
    for end in np.unique(np.linspace(LEVELS, len(counts), CANDIDATES).astype(int))[::-1]:
        cut = counts[:end]
        step = np.arange(end) * LEVELS // end
        filled = cut > 0
        bins = np.bincount(step, filled, LEVELS)[step]
        coarse = np.where(filled, np.bincount(step, cut, LEVELS)[step] / np.maximum(bins, 1), 0)
        exact = cut.copy()
        exact[-1] += tails[end] if end < len(counts) else 0
        loss = _divergence(exact, coarse)
        if loss < best:
            best, best_end = loss, int(end)
    return best_end


def _divergence(exact: np.ndarray, coarse: np.ndarray) -> float:
    """The Kullback-Leibler divergence. An empty bin of `coarse` counts as almost zero: with zero, any tail
    that falls into an empty bin would forbid the cut."""
    used = exact > 0
    p, q = exact[used], np.maximum(coarse[used], ALMOST_ZERO)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())
