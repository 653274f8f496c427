"""The worker that runs an engine on its GPU: reads samples, writes outputs.

It needs only TensorRT and the driver. It is another process than the compile's, whose heap must not change.
The comparison with the original needs numpy, and runs in worker/onnx/engine_accuracy.py.
"""

from __future__ import annotations

import ctypes
import hashlib

from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import array_file, parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import main as compile_worker
from scons_tensorrt.worker.trt.callbacks import make_logger
from scons_tensorrt.worker.trt.check_hardware import check_gpu, check_machine, check_version, full_version
from scons_tensorrt.worker.trt.gpu_memory import Device
from scons_tensorrt.worker.trt.job import RunJob
from scons_tensorrt.worker.trt.runtime import load, load_plugins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import BufferedIOBase
    from typing import Any

    Sample = Mapping[str, tuple[str, tuple[int, ...], bytearray]]
    Output = tuple[str, str, tuple[int, ...], bytes]

DTYPES = {kind: dtype for dtype, (kind, _) in array_file.TYPES.items() if kind}


class NotRun(Exception):
    """The engine cannot be run here, through no fault of the engine. The text is the reason."""


def main(data: Mapping[str, Any]) -> None:
    """Run the job in `data`. Ends the process."""
    compile_worker.run(lambda: _run_if_possible(RunJob.from_json(data)), "AccuracyError")


def _run_if_possible(job: RunJob) -> dict[str, Any]:
    name = ""
    try:
        name = _gpu(job)
        with open(job.inputs, "rb") as source, open(job.outputs, "wb") as out:
            run(_runtime(job), job, source, out)
    except NotRun as why:
        return {"not_run_because": str(why), "gpu": name}
    return {"not_run_because": "", "gpu": name}


def _gpu(job: RunJob) -> str:
    """The name of the GPU. Raises NotRun if there is none, or the engine is not for it."""
    try:
        device = cuda.devices()[0]
    except cuda.CudaError as error:
        parent.once_more_with_library_path(job.library_path, error)
        raise NotRun(str(error)) from None
    try:
        check_machine(job.hardware)
        if job.product == "tensorrt":
            check_gpu(job.hardware, job.library_path)
    except WorkerError as error:
        raise NotRun("the engine is not for this GPU: %s" % error) from None
    sm = device["compute_capability"].replace(".", "")
    if job.product != "tensorrt" and job.architectures and int(sm) not in job.architectures:
        known = ", ".join(str(each) for each in job.architectures)
        raise NotRun("the engine is for SM %s, this GPU is SM %s" % (known, sm))
    return str(device["gpu_name"])


def _runtime(job: RunJob) -> Any:
    """The module of the product. Raises NotRun if it is missing, or has another version than the engine."""
    try:
        trt = load(job)
        check_version(job.runtime_version, full_version(trt.__version__))
    except WorkerError as error:
        raise NotRun(str(error)) from None
    return trt


def run(trt: Any, job: RunJob, source: BufferedIOBase, out: BufferedIOBase) -> None:
    """Run the engine on each record of `source`, and write its outputs as records of `out`, see
    common/array_file.py. Raises WorkerError (AccuracyError) and NotRun."""
    logger = make_logger(trt)
    load_plugins(trt, logger, job)
    runtime = trt.Runtime(logger)
    if "VERSION_COMPATIBLE" in job.flags:
        runtime.engine_host_code_allowed = True  # the recipe is trusted
    if "dla_core" in job.settings:
        runtime.DLA_core = job.settings["dla_core"]
    engine = runtime.deserialize_cuda_engine(_bytes(job))
    context = engine.create_execution_context() if engine is not None else None
    if context is None:
        raise _failed("TensorRT cannot load the engine", logger)
    try:
        device = Device()
        device.use()
        running = Running(trt, engine, context, device, logger)
        for where, record in zip(job.runs, array_file.read(source)):
            try:
                array_file.write(out, running.run(where, record))
            finally:
                device.free()
    except cuda.CudaError as error:
        raise _failed(str(error)) from None


