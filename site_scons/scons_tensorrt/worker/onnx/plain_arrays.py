"""numpy arrays as the bytes that common/array_file.py writes, and back."""

from __future__ import annotations

import numpy as np

from scons_tensorrt.worker.common import array_file
from scons_tensorrt.worker.common.errors import accuracy_error


def described(name: str, array: np.ndarray) -> tuple[str, str, tuple[int, ...], bytes]:
    """The array as `array_file.write` takes it. Raises WorkerError (AccuracyError) for another type."""
    array = np.asarray(array)
    dtype = array.dtype.name
    if dtype not in array_file.TYPES:
        raise accuracy_error("tensor `%s` is %s, which accuracy= cannot compare" % (name, dtype))
    return name, dtype, array.shape, np.ascontiguousarray(array).tobytes()


def array_of(dtype: str, shape: tuple[int, ...], data: bytearray) -> np.ndarray:
    """The array that `array_file.read` yields; bfloat16, which numpy itself does not have, as float32."""
    if dtype == "bfloat16":
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
