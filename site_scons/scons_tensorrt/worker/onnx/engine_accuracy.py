"""How far an engine is from its original: what it shall be given and give, and what it gave.

The engine runs in between, in the interpreter that has TensorRT (worker/trt/run_engine.py); so samples and
outputs pass in files that need no numpy (worker/common/array_file.py).
"""

import numpy as np

from scons_tensorrt.worker.common import array_file
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import accuracy

BFLOAT16 = "bfloat16"  # which numpy has not by itself


def expect(reference, compiled, spec, files):
    """Run the original on the samples of `spec`; facts of them.

    reference: the original's path; compiled: of the ONNX that the engine is made of, whose inputs may
    have other types; files: `inputs`, `expected`: where the samples for the engine, and the original's
    outputs, shall be. Raises WorkerError.
    """
    from scons_tensorrt.worker.onnx import samples

    session = accuracy._session(reference, "the original")
    names = accuracy.outputs_of(session)
    types = _types(compiled)
    count = 0
    with open(files["inputs"], "wb") as inputs, open(files["expected"], "wb") as expected:
        for number, sample in enumerate(samples.read(spec, accuracy._inputs(session))):
            given = [(name, array.astype(types.get(name, array.dtype))) for name, array in sample.items()]
            outputs = zip(names, accuracy._run(session, names, sample, number))
            array_file.write(inputs, map(_flat, given))
            array_file.write(expected, map(_flat, outputs))
            count += 1
    return {"samples": count}


def judge(files, target, options):
    """Compare what the engine gave with what the original gave; all figures. Raises
    WorkerError (AccuracyError) where an output is missing or beyond its bound."""
    figures = None
    with open(files["expected"], "rb") as first, open(files["outputs"], "rb") as second:
        given = array_file.read(second)
        for number, wanted in enumerate(array_file.read(first)):
            got = next(given, {})
            gone = sorted(set(wanted) - set(got))
            if gone:
                raise WorkerError("AccuracyError", "sample %d: it gave no output `%s`" % (number, gone[0]))
            figures = figures or accuracy.Figures(list(wanted), options)
            figures.add(number, {name: (_array(*wanted[name]), _array(*got[name])) for name in wanted})
    if figures is None:
        raise WorkerError("AccuracyError", "there are no outputs to compare")
    return figures.judged(target)


def _types(path):
    """The numpy types of an ONNX's inputs, by name."""
    import onnx

    from scons_tensorrt.worker.onnx import samples

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise WorkerError("AccuracyError", "what is compiled cannot be read: %s" % said) from None
    return {name: dtype for name, dtype, _ in samples.inputs_of(model)}


def _flat(named):
    name, array = named
    array = np.asarray(array)
    dtype = array.dtype.name
    if dtype not in array_file.TYPES:
        raise WorkerError(
            "AccuracyError", "tensor `%s` is %s, which no engine is compared by" % (name, dtype)
        )
    return name, dtype, array.shape, np.ascontiguousarray(array).tobytes()


def _array(dtype, shape, data):
    if dtype == BFLOAT16:
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
