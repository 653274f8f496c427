"""The inputs and outputs of an engine: names, types and shapes, from the ONNX that it was compiled from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import HandoffError
from ...recipe.onnx.read_onnx import read_onnx
from ...recipe.onnx.summary import OnnxInput
from ...recipe.shapes import Profile, takes_values
from ...values import Value

Dims = tuple["int | str", ...]
TYPES = {  # DataType of onnx.proto3
    1: "FLOAT",
    2: "UINT8",
    3: "INT8",
    6: "INT32",
    7: "INT64",
    9: "BOOL",
    10: "FLOAT16",
    11: "DOUBLE",
    16: "BFLOAT16",
    17: "FLOAT8E4M3FN",
}


class Tensor(Value):
    """An input or output. dtype: DataType number of onnx.proto3; dims: sizes in elements, of a dynamic
    dimension its name; None if the rank is unknown; values: whether it is a shape tensor, whose profile has
    values instead of sizes."""

    name: str
    dtype: int
    dims: Dims | None
    values: bool = False

    @property
    def type(self) -> str:
        return TYPES.get(self.dtype, f"type {self.dtype} of ONNX")

    def __str__(self) -> str:
        dims = "rank unknown" if self.dims is None else ", ".join(map(str, self.dims))
        return f"`{self.name}` [{dims}]"


class Network(Value):
    """The inputs and outputs, in the order of the ONNX."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_network(onnx: Path, profiles: Sequence[Profile] = ()) -> Network:
    """The inputs and outputs of an ONNX. Its weights stay where they are.

    A dynamic dimension without a name gets that of its tensor and axis, such as `x_0`. Where an output has no
    shape, onnx's shape inference computes it. Raises HandoffError if the onnx package is missing or cannot
    read the file.
    """
    given = {each.name: each for each in read_onnx(onnx).inputs}
    model = _load(onnx)
    weights = {each.name for each in model.graph.initializer}
    outputs = [_tensor(value, None) for value in model.graph.output]
    if any(each.dims is None for each in outputs):
        outputs = [_tensor(value, None) for value in _inferred(model).graph.output]
    shaped = {name for profile in profiles for name in profile}
    inputs = [_tensor(v, given.get(v.name), v.name in shaped) for v in model.graph.input]
    return Network(tuple(each for each in inputs if each.name not in weights), tuple(outputs))


def _load(onnx: Path) -> Any:
    try:
        from onnx import load
    except ImportError:
        raise HandoffError(
            "an export needs the package `onnx`; install it with `python3 -m pip install onnx`"
        ) from None
    try:
        return load(str(onnx), load_external_data=False)
    except Exception as error:  # of protobuf
        raise HandoffError(f"{onnx}: onnx cannot read it ({type(error).__name__}); build it again") from None


def _inferred(model: Any) -> Any:
    from onnx.shape_inference import infer_shapes

    try:
        return infer_shapes(model)
    except Exception:  # of a model that inference does not understand: the shapes stay unknown
        return model


def _tensor(value: Any, given: OnnxInput | None, shaped: bool = False) -> Tensor:
    tensor = value.type.tensor_type
    dims: Dims | None = None
    if tensor.HasField("shape"):
        dims = tuple(
            each.dim_value if each.HasField("dim_value") else each.dim_param or f"{value.name}_{axis}"
            for axis, each in enumerate(tensor.shape.dim)
        )
    values = given is not None and shaped and takes_values(given) and not given.dynamic
    return Tensor(value.name, tensor.elem_type, dims, values)
