"""INT8 calibration with the calibrators of TensorRT 8 and 10: copies samples to the GPU one at a time, saves
the cache.

The bindings swallow an exception of a callback, or crash, and then continue as if there were no more samples.
So every error is kept here; after one, no cache is saved and no engine is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os

from scons_tensorrt.hardware.cuda import CudaError
from scons_tensorrt.worker.common import array_file, parent
from scons_tensorrt.worker.common.errors import WorkerError, recipe_error
from scons_tensorrt.worker.trt.gpu_memory import Device
from scons_tensorrt.worker.trt.network import inputs_of, is_shape_tensor
from scons_tensorrt.worker.trt.runtime import title
from scons_tensorrt.worker.trt.shared_file import locked, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from scons_tensorrt.worker.trt.job import CalibrationJob

    T = TypeVar("T")

CALIBRATORS = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


@contextlib.contextmanager
def attached(trt: Any, builder: Any, network: Any, config: Any, job: CalibrationJob) -> Iterator[Calibration]:
    """Builds inside this context calibrate. Raises WorkerError, also for an error of a callback."""
    with _Samples(job.samples) as samples:
        calibration = Calibration(samples, job.cache, job.known)
        _check_inputs(network, samples)
        config.int8_calibrator = make_calibrator(trt, job.method, calibration)
        _set_profile(builder, network, config, samples)
        try:
            yield calibration
        except WorkerError:
            calibration.check()  # the first error is the cause
            raise
        finally:
            calibration.free()
        sha256 = calibration.check_used()
    parent.send("calibration", cache=os.path.basename(job.cache), sha256=sha256, samples=calibration.given)


def make_calibrator(trt: Any, method: str, calibration: Calibration) -> Any:
    """A calibrator of the runtime's class, whose callbacks call `calibration`."""
    base: Any = getattr(trt, CALIBRATORS[method], None)
    if base is None:
        raise recipe_error("calibration by='calibrator' is not supported by %s; write by='qdq'" % title(trt))

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return calibration.samples.batch_size

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            return calibration.guard(calibration.batch, names)

        def read_calibration_cache(self) -> bytes | None:
            return calibration.guard(calibration.read)

        def write_calibration_cache(self, cache: Any) -> None:
            calibration.guard(calibration.write, cache)

    return Calibrator()


class Calibration:
    """The callbacks. given: number of samples that TensorRT has read."""

    def __init__(self, samples: _Samples, path: str, known: str | None) -> None:
        self.samples = samples
        self.given = 0
        self._cache = None if known is None else bytes.fromhex(known)
        self._path = path
        self._known = known is not None
        self._read = False
        self._error: Exception | None = None
        self._device: Device | None = None
        self._pointers: dict[str, int] = {}

    def guard(self, do: Callable[..., T], *arguments: Any) -> T | None:
        """Call a callback. Keeps its first error, and from then on only returns None."""
        if self._error is None:
            try:
                return do(*arguments)
            except Exception as error:
                self._error = error
        return None

    def read(self) -> bytes | None:
        self._read = True
        return self._cache

    def batch(self, names: Sequence[str]) -> list[int] | None:
        """Addresses of the next sample's inputs, in the order of `names`; None after the last sample."""
        if self.given == self.samples.count:
            self.free()
            return None
        missing = sorted(set(names) - set(self.samples.sizes))
        if missing:
            raise recipe_error("TensorRT asked for samples of `%s`, which has none" % missing[0])
        device = self._device = self._device or Device()
        device.use()
        if not self._pointers:
            self._pointers = {name: device.allocate(size) for name, size in self.samples.sizes.items()}
        for name, data in self.samples.next():
            device.copy(self._pointers[name], data)
        device.synchronize()
        self.given += 1
        return [self._pointers[name] for name in names]

    def write(self, cache: Any) -> None:
        """Save the cache at once, so that it outlives a failed build. `cache` is memory of TensorRT, valid
        only during this call."""
        if self._known and not self.given:
            return  # the cache that was read
        if self.given < self.samples.count:
            raise _failed(self._progress())
        data = bytes(cache)
        if not data:
            raise _failed("TensorRT wrote an empty cache")
        self._cache = data
        keep(self._path, data)

    def free(self) -> None:
        """Free the GPU memory. An error here does not affect the engine."""
        self._pointers = {}
        if self._device:
            with contextlib.suppress(CudaError):
                self._device.use()
                self._device.free()

    def check(self) -> None:
        """Raise WorkerError for the error that was kept."""
        error = self._error
        if error is None:
            return
        if isinstance(error, WorkerError):
            raise error
        known = isinstance(error, (CudaError, OSError))
        raise _failed(str(error) if known else "%s: %s" % (type(error).__name__, error))

    def check_used(self) -> str:
        """The sha256 of the cache. Raises WorkerError unless TensorRT used the cache, or all samples."""
        self.check()
        if self._cache is None:
            raise _failed("%s and wrote no cache; see the log" % self._progress())
        if self._known and not self._read:
            raise _failed("TensorRT did not read the cache; see the log")
        return hashlib.sha256(self._cache).hexdigest()

    def _progress(self) -> str:
        return "TensorRT read %d of %d samples" % (self.given, self.samples.count)


