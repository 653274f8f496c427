"""Record samples and the original's outputs for them, in a file that the engine is checked by where it runs.

The outputs are those of ONNX Runtime on this CPU: another kind of CPU may give other last bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from scons_tensorrt.worker.common import recorded_file
from scons_tensorrt.worker.common.errors import accuracy_error
from scons_tensorrt.worker.onnx import model_file, open_samples
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.plain_arrays import described
from scons_tensorrt.worker.onnx.rounded_on_cpu import without_bf16


def record(
    reference: str, compiled: str, target: str, spec: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Write `target`, a file of common/recorded_file.py, and return the number of its samples.

    reference: the path of the original; compiled: of the ONNX that the engine is made of, whose inputs may
    have other types; spec: the samples, as `samples.read` takes them; options: of the file. Raises
    WorkerError.
    """
    original = CpuModel(without_bf16(reference), "the original")
    names = original.comparable_outputs()
    types = {name: dtype for name, dtype, _ in open_samples.inputs_of(model_file.load_model(compiled))}

    def recorded() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for number, sample in enumerate(open_samples.read(spec, original.inputs)):
            outputs = dict(zip(names, original.run("sample %d" % number, sample, names)))
            inputs = {name: array.astype(types.get(name, array.dtype)) for name, array in sample.items()}
            yield _described(inputs), _described(outputs)

    try:
        return {"samples": recorded_file.write(target, recorded(), options)}
    except ValueError as error:
        raise accuracy_error("accuracy record=: %s" % error) from None


def _described(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: described(name, array)[1:] for name, array in arrays.items()}
