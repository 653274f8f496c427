"""How far an engine is from its original: the samples and expected outputs for the engine's run, and the
judgement of its outputs.

The engine runs in between, in the interpreter that has TensorRT (worker/trt/run_engine.py), so samples and
outputs are exchanged in files that need no numpy (worker/common/array_file.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scons_tensorrt.worker.common import array_file
from scons_tensorrt.worker.common.errors import accuracy_error
from scons_tensorrt.worker.onnx.accuracy import Figures


def expect(
    reference: str, compiled: str, spec: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, int]:
    """Run the original on samples; return facts.

    reference: the path of the original; compiled: of the ONNX that the engine is made of, whose inputs may
    have other types; spec: the samples, as `samples.read` takes them; files: the paths to write to: `inputs`,
    the samples for the engine, and `expected`, the original's outputs. Raises WorkerError.
    """
    from scons_tensorrt.worker.onnx import model_file, samples
    from scons_tensorrt.worker.onnx.cpu_model import CpuModel

    original = CpuModel(reference, "the original")
    names = original.comparable_outputs()
    types = {name: dtype for name, dtype, _ in samples.inputs_of(model_file.load_model(compiled))}
    count = 0
    with open(files["inputs"], "wb") as inputs, open(files["expected"], "wb") as expected:
        for sample in samples.read(spec, original.inputs):
            outputs = zip(names, original.run(count, sample, names))
            given = ((name, array.astype(types.get(name, array.dtype))) for name, array in sample.items())
            array_file.write(inputs, [_described(*each) for each in given])
            array_file.write(expected, [_described(*each) for each in outputs])
            count += 1
    return {"samples": count}


def judge(files: Mapping[str, str], target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the engine's outputs with the original's; return all figures, also written to `target`.

    files: the paths of `expected` and `outputs`; options: rtol, atol, metric. Raises WorkerError
    (AccuracyError) if an output is missing or beyond its bound.
    """
    figures = None
    with open(files["expected"], "rb") as expected, open(files["outputs"], "rb") as outputs:
        given = array_file.read(outputs)
        for number, wanted in enumerate(array_file.read(expected)):
            got = next(given, {})
            missing = sorted(set(wanted) - set(got))
            if missing:
                raise accuracy_error("sample %d: the engine has no output `%s`" % (number, missing[0]))
            figures = figures or Figures(list(wanted), options)
            figures.add(number, {name: (_array(*wanted[name]), _array(*got[name])) for name in wanted})
    if figures is None:
        raise accuracy_error("there are no outputs to compare")
    return figures.judged(target)


def _described(name: str, array: np.ndarray) -> tuple[str, str, tuple[int, ...], bytes]:
    """The array as `array_file.write` takes it."""
    array = np.asarray(array)
    dtype = array.dtype.name
    if dtype not in array_file.TYPES:
        raise accuracy_error("tensor `%s` is %s, which accuracy= cannot compare" % (name, dtype))
    return name, dtype, array.shape, np.ascontiguousarray(array).tobytes()


def _array(dtype: str, shape: tuple[int, ...], data: bytearray) -> np.ndarray:
    if dtype == "bfloat16":  # which numpy itself does not have
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
