"""The values of an ONNX's tensors: taken out while its graph is changed, narrowed to 16 bit, and
written a piece at a time."""

import copy
import os
import shutil

import numpy as np
import onnx
from onnx import TensorProto

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import graph_walk

LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
SMALLEST = {"fp16": 5.96e-08, "bf16": 9.2e-41}  # positive; the converter's own for fp16
NORMAL = {"fp16": 2.0**-14, "bf16": 2.0**-126}  # the smallest with all bits
INLINE_BYTES = 1024  # tensors up to this size stay in the graph, for the shape inference
ALIGN = 4096  # of a tensor in the external data, so that it can be mapped
PIECE_BYTES = 1 << 24  # of external data read, and converted, at a time
TAG = "scons_tensorrt value "  # what a tensor in an attribute is called while its bytes are out
FOUR_BITS = (21, 22, 23)  # UINT4, INT4, FLOAT4E2M1, which onnx before 1.18 does not name
PROTOBUF_BYTES = (1 << 31) - (1 << 20)  # a message may have 2 GiB; some room for the rest


class Values:
    """The tensors whose bytes are taken out of the graph while it is changed, by name. A tensor in
    an attribute is given a name for that time; its own comes back with its bytes."""

    def __init__(self, folder):
        self.folder = folder
        self.locations = set()
        self._saved = {}

    def find_external(self, model):
        """Note where external data lies; load what is small, or in a function, whose tensors may
        be called like others."""
        there = [(tensor, False) for tensor, _ in graph_walk.tensors(model)]
        there += [(tensor, True) for f in model.functions for tensor, _ in graph_walk.tensors_in(f.node)]
        for tensor, always in there:
            if tensor.data_location == TensorProto.EXTERNAL:
                location, _, size = _place(tensor)
                self.locations.add(location)
                if always or size <= INLINE_BYTES:
                    tensor.raw_data = b"".join(self._pieces(tensor))
                    tensor.ClearField("external_data")
                    tensor.ClearField("data_location")

    def take(self, model, every_float32=False):
        """Empty the large tensors, or every float32 one too; returns the model in new memory, as
        protobuf keeps what a field once had."""
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
        return onnx.ModelProto.FromString(model.SerializeToString())

    def _of(self, tensor, in_attribute):
        """What was taken from this tensor; None: nothing."""
        if in_attribute and not tensor.name.startswith(TAG):
            return None
        return self._saved.get(tensor.name)

    def is_normal(self, tensor, to):
        """Whether every value of a float32 initializer is a normal number of 16 bit, too."""
        raw = b"".join(self._pieces(self._of(tensor, False) or tensor))
        sizes = np.abs(np.frombuffer(raw, np.float32))
        return bool(((sizes >= NORMAL[to]) & (sizes <= LARGEST[to])).all())

    def alias(self, new, old):
        self._saved[new] = self._saved[old]

    def set_dims(self, model, real):
        """Let float32 initializers, which are all empty now, look as small as they are, or not."""
        for graph in graph_walk.graphs(model.graph):
            for tensor in graph.initializer:
                saved = self._saved.get(tensor.name)
                if saved is not None and saved.data_type == TensorProto.FLOAT:
                    tensor.dims[:] = saved.dims if real else [0]

    def put_back(self, model, to, data, external):
        """Give the tensors of a converted model their values, which go to the file `data` where
        they are large and that is wanted. Returns how many were out of range: (large, small)."""
        counts = [0, 0]
        for tensor, in_attribute in graph_walk.tensors(model):
            saved = self._of(tensor, in_attribute)
            if saved is None:
                continue
            pieces = self._pieces(saved)
            narrow = tensor.data_type != saved.data_type
            if narrow:
                pieces = (_narrowed(piece, to, counts) for piece in pieces)
            elif not external and saved.data_location != TensorProto.EXTERNAL:
                name = saved.name if in_attribute else tensor.name
                tensor.CopyFrom(saved)
                tensor.name = name
                continue
            if in_attribute:
                tensor.name = saved.name
            if external and _size(tensor) > INLINE_BYTES:
                _append(data, tensor, pieces)
            else:
                tensor.raw_data = b"".join(pieces)
        return counts

    def _pieces(self, tensor):
        """The bytes of a tensor with its data, in pieces."""
        if tensor.data_location == TensorProto.EXTERNAL:
            yield from _read(self.folder, *_place(tensor))
            return
        raw = memoryview(tensor.raw_data)
        if not raw:
            raw = memoryview(onnx.numpy_helper.to_array(tensor).tobytes())
        for start in range(0, len(raw), PIECE_BYTES):
            yield raw[start : start + PIECE_BYTES]


