"""An engine on its GPU: samples in, outputs out, by nothing but TensorRT and the driver.

A process of its own, after the compile's: what an engine's bytes are made by stays as it was. The
comparison with the original is the converters' (worker/onnx/engine_accuracy.py), because it takes numpy.
"""

import ctypes
import hashlib
import os

from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import array_file, parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt.callbacks import make_logger
from scons_tensorrt.worker.trt.check_hardware import check_gpu, check_machine, check_version, full_version
from scons_tensorrt.worker.trt.gpu_memory import Device
from scons_tensorrt.worker.trt.main import _load, load_plugins

DTYPES = {kind: (dtype, size) for dtype, (kind, size) in array_file.TYPES.items() if kind}


class NotRun(Exception):
    """The engine cannot be run here, which is no fault of its own; the text says why."""


def main(job):
    """Run a job: see `build/run_engine.py` for its fields. Ends the process."""
    parent.claim_stdout()
    parent.die_with_parent()
    done = {"not_run_because": "", "gpu": ""}
    try:
        done["gpu"] = _gpu(job)
        with open(job["inputs"], "rb") as source, open(job["outputs"], "wb") as out:
            run(_runtime(job), job, source, out)
    except NotRun as why:
        done["not_run_because"] = str(why)
    except WorkerError as refused:
        parent.send("error", error_class=refused.error_class, message=str(refused))
        os._exit(1)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        message = "%s: %s" % (type(error).__name__, error)
        parent.send("error", error_class="AccuracyError", message=message)
        os._exit(1)
    parent.send("done", **done)
    os._exit(0)


def _gpu(job):
    """The name of the GPU, if the engine is for it. Raises NotRun."""
    try:
        device = cuda.devices()[0]
    except cuda.CudaError as error:
        parent.once_more_with_library_path(job, error)
        raise NotRun(str(error)) from None
    sm = device["compute_capability"].replace(".", "")
    try:
        check_machine(job["hardware"])
        if job["product"] == "tensorrt":
            check_gpu(job)
    except WorkerError as refused:
        raise NotRun("it is not for the GPU here: %s" % refused) from None
    if job["product"] != "tensorrt" and int(sm) not in job["architectures"]:
        known = ", ".join(str(each) for each in job["architectures"])
        raise NotRun("it is for SM %s, and the GPU here is SM %s" % (known, sm))
    return device["gpu_name"]


def _runtime(job):
    """The module of the product. Raises NotRun where there is none of the engine's version."""
    try:
        trt = _load(job)
        check_version(job["runtime_version"], full_version(trt.__version__))
    except WorkerError as refused:
        raise NotRun(str(refused)) from None
    return trt


def run(trt, job, source, out):
    """Run the engine of a job on each record of `source`; its outputs are the records of `out`.

    job: engine, its path; sha256, of the bytes that shall be run; flags and settings of its recipe;
    plugins. Raises WorkerError (AccuracyError) and NotRun.
    """
    logger = make_logger(trt)
    load_plugins(trt, logger, job)
    runtime = trt.Runtime(logger)
    if "VERSION_COMPATIBLE" in job["flags"]:
        runtime.engine_host_code_allowed = True  # it was compiled here, of a declared recipe
    if "dla_core" in job["settings"]:
        runtime.DLA_core = job["settings"]["dla_core"]
    engine = runtime.deserialize_cuda_engine(_bytes(job))
    context = engine.create_execution_context() if engine is not None else None
    if context is None:
        raise _failed("TensorRT cannot load it", logger)
    try:
        device = Device()
        device.use()
        running = Running(trt, engine, context, device, logger)
        for number, record in enumerate(array_file.read(source)):
            try:
                array_file.write(out, running.run(number, record))
            finally:
                device.free()
    except cuda.CudaError as error:
        raise _failed(str(error)) from None


