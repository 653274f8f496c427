"""The values of an ONNX model's tensors during a conversion to 16 bit: taken out while the graph is
changed, narrowed, and written a piece at a time."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from scons_tensorrt.worker.onnx import graph_walk, model_file

LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
SMALLEST = {"fp16": 5.96e-08, "bf16": 9.2e-41}  # positive; the converter's own for fp16
NORMAL = {"fp16": 2.0**-14, "bf16": 2.0**-126}  # the smallest normal number
INLINE_BYTES = 1024  # tensors up to this size stay in the graph, for the shape inference
TAG = "scons_tensorrt value "  # begins the name of a tensor in an attribute while its value is out


class TensorValues:
    """The values that are taken out of a model, by the name of the tensor. A tensor in an attribute is
    named for that time, and gets its own name back with its value.

    external: whether the model has external data.
    """

    def __init__(self, source: str) -> None:
        self.external = False
        self._folder = os.path.dirname(os.path.abspath(source))
        self._saved: dict[str, TensorProto] = {}

    def find_external(self, model: ModelProto) -> None:
        """Note whether there is external data. Load it where it is small, and in local functions, whose
        tensors may have the names of others."""
        tensors = [(tensor, False) for tensor, _ in graph_walk.tensors(model)]
        tensors += [(tensor, True) for tensor in graph_walk.function_tensors(model)]
        for tensor, always in tensors:
            if tensor.data_location == TensorProto.EXTERNAL:
                self.external = True
                if always or model_file.external_place(tensor)[2] <= INLINE_BYTES:
                    tensor.raw_data = b"".join(self._pieces(tensor))
                    tensor.ClearField("external_data")
                    tensor.ClearField("data_location")

    def take(self, model: ModelProto, every_float32: bool = False) -> ModelProto:
        """Take the values out of large tensors, or of every float32 one too. Returns a new model, because
        protobuf keeps the memory of a cleared field."""
        for tensor, in_attribute in graph_walk.tensors(model):
            large = tensor.data_location == TensorProto.EXTERNAL or tensor.ByteSize() > INLINE_BYTES
            float32 = every_float32 and tensor.data_type == TensorProto.FLOAT
            if self._of(tensor, in_attribute) or tensor.data_type == TensorProto.STRING:
                continue
            if large or float32:
                name = TAG + str(len(self._saved)) if in_attribute else tensor.name
                self._saved[name] = copy.deepcopy(tensor)
                tensor.Clear()
                tensor.name = name
                tensor.data_type = self._saved[name].data_type
                tensor.dims.extend(self._saved[name].dims)
        return ModelProto.FromString(model.SerializeToString())

    def _of(self, tensor: TensorProto, in_attribute: bool) -> TensorProto | None:
        """What was taken out of this tensor, if anything."""
        if in_attribute and not tensor.name.startswith(TAG):
            return None
        return self._saved.get(tensor.name)

    def array(self, tensor: TensorProto) -> np.ndarray:
        """The value of a tensor, wherever it is."""
        saved = self._of(tensor, False) or tensor
        if saved.data_location != TensorProto.EXTERNAL:
            return onnx.numpy_helper.to_array(saved)
        whole = TensorProto(
            data_type=saved.data_type, dims=saved.dims, raw_data=b"".join(self._pieces(saved))
        )
        return onnx.numpy_helper.to_array(whole)

    def is_normal(self, tensor: TensorProto, to: str) -> bool:
        """Whether every value of a float32 initializer is a normal number in 16 bit too."""
        raw = b"".join(self._pieces(self._of(tensor, False) or tensor))
        sizes = np.abs(np.frombuffer(raw, np.float32))
        return bool(((sizes >= NORMAL[to]) & (sizes <= LARGEST[to])).all())

    def alias(self, new: str, old: str) -> None:
        self._saved[new] = self._saved[old]

    def set_dims(self, model: ModelProto, real: bool) -> None:
        """Give the float32 initializers, which are all taken out, their shapes; or shape [0], which is true
        of what is left in them."""
        for graph in graph_walk.graphs(model.graph):
            for tensor in graph.initializer:
                saved = self._saved.get(tensor.name)
                if saved is not None and saved.data_type == TensorProto.FLOAT:
                    tensor.dims[:] = saved.dims if real else [0]

    def write(self, model: ModelProto, target: str, to: str) -> dict[str, Any]:
        """Write the converted model with its values, and a data file if the source has external data or the
        model is too large for one file. Returns how many values were too large or too small for 16 bit:
        {"clamped": …, "raised": …}, and the largest of the former: {"largest": {"tensor": …, "value": …}}."""
        counts: dict[str, Any] = {"clamped": 0, "raised": 0}
        sizes = (model_file.tensor_bytes(tensor) for tensor, _ in graph_walk.tensors(model))
        if self.external or model.ByteSize() + sum(sizes) > model_file.PROTOBUF_BYTES:
            with open(target + ".data", "w+b") as data:
                self._put_back(model, to, counts, data)
                empty = data.tell() == 0
            if empty:
                os.unlink(target + ".data")
        else:
            self._put_back(model, to, counts, None)
        with open(target, "wb") as out:
            out.write(model.SerializeToString(deterministic=True))
        return counts

    def _put_back(self, model: ModelProto, to: str, counts: dict[str, Any], data: BinaryIO | None) -> None:
        """Give the tensors their values, those of large ones in the file `data` if there is one."""
        for tensor, in_attribute in graph_walk.tensors(model):
            saved = self._of(tensor, in_attribute)
            if saved is None:
                continue
            name = saved.name if in_attribute else tensor.name
            pieces = self._pieces(saved)
            if tensor.data_type != saved.data_type:
                pieces = (_narrowed(piece, to, counts, name) for piece in pieces)
            elif data is None and saved.data_location != TensorProto.EXTERNAL:
                tensor.CopyFrom(saved)
                tensor.name = name
                continue
            tensor.name = name
            if data is not None and model_file.tensor_bytes(tensor) > INLINE_BYTES:
                _append(data, tensor, pieces)
            else:
                tensor.raw_data = b"".join(pieces)

    def _pieces(self, tensor: TensorProto) -> Iterator[bytes | memoryview]:
        """The values of a tensor as little-endian bytes, a piece at a time."""
        if tensor.data_location == TensorProto.EXTERNAL:
            yield from model_file.external_pieces(tensor, self._folder)
            return
        raw = memoryview(tensor.raw_data)
        if not raw:
            raw = memoryview(onnx.numpy_helper.to_array(tensor).tobytes())
        for start in range(0, len(raw), model_file.PIECE_BYTES):
            yield raw[start : start + model_file.PIECE_BYTES]


def _append(data: BinaryIO, tensor: TensorProto, pieces: Iterable[bytes | memoryview]) -> None:
    """Write the values of a tensor to the end of a data file."""
    data.seek(0, os.SEEK_END)
    offset = -(-data.tell() // model_file.ALIGN) * model_file.ALIGN
    data.truncate(offset)
    data.seek(offset)
    size = sum(data.write(piece) for piece in pieces)
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": os.path.basename(data.name), "offset": offset, "length": size}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))


def _narrowed(piece: bytes | memoryview, to: str, counts: dict[str, Any], name: str) -> bytes:
    """16-bit values for float32 ones, as bytes. name: of their tensor."""
    array = np.frombuffer(piece, dtype="<f4")
    size = np.abs(array)
    beyond = size[(size > LARGEST[to]) & np.isfinite(size)]
    if beyond.size:
        counts["clamped"] += int(beyond.size)
        most = float(beyond.max())
        if most > counts.get("largest", {"value": 0.0})["value"]:
            counts["largest"] = {"tensor": name, "value": most}
    counts["raised"] += int(np.count_nonzero((size > 0) & (size < SMALLEST[to])))
    if to == "fp16":
        from onnxruntime.transformers import float16

        return bytes(float16.convert_np_to_float16(array, SMALLEST[to], LARGEST[to]))
    limited = np.clip(size, np.float32(SMALLEST[to]), np.float32(LARGEST[to]))
    limited = np.copysign(np.where((size > 0) & np.isfinite(size), limited, size), array)
    bits = limited.view(np.uint32)
    # Round to nearest, ties to even.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> np.uint32(16)
    return bytes(np.where(np.isnan(array), np.uint32(0x7FC0), rounded).astype("<u2"))