def inlined(model):
    """The model with the nodes of its local functions in place of their calls; the converters look no
    further than the graph. onnx leaves a function whose opset is not the model's. External data
    need not be loaded."""
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise WorkerError("RecipeError", "the model's functions cannot be inlined: %s" % said) from None


def load_external(model, folder):
    """Read the external data of all tensors into the model; returns whether there was any.

    The onnx package refuses data files that are symbolic links or have several hard links; those of
    a VariantDir, of `cp -al` and of hub caches are.
    """
    functions = [t for function in model.functions for t, _ in graph_walk.tensors_in(function.node)]
    there = [*(tensor for tensor, _ in graph_walk.tensors(model)), *functions]
    there = [tensor for tensor in there if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in there:
        tensor.raw_data = b"".join(_read(folder, *_place(tensor)))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return bool(there)


def _read(folder, location, offset, size):
    try:
        with open(os.path.join(folder, location), "rb") as source:
            source.seek(offset)
            while size:
                piece = source.read(min(size, PIECE_BYTES))
                if not piece:
                    raise WorkerError("RecipeError", "external data `%s` ends early" % location)
                size -= len(piece)
                yield piece
    except OSError as error:
        raise WorkerError(
            "RecipeError", "external data `%s` cannot be read: %s" % (location, error.strerror)
        ) from None


def _place(tensor):
    """(location, offset, bytes) of a tensor's external data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or os.path.isabs(location) or ".." in location.split("/"):
        raise WorkerError("RecipeError", "external data `%s` lies outside the model's folder" % location)
    size = _size(tensor)
    if tensor.data_type in FOUR_BITS:
        size = -(-size // 2)
    return location, int(entries.get("offset", 0)), int(entries.get("length", size))


def _size(tensor):
    """Bytes of a tensor's values by its type and shape; of types below a byte, at most that."""
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _append(data, tensor, pieces):
    data.seek(0, os.SEEK_END)
    offset = -(-data.tell() // ALIGN) * ALIGN
    data.truncate(offset)
    data.seek(offset)
    size = sum(data.write(piece) for piece in pieces)
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": os.path.basename(data.name), "offset": offset, "length": size}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))


def _narrowed(piece, to, counts):
    """Bytes of 16-bit values for those of float32 ones."""
    array = np.frombuffer(piece, dtype="<f4")
    size = np.abs(array)
    counts[0] += int(np.count_nonzero((size > LARGEST[to]) & np.isfinite(size)))
    counts[1] += int(np.count_nonzero((size > 0) & (size < SMALLEST[to])))
    if to == "fp16":
        from onnxruntime.transformers import float16

        return float16.convert_np_to_float16(array, SMALLEST[to], LARGEST[to]).tobytes()
    limited = np.clip(size, np.float32(SMALLEST[to]), np.float32(LARGEST[to]))
    limited = np.copysign(np.where((size > 0) & np.isfinite(size), limited, size), array)
    bits = limited.view(np.uint32)
    # To the nearest, and to the even one of two: what is cut off is half a step or more.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(array), np.uint32(0x7FC0), rounded).astype("<u2").tobytes()


def write(model, values, target, to, had_external):
    """Write the model and, where it must have one, its data file."""
    size = model.ByteSize() + sum(_size(tensor) for tensor, _ in graph_walk.tensors(model))
    external = had_external or size > PROTOBUF_BYTES
    try:
        if external:
            with open(target + ".data", "w+b") as data:
                counts = values.put_back(model, to, data, True)
                empty = data.tell() == 0
            if empty:
                os.unlink(target + ".data")
        else:
            counts = values.put_back(model, to, None, False)
        with open(target, "wb") as out:
            out.write(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise WorkerError(
            "PublishError",
            "the converted model could not be written: %s; make room, then run again" % error.strerror,
        ) from None
    return {"clamped": counts[0], "raised": counts[1]}


def copy_model(source, target, locations):
    """The source as it is; its external data, if any, in one file called as the target's is."""
    try:
        if not locations:
            shutil.copyfile(source, target)
            return
        model = onnx.load(source, load_external_data=False)
        load_external(model, os.path.dirname(os.path.abspath(source)))
        name = os.path.basename(target) + ".data"
        onnx.save_model(model, target, save_as_external_data=True, location=name)
    except OSError as error:
        raise WorkerError("PublishError", "the model could not be copied: %s" % error.strerror) from None