def _failed(text: str) -> WorkerError:
    return WorkerError("EngineBuildError", "calibration: %s" % text)


class _Samples:
    """The file of samples. count: of samples; sizes: bytes of each input in one sample."""

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "rb")  # noqa: SIM115
            header = json.loads(self._file.readline())
        except OSError as error:
            raise WorkerError("PublishError", "%s: %s; run again" % (path, error.strerror)) from None
        self.count: int = header["samples"]
        self.types: dict[str, str] = {name: dtype for name, dtype, _ in header["inputs"]}
        self.shapes: dict[str, list[int]] = {name: shape for name, _, shape in header["inputs"]}
        self.sizes = {name: _size(name, dtype, self.shapes[name]) for name, dtype in self.types.items()}
        self.narrow: set[str] = set()  # int64 inputs that TensorRT reads as int32
        first = next(iter(self.shapes.values()))
        self.batch_size = first[0] if first else 1

    def __enter__(self) -> _Samples:
        return self

    def __exit__(self, *what: object) -> None:
        self._file.close()

    def next(self) -> Iterator[tuple[str, bytearray]]:
        """Name and bytes of each input of the next sample."""
        for name, dtype in self.types.items():
            data = bytearray(array_file.size(dtype, self.shapes[name]))
            if self._file.readinto(data) != len(data):
                raise _failed("the file of samples is truncated; remove it and run again")
            yield name, self._narrowed(name, data) if name in self.narrow else data

    def _narrowed(self, name: str, data: bytearray) -> bytearray:
        try:
            return array_file.narrowed(data)
        except OverflowError:
            raise recipe_error("input `%s` is INT32, but its samples need int64" % name) from None


def _size(name: str, dtype: str, shape: Sequence[int]) -> int:
    if not array_file.TYPES.get(dtype, ("",))[0]:
        raise recipe_error("input `%s` has type %s, which calibrators do not support" % (name, dtype))
    return array_file.size(dtype, shape)


def _check_inputs(network: Any, samples: _Samples) -> None:
    """Raise WorkerError if TensorRT would read the samples as another type."""
    for tensor in inputs_of(network):
        name, kind = tensor.name, tensor.dtype.name
        if is_shape_tensor(tensor):
            text = "input `%s` is a shape tensor, which a calibrator cannot set; write by='qdq'"
            raise recipe_error(text % name)
        if name not in samples.sizes:
            raise recipe_error("input `%s` of the network has no samples" % name)
        if (samples.types[name], kind) == ("int64", "INT32"):
            samples.narrow.add(name)
        elif kind != array_file.TYPES[samples.types[name]][0]:
            text = "input `%s` is %s in TensorRT, but its samples are %s"
            raise recipe_error(text % (name, kind, samples.types[name]))


def _set_profile(builder: Any, network: Any, config: Any, samples: _Samples) -> None:
    """Dynamic inputs have the shape of the samples during calibration."""
    dynamic = [tensor.name for tensor in inputs_of(network) if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for name in dynamic:
        shape = samples.shapes[name]
        profile.set_shape(name, shape, shape, shape)
        if [list(each) for each in profile.get_shape(name)] != [shape] * 3:
            raise recipe_error("TensorRT did not accept the shape of the samples of `%s`" % name)
    if not config.set_calibration_profile(profile):
        raise recipe_error("TensorRT did not accept the calibration profile; see the log")


def keep(path: str, data: bytes) -> None:
    """Save a new cache and its sidecar; an existing cache is not replaced.

    The sidecar comes first: a sidecar alone, after a crash between the two, means no cache.
    """
    try:
        with locked(path):
            if not os.path.lexists(path):
                replace(path + ".sha256", hashlib.sha256(data).hexdigest().encode("ascii"))
                replace(path, data)
    except OSError as error:
        text = "calibration cache %s: %s; the engine is built, the cache is not saved"
        parent.send("note", text=text % (path, error.strerror))
