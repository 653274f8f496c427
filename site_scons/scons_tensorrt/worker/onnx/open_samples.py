"""Sets of samples, one sample in memory at a time: what calibration and accuracy checks run the ONNX on.

A set is an .npz file, a folder of .npy files, or a function of the user's in a Python file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import ModelProto

from scons_tensorrt.worker.common.errors import recipe_error
from scons_tensorrt.worker.onnx.npz_and_npy_samples import ArchiveSamples, FolderSamples
from scons_tensorrt.worker.onnx.sample_reader import ReaderSamples
from scons_tensorrt.worker.onnx.sample_set import ModelInput, SampleSet


def inputs_of(model: ModelProto) -> list[ModelInput]:
    """The model's inputs. Raises WorkerError (RecipeError) for one that numpy arrays cannot feed."""
    constants = {tensor.name for tensor in model.graph.initializer}
    described = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
            raise recipe_error(
                "input `%s` is not a tensor of numbers, so it cannot have samples" % value.name
            )
        shape = None
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        described.append(ModelInput(value.name, dtype, shape))
    return described


def read(spec: Mapping[str, Any], inputs: Sequence[ModelInput]) -> SampleSet:
    """The samples of `spec` for a model with these inputs.

    spec: kind ("npz", "npy" or "reader"), path, function (of a reader), most (use only the first ones,
    or None for all) and at_least. Raises WorkerError (RecipeError) that names the file, here or while the
    set is iterated.
    """
    kind = {"npz": ArchiveSamples, "npy": FolderSamples, "reader": ReaderSamples}[spec["kind"]]
    return kind(spec, inputs)
