"""A set of samples as one file that a TensorRT calibrator reads without numpy.

A line of JSON, {"inputs": [[name, numpy dtype, shape], …], "samples": count}, then for each sample
the little-endian bytes of its inputs, in that order. The same samples give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx import model_file, open_samples

DIGITS = 18  # room for the count, which is known only when a reader has ended


class BatchInput(NamedTuple):
    name: str
    dtype: str
    shape: list[int]


def write(source: str, target: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Write samples for the ONNX at `source` to `target`; return facts. spec: as `samples.read` takes it.
    Raises WorkerError."""
    model_inputs = open_samples.inputs_of(model_file.load_model(source))
    if not model_inputs:
        raise recipe_error("it has no inputs, so there is nothing to calibrate on")
    inputs: list[BatchInput] = []
    count = 0
    with open(target, "wb") as out:
        for sample in open_samples.read(spec, model_inputs):
            arrays = {name: sample[name] for name, _, _ in model_inputs}
            described = [BatchInput(name, a.dtype.name, list(a.shape)) for name, a in arrays.items()]
            if not inputs:
                inputs = described
                out.write(_header(inputs, 0))
            _check_same_shapes("%s, sample %d" % (spec["path"], count), inputs, described)
            for array in arrays.values():
                out.write((array.byteswap() if sys.byteorder == "big" else array).tobytes())
            count += 1
        out.seek(0)
        out.write(_header(inputs, count))
    return {"samples": count, "inputs": {name: [dtype, shape] for name, dtype, shape in inputs}}


def _header(inputs: Sequence[BatchInput], count: int) -> bytes:
    text = json.dumps({"inputs": inputs, "samples": count})
    return text.ljust(len(text) - len(str(count)) + DIGITS).encode("ascii") + b"\n"


def _check_same_shapes(where: str, first: Sequence[BatchInput], described: Sequence[BatchInput]) -> None:
    """Raise WorkerError unless each input has one shape, that of its calibration profile."""
    for (name, _, shape), (_, _, other) in zip(first, described):
        if shape != other:
            raise recipe_error(
                "%s, input `%s` has shape %s, and %s in sample 0: a calibrator needs one shape; make them "
                "equal, or use by='qdq'" % (where, name, other, shape)
            )
