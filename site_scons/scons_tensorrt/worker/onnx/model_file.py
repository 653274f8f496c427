"""ONNX files and their external data: read, brought to the opset that a conversion needs, and written."""

from __future__ import annotations

import os
from collections.abc import Iterator

import onnx
from onnx import ModelProto, TensorProto

from scons_tensorrt.worker.common.errors import one_line, recipe_error
from scons_tensorrt.worker.onnx import graph_walk

ALIGN = 4096  # of a tensor in the external data, so that it can be mapped
PIECE_BYTES = 1 << 24  # of external data read, and converted, at a time
PROTOBUF_BYTES = (1 << 31) - (1 << 20)  # a message holds 2 GiB; the rest is room for the graph
FOUR_BITS = (21, 22, 23)  # UINT4, INT4, FLOAT4E2M1, which onnx before 1.18 does not name
IR_VERSIONS = {19: 9, 22: 10}  # the IR versions that these opsets need: float8; bf16 everywhere


def load_model(source: str) -> ModelProto:
    """The model without its external data. Raises WorkerError (RecipeError)."""
    try:
        return onnx.load(source, format="protobuf", load_external_data=False)
    except OSError as error:
        raise recipe_error("the model cannot be read: %s" % (error.strerror or error)) from None
    except Exception as error:  # protobuf and onnx raise classes of their own
        raise recipe_error("not a readable ONNX model: %s" % one_line(error)) from None


def inlined(model: ModelProto) -> ModelProto:
    """The model with the calls of its local functions replaced by the functions' nodes, which the
    converters would not look into. onnx leaves functions of another opset than the model's. External data
    need not be loaded. Raises WorkerError (RecipeError)."""
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise recipe_error("the model's functions cannot be inlined: %s" % one_line(error)) from None


def raised_to(opset: int, model: ModelProto, needed_for: str) -> ModelProto:
    """The model at this opset or a later one. Raises WorkerError (RecipeError) if onnx cannot convert it."""
    old = graph_walk.opset(model)
    if old >= opset:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # whatever its C++ raises
        raise recipe_error(
            "%s needs opset %d, and onnx cannot convert the model from opset %d: %s; export the ONNX with "
            "opset %d or later" % (needed_for, opset, old, one_line(error), opset)
        ) from None
    raised.ir_version = max(raised.ir_version, IR_VERSIONS.get(opset, 0))
    return raised


def save_model(model: ModelProto, path: str, external: bool) -> None:
    """Write the model, and its tensors to the file `path`.data if `external` is true or it is too large for
    one file. Takes the values out of the model then."""
    if external or sum(tensor_bytes(tensor) for tensor, _ in graph_walk.tensors(model)) > PROTOBUF_BYTES:
        data = path + ".data"
        if os.path.exists(data):
            os.unlink(data)  # onnx would append
        onnx.save_model(model, path, save_as_external_data=True, location=os.path.basename(data))
    else:
        onnx.save_model(model, path)


def load_external(model: ModelProto, source: str) -> bool:
    """Read the external data of all tensors into the model, which is the file `source`; returns whether
    there was any.

    The onnx package refuses data files that are symbolic links or have several hard links; those of
    a VariantDir, of `cp -al` and of hub caches are.
    """
    tensors = [*(tensor for tensor, _ in graph_walk.tensors(model)), *graph_walk.function_tensors(model)]
    external = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in external:
        tensor.raw_data = b"".join(external_pieces(tensor, os.path.dirname(os.path.abspath(source))))
        tensor.data_location = TensorProto.DEFAULT
        tensor.ClearField("external_data")
    return bool(external)


def external_pieces(tensor: TensorProto, folder: str) -> Iterator[bytes]:
    """The external data of a tensor, a piece at a time. Raises WorkerError (RecipeError)."""
    location, offset, size = external_place(tensor)
    try:
        with open(os.path.join(folder, location), "rb") as source:
            source.seek(offset)
            while size:
                piece = source.read(min(size, PIECE_BYTES))
                if not piece:
                    raise recipe_error("external data `%s` ends early" % location)
                size -= len(piece)
                yield piece
    except OSError as error:
        raise recipe_error("external data `%s` cannot be read: %s" % (location, error.strerror)) from None


def external_place(tensor: TensorProto) -> tuple[str, int, int]:
    """(location, offset, bytes) of a tensor's external data. Raises WorkerError (RecipeError)."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or os.path.isabs(location) or ".." in location.split("/"):
        raise recipe_error("external data `%s` lies outside the model's folder" % location)
    size = tensor_bytes(tensor)
    if tensor.data_type in FOUR_BITS:
        size = -(-size // 2)
    return location, int(entries.get("offset", 0)), int(entries.get("length", size))


def tensor_bytes(tensor: TensorProto) -> int:
    """The size of a tensor's values by its type and shape; a byte each for types of four bits."""
    count = 1
    for dim in tensor.dims:
        count *= dim
    return int(count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
