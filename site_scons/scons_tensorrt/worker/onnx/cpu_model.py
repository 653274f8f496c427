"""An ONNX model that ONNX Runtime runs on the CPU, to compare its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime

from scons_tensorrt.worker.common.errors import accuracy_error, one_line, recipe_error
from scons_tensorrt.worker.onnx.runtime_options import session_options
from scons_tensorrt.worker.onnx.sample_set import ModelInput

NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object"}


class CpuModel:
    """inputs: as `samples.read` takes them; what: the model's name in messages; threads: 0 for one on each
    core. Raises WorkerError (AccuracyError)."""

    def __init__(self, path: str, what: str, threads: int = 0) -> None:
        self._what = what
        # The comparison is of the models, not of what the runtime's optimizer makes of them. Of Q/DQ pairs it
        # would make biases of int32, and int8 kernels, which saturate in 16 bit on some CPUs.
        options = session_options("ORT_ENABLE_BASIC", threads=threads)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise accuracy_error("ONNX Runtime cannot load %s: %s" % (what, one_line(error))) from None
        self.inputs = [
            ModelInput(
                given.name,
                _numpy_type(given.name, given.type),
                tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in given.shape),
            )
            for given in self._session.get_inputs()
        ]

    def outputs(self) -> list[str]:
        return [output.name for output in self._session.get_outputs()]

    def comparable_outputs(self) -> list[str]:
        """The names of the outputs. Raises WorkerError (RecipeError) if one is not a tensor of numbers."""
        for output in self._session.get_outputs():
            if not output.type.startswith("tensor(") or output.type == "tensor(string)":
                raise recipe_error(
                    "output `%s` is %s, which accuracy= cannot compare: make it a tensor of numbers in the "
                    "ONNX, or leave out accuracy=" % (output.name, output.type)
                )
        return self.outputs()

    def run(self, where: str, sample: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """The outputs for a sample, whose arrays are cast to the types of the inputs. where: for messages."""
        types = {name: dtype for name, dtype, _ in self.inputs}
        given = {name: array.astype(types[name], copy=False) for name, array in sample.items()}
        try:
            return list(self._session.run(outputs, given))
        except Exception as error:
            raise accuracy_error(
                "ONNX Runtime cannot run %s at %s: %s" % (self._what, where, one_line(error))
            ) from None


def _numpy_type(name: str, kind: str) -> np.dtype:
    inside = kind[len("tensor(") : -1]
    try:
        return np.dtype(NUMPY_NAMES.get(inside, inside))
    except TypeError:
        raise accuracy_error("input `%s` is %s, which samples cannot provide" % (name, kind)) from None