def _bytes(job):
    """The engine, in memory, and no other than was compiled: an engine is code."""
    with open(job["engine"], "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != job["sha256"]:
        raise _failed("its bytes changed before they were run")
    return data


def _failed(text, logger=None):
    reason = ": %s" % " ".join(logger.errors[-1].split()) if logger and logger.errors else ""
    return WorkerError("AccuracyError", text + reason)


class Running:
    """An execution context, and the tensors of its engine by name."""

    def __init__(self, trt, engine, context, device, logger):
        self._trt, self._engine, self._context = trt, engine, context
        self._device, self._logger = device, logger
        self._stream = device.stream()
        self._profile = 0
        self._held = []  # memory of the host that TensorRT was given the addresses of
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = trt.TensorIOMode
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == mode.INPUT]
        self.outputs = [name for name in names if engine.get_tensor_mode(name) == mode.OUTPUT]
        for name in names:
            kind = engine.get_tensor_dtype(name).name
            if kind not in DTYPES or engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
                raise NotRun("tensor `%s` is %s in a form that is not read here" % (name, kind))

    def run(self, number, record):
        """[(name, dtype, shape, bytes)] of the outputs for one sample."""
        self._held = []
        where = "sample %d" % number
        self._choose_profile(where, record)
        for name in self.inputs:
            self._give(where, name, *record[name])
        missing = self._context.infer_shapes()
        if missing:
            raise self._refused("%s: TensorRT still wants `%s`" % (where, missing[0]))
        places = [self._place(where, name) for name in self.outputs]
        if not self._context.execute_async_v3(self._stream):
            raise self._refused("it cannot be run on %s" % where)
        self._device.wait(self._stream)
        return [self._take(where, name, place) for name, place in zip(self.outputs, places)]

    def _choose_profile(self, where, record):
        """The first profile that all inputs fit in."""
        shapes = {}
        for name in self.inputs:
            if name not in record:
                raise self._refused("%s: it wants an input `%s`, which has no samples" % (where, name))
            shapes[name] = record[name][1]
        count = self._engine.num_optimization_profiles
        fitting = [n for n in range(count) if all(self._fits(n, *pair) for pair in shapes.items())]
        if count and not fitting:
            said = ", ".join("`%s` %s" % (name, list(shape)) for name, shape in shapes.items())
            raise WorkerError("AccuracyError", "%s: no profile of shapes= takes %s" % (where, said))
        if fitting and fitting[0] != self._profile:
            if not self._context.set_optimization_profile_async(fitting[0], self._stream):
                raise self._refused("%s: TensorRT did not take profile %d" % (where, fitting[0]))
            self._device.wait(self._stream)
            self._profile = fitting[0]

    def _fits(self, profile, name, shape):
        low, _, high = self._engine.get_tensor_profile_shape(name, profile)
        bounds = zip(shape, tuple(low), tuple(high))
        return len(shape) == len(tuple(low)) and all(a <= size <= b for size, a, b in bounds)

    def _give(self, where, name, dtype, shape, data):
        kind = self._engine.get_tensor_dtype(name).name
        if array_file.TYPES[dtype][0] != kind:
            raise NotRun("input `%s` is %s for it, and its samples are %s" % (name, kind, dtype))
        address = self._memory(name, data, len(data))
        taken = self._context.set_input_shape(name, shape)
        if not (taken and self._context.set_tensor_address(name, address)):
            raise self._refused("%s: TensorRT did not take input `%s` %s" % (where, name, list(shape)))

    def _memory(self, name, data, size):
        """The address of memory where TensorRT looks for a tensor, with `data` in it if there is any."""
        if self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST:
            held = (ctypes.c_char * max(size, 1)).from_buffer(bytearray(data or max(size, 1)))
            self._held.append(held)
            return ctypes.addressof(held)
        address = self._device.allocate(max(size, 1))
        if data:
            self._device.copy(address, data)
        return address

    def _place(self, where, name):
        """Where an output will be: (its address, its shape); or what TensorRT asks for memory when the
        data decide the shape."""
        dtype, _ = DTYPES[self._engine.get_tensor_dtype(name).name]
        shape = tuple(self._context.get_tensor_shape(name))
        if any(dimension < 0 for dimension in shape):
            place = make_allocator(self._trt, self._device)
            taken = self._context.set_output_allocator(name, place)
        else:
            place = (self._memory(name, None, array_file.size(dtype, shape)), shape)
            taken = self._context.set_tensor_address(name, place[0])
        if not taken:
            raise self._refused("%s: TensorRT took no memory for output `%s`" % (where, name))
        return place

    def _take(self, where, name, place):
        dtype, _ = DTYPES[self._engine.get_tensor_dtype(name).name]
        address, shape = place if isinstance(place, tuple) else (place.address, place.shape)
        if shape is None:
            raise self._refused("%s: TensorRT did not tell the shape of output `%s`" % (where, name))
        size = array_file.size(dtype, shape)
        if self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST:
            return name, dtype, shape, ctypes.string_at(address, size)
        return name, dtype, shape, self._device.fetch(address, size)

    def _refused(self, text):
        return _failed(text, self._logger)


def make_allocator(trt, device):
    """Memory for one output whose shape shows only when it is computed."""

    class Allocator(trt.IOutputAllocator):
        def __init__(self):
            trt.IOutputAllocator.__init__(self)
            self.address, self.shape = 0, None

        def reallocate_output(self, tensor_name, memory, size, alignment):
            try:
                self.address = device.allocate(max(size, 1))  # the driver aligns to 256 bytes
            except cuda.CudaError:
                self.address = 0  # TensorRT then says that it cannot run
            return self.address

        def reallocate_output_async(self, tensor_name, memory, size, alignment, stream):
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name, shape):
            self.shape = tuple(shape)

    return Allocator()
