"""A set of samples as one file that a TensorRT calibrator reads without numpy.

A line of JSON, {"inputs": [[name, numpy dtype, shape], …], "samples": count}, then for each sample
the little-endian bytes of its inputs, in that order. The same samples give the same bytes.
"""

import json
import sys

import onnx

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import samples

DIGITS = 18  # room for the count, which is known only when a reader has ended


def write(source, target, spec):
    """Write the samples of `spec` (see samples.py) for the ONNX at `source` to `target`; facts of
    them. Raises WorkerError."""
    try:
        model = onnx.load(source, load_external_data=False)
    except Exception as error:  # protobuf and onnx raise what they like
        said = " ".join(str(error).split())[:300]
        raise WorkerError("RecipeError", "it is no ONNX, or is damaged: %s" % said) from None
    wanted = samples.inputs_of(model)
    if not wanted:
        raise WorkerError("RecipeError", "it has no inputs, so there is nothing to calibrate on")
    inputs, count = None, 0
    with open(target, "wb") as out:
        for sample in samples.read(spec, wanted):
            arrays = [(name, sample[name]) for name, _, _ in wanted]
            described = [[name, array.dtype.name, list(array.shape)] for name, array in arrays]
            if inputs is None:
                inputs = described
                out.write(_header(inputs, 0))
            _check_alike(spec["path"], count, inputs, described)
            for _, array in arrays:
                out.write(_little(array).tobytes())
            count += 1
        out.seek(0)
        out.write(_header(inputs, count))
    return {"samples": count, "inputs": {name: [dtype, shape] for name, dtype, shape in inputs}}


def _header(inputs, count):
    text = json.dumps({"inputs": inputs, "samples": count})
    return text.ljust(len(text) - len(str(count)) + DIGITS).encode("ascii") + b"\n"


def _check_alike(path, number, first, described):
    """A calibrator takes one shape of each input: that of its calibration profile."""
    for (name, _, shape), (_, _, other) in zip(first, described):
        if shape != other:
            raise WorkerError(
                "RecipeError",
                "%s, sample %d, input `%s` has shape %s, and %s in sample 0: a calibrator takes one "
                "shape; make them alike, or write by='qdq'" % (path, number, name, other, shape),
            )


def _little(array):
    return array.byteswap() if sys.byteorder == "big" else array