def _bytes(job: RunJob) -> bytes:
    """The engine. Raises WorkerError if it changed since it was checked: an engine contains code."""
    with open(job.engine, "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != job.sha256:
        raise _failed("the engine changed before it was loaded")
    return data


def _failed(text: str, logger: Any = None) -> WorkerError:
    reason = ": %s" % " ".join(logger.errors[-1].split()) if logger and logger.errors else ""
    return WorkerError("AccuracyError", text + reason)


class Running:
    """An execution context, with the names of its inputs and outputs."""

    def __init__(self, trt: Any, engine: Any, context: Any, device: Device, logger: Any) -> None:
        self._trt, self._engine, self._context = trt, engine, context
        self._device, self._logger = device, logger
        self._stream = device.stream()
        self._profile = 0
        self._held: list[Any] = []  # host memory whose addresses TensorRT has
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = trt.TensorIOMode
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == mode.INPUT]
        self.outputs = [name for name in names if engine.get_tensor_mode(name) == mode.OUTPUT]
        for name in names:
            kind = self._kind(name)
            if kind not in DTYPES or engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
                raise NotRun("tensor `%s` is %s in an unsupported format" % (name, kind))

    def run(self, where: str, record: Sample) -> list[Output]:
        """Name, dtype, shape and bytes of the outputs for one sample. where: for messages."""
        self._held = []
        self._choose_profile(where, record)
        for name in self.inputs:
            self._set_input(where, name, *record[name])
        missing = self._context.infer_shapes()
        if missing:
            raise self._refused("%s: TensorRT has no value for input `%s`" % (where, missing[0]))
        places = [self._place(where, name) for name in self.outputs]
        if not self._context.execute_async_v3(self._stream):
            raise self._refused("%s: TensorRT cannot run the engine" % where)
        self._device.wait(self._stream)
        return [self._output(where, name, place) for name, place in zip(self.outputs, places)]

    def _choose_profile(self, where: str, record: Sample) -> None:
        """Use the first profile that covers all inputs."""
        for name in self.inputs:
            if name not in record:
                raise self._refused("%s: input `%s` has no samples" % (where, name))
        shapes = {name: record[name][1] for name in self.inputs}
        count = self._engine.num_optimization_profiles
        fitting = [n for n in range(count) if all(self._fits(n, *pair) for pair in shapes.items())]
        if count and not fitting:
            text = ", ".join("`%s` %s" % (name, list(shape)) for name, shape in shapes.items())
            raise _failed("%s: no profile of shapes= covers %s" % (where, text))
        if fitting and fitting[0] != self._profile:
            if not self._context.set_optimization_profile_async(fitting[0], self._stream):
                raise self._refused("%s: TensorRT did not accept profile %d" % (where, fitting[0]))
            self._device.wait(self._stream)
            self._profile = fitting[0]

    def _fits(self, profile: int, name: str, shape: Sequence[int]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, profile)
        bounds = zip(shape, tuple(low), tuple(high))
        return len(shape) == len(tuple(low)) and all(a <= size <= b for size, a, b in bounds)

    def _set_input(self, where: str, name: str, dtype: str, shape: Sequence[int], data: bytearray) -> None:
        kind = self._kind(name)
        if (dtype, kind) == ("int64", "INT32"):
            dtype, data = "int32", _narrowed(name, data)
        if array_file.TYPES[dtype][0] != kind:
            raise NotRun("input `%s` is %s, but its samples are %s" % (name, kind, dtype))
        address = self._memory(name, data, len(data))
        accepted = self._context.set_input_shape(name, shape)
        if not (accepted and self._context.set_tensor_address(name, address)):
            raise self._refused("%s: TensorRT did not accept input `%s` %s" % (where, name, list(shape)))

    def _memory(self, name: str, data: bytearray | None, size: int) -> int:
        """The address of memory for a tensor, on host or GPU, with `data` copied to it."""
        if self._on_host(name):
            held = (ctypes.c_char * max(size, 1)).from_buffer(bytearray(data or max(size, 1)))
            self._held.append(held)
            return ctypes.addressof(held)
        address = self._device.allocate(max(size, 1))
        if data:
            self._device.copy(address, data)
        return address

    def _place(self, where: str, name: str) -> Any:
        """An object with the address and shape of an output. TensorRT sets them later if the shape depends on
        the data."""
        shape = tuple(self._context.get_tensor_shape(name))
        place = make_allocator(self._trt, self._device)
        if any(dimension < 0 for dimension in shape):
            accepted = self._context.set_output_allocator(name, place)
        else:
            size = array_file.size(DTYPES[self._kind(name)], shape)
            place.address, place.shape = self._memory(name, None, size), shape
            accepted = self._context.set_tensor_address(name, place.address)
        if not accepted:
            raise self._refused("%s: TensorRT did not accept memory for output `%s`" % (where, name))
        return place

    def _output(self, where: str, name: str, place: Any) -> Output:
        dtype = DTYPES[self._kind(name)]
        if place.shape is None:
            raise self._refused("%s: TensorRT did not report the shape of output `%s`" % (where, name))
        size = array_file.size(dtype, place.shape)
        if self._on_host(name):
            return name, dtype, place.shape, ctypes.string_at(place.address, size)
        return name, dtype, place.shape, self._device.fetch(place.address, size)

    def _kind(self, name: str) -> str:
        """The name of a tensor's type in TensorRT."""
        return str(self._engine.get_tensor_dtype(name).name)

    def _on_host(self, name: str) -> bool:
        return bool(self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST)

    def _refused(self, text: str) -> WorkerError:
        return _failed(text, self._logger)


def _narrowed(name: str, data: bytearray) -> bytearray:
    try:
        return array_file.narrowed(data)
    except OverflowError:
        raise NotRun("input `%s` is INT32, but its samples need int64" % name) from None


def make_allocator(trt: Any, device: Device) -> Any:
    """Memory for one output whose shape depends on the data."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.shape: tuple[int, ...] | None = None

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            try:
                self.address = device.allocate(max(size, 1))  # the driver aligns to 256 bytes
            except cuda.CudaError:
                self.address = 0  # TensorRT then fails to run
            return self.address

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Sequence[int]) -> None:
            self.shape = tuple(shape)

    return Allocator()
