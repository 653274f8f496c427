"""Memory of the GPU by the driver, as far as a calibrator, or running an engine, needs some."""

import ctypes

from scons_tensorrt.hardware import cuda


class Device:
    """The GPU that TensorRT compiles on, the first that is visible, in the context that the CUDA
    runtime uses, too. Raises CudaError."""

    def __init__(self):
        self._library = cuda.load()
        self._context = ctypes.c_void_p()
        self._pointers = []
        device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)

    def use(self):
        """Make it this thread's: who calls back may be another thread than who built."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size):
        """The address of `size` new bytes."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._pointers.append(pointer)
        return pointer.value

    def copy(self, pointer, data):
        """Copy a bytearray to an address."""
        source = (ctypes.c_char * len(data)).from_buffer(data)
        size = ctypes.c_size_t(len(data))
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), source, size)

    def fetch(self, pointer, size):
        """The bytes at an address."""
        target = (ctypes.c_char * max(size, 1))()
        if size:
            self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(pointer), ctypes.c_size_t(size))
        return target.raw[:size]

    def stream(self):
        """A new stream, as TensorRT takes it."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        return stream.value

    def wait(self, stream):
        """Wait for all of a stream's work. Raises CudaError for what went wrong in it."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def synchronize(self):
        """Wait for the copies: pageable memory may still be on its way when a copy returns."""
        self._call("cuCtxSynchronize")

    def free(self):
        """Give all of it back."""
        while self._pointers:
            self._call("cuMemFree_v2", self._pointers.pop())

    def _call(self, name, *arguments):
        cuda.call(self._library, name, *arguments)
