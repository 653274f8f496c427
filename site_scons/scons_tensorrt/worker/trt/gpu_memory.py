"""GPU memory through the CUDA driver API, for a calibrator and for running an engine."""

from __future__ import annotations

import ctypes

from scons_tensorrt.hardware import cuda

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Device:
    """The first visible GPU, on which TensorRT compiles, with the context of the CUDA runtime. Methods raise
    CudaError."""

    def __init__(self) -> None:
        self._library = cuda.load()
        self._context = ctypes.c_void_p()
        self._pointers: list[ctypes.c_uint64] = []
        device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)

    def use(self) -> None:
        """Make the context current in this thread: TensorRT may call back from another thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """The address of `size` new bytes."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._pointers.append(pointer)
        return pointer.value

    def copy(self, pointer: int, data: bytearray) -> None:
        """Copy to an address."""
        source = (ctypes.c_char * len(data)).from_buffer(data)
        size = ctypes.c_size_t(len(data))
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), source, size)

    def fetch(self, pointer: int, size: int) -> bytes:
        """The bytes at an address."""
        target = (ctypes.c_char * max(size, 1))()
        if size:
            self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(pointer), ctypes.c_size_t(size))
        return target.raw[:size]

    def stream(self) -> int | None:
        """A new stream, as a handle for TensorRT."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        return stream.value

    def wait(self, stream: int | None) -> None:
        """Wait for all work of a stream. Raises CudaError for an error in that work."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def synchronize(self) -> None:
        """Wait for the copies: a copy from pageable memory may return before it ends."""
        self._call("cuCtxSynchronize")

    def free(self) -> None:
        """Free all memory that was allocated."""
        while self._pointers:
            self._call("cuMemFree_v2", self._pointers.pop())

    def _call(self, name: str, *arguments: Any) -> None:
        cuda.call(self._library, name, *arguments)
