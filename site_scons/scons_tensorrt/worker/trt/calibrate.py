"""TensorRT 10's INT8 calibrators: samples to the GPU one at a time, and the cache that comes out.

The bindings swallow what a callback raises, or die of it, and then go on as if the samples had
ended: so every error is kept here, and after one nothing is kept on disk and no engine is made.
"""

import contextlib
import hashlib
import json
import os

from scons_tensorrt.hardware.cuda import CudaError
from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.array_file import TYPES
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt.gpu_memory import Device
from scons_tensorrt.worker.trt.timing_cache import locked

CALIBRATORS = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


@contextlib.contextmanager
def attached(trt, builder, network, config, job):
    """Let the builds inside calibrate. Raises WorkerError, also for what a callback kept.

    job: method; samples: the path of a file of worker/onnx/calibration_batches.py; cache: the path of the
    calibration cache; known: its bytes as hex, None to calibrate.
    """
    with _Samples(job["samples"]) as samples:
        calibration = Calibration(samples, job["cache"], job["known"])
        _check_inputs(trt, network, samples)
        calibrator = make_calibrator(trt, job["method"], calibration)
        config.int8_calibrator = calibrator
        _set_profile(builder, network, config, samples)
        try:
            yield calibration
        except WorkerError:
            calibration.check()  # what went wrong first is the cause
            raise
        finally:
            calibration.free()
        calibration.check_used()
    cache = os.path.basename(job["cache"])
    parent.send("calibration", cache=cache, sha256=calibration.sha256, samples=calibration.given)


def make_calibrator(trt, method, calibration):
    """A calibrator of the runtime's own class, whose callbacks are those of `calibration`."""
    base = getattr(trt, CALIBRATORS[method], None)
    if base is None:
        text = "calibration by='calibrator': %s %s has none; write by='qdq'"
        raise WorkerError("RecipeError", text % (trt.__name__, trt.__version__))

    class Calibrator(base):
        def __init__(self):
            base.__init__(self)

        def get_batch_size(self):
            return calibration.samples.batch_size

        def get_batch(self, names):
            return calibration.guard(calibration.batch, names)

        def read_calibration_cache(self):
            return calibration.guard(calibration.read)

        def write_calibration_cache(self, cache):
            calibration.guard(calibration.write, cache)

    return Calibrator()


class Calibration:
    """What the callbacks do. given: samples so far; cache: the bytes that count."""

    def __init__(self, samples, path, known):
        self.samples = samples
        self.given = 0
        self.cache = None if known is None else bytes.fromhex(known)
        self._path = path
        self._known = known is not None
        self._read = False
        self._error = None
        self._device = None
        self._pointers = {}

    @property
    def sha256(self):
        return hashlib.sha256(self.cache).hexdigest()

    def guard(self, do, *arguments):
        """What `do` returns; None from its first error on."""
        if self._error is None:
            try:
                return do(*arguments)
            except Exception as error:
                self._error = error
        return None

    def read(self):
        self._read = True
        return self.cache

    def batch(self, names):
        """Addresses of the next sample's inputs, in the order of `names`; None after the last."""
        if self.given == self.samples.count:
            self.free()
            return None
        strange = sorted(set(names) - set(self.samples.sizes))
        if strange:
            raise WorkerError("RecipeError", "TensorRT wants samples of `%s` too, and has none" % strange[0])
        self._allocate()
        for name, data in self.samples.next():
            self._device.copy(self._pointers[name], data)
        self._device.synchronize()
        self.given += 1
        return [self._pointers[name] for name in names]

    def _allocate(self):
        self._device = self._device or Device()
        self._device.use()
        if not self._pointers:
            sizes = self.samples.sizes
            self._pointers = {name: self._device.allocate(size) for name, size in sizes.items()}

    def write(self, cache):
        """Keep what TensorRT found, at once: a build that fails or is killed later has it still.
        `cache` is memory of TensorRT's that is gone afterwards."""
        if self._known and not self.given:
            return  # it only gives back what it was given
        if self.given < self.samples.count:
            raise _failed(self._taken())
        data = bytes(cache)
        if not data:
            raise _failed("TensorRT wrote an empty one")
        self.cache = data
        keep(self._path, data)

    def free(self):
        """Give the GPU's memory back; that it cannot is no fault of the engine's."""
        self._pointers = {}
        if self._device:
            with contextlib.suppress(CudaError):
                self._device.use()
                self._device.free()

    def check(self):
        """Raise WorkerError for the error that was kept."""
        error = self._error
        if error is None:
            return
        if isinstance(error, WorkerError):
            raise error
        known = isinstance(error, (CudaError, OSError))
        raise _failed(str(error) if known else "%s: %s" % (type(error).__name__, error))

    def check_used(self):
        """Raise WorkerError unless the engine that was made is calibrated with all of the samples."""
        self.check()
        if self.cache is None:
            raise _failed("%s and wrote none; the log says why" % self._taken())
        if self._known and not self._read:
            raise _failed("TensorRT did not ask for its cache; the log says why")

    def _taken(self):
        return "TensorRT took %d of %d samples" % (self.given, self.samples.count)


def _failed(text):
    return WorkerError("EngineBuildError", "calibration: %s" % text)


class _Samples:
    """The file of samples. sizes: bytes of each input of one sample; count: of samples."""

    def __init__(self, path):
        try:
            self._file = open(path, "rb")  # noqa: SIM115
            header = json.loads(self._file.readline())
        except OSError as error:
            raise WorkerError("PublishError", "%s: %s; run again" % (path, error.strerror)) from None
        self.count = header["samples"]
        self.types = {name: dtype for name, dtype, _ in header["inputs"]}
        self.shapes = {name: shape for name, _, shape in header["inputs"]}
        self.sizes = {name: _size(name, dtype, shape) for name, dtype, shape in header["inputs"]}
        first = next(iter(self.shapes.values()))
        self.batch_size = first[0] if first else 1

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self._file.close()

    def next(self):
        """(name, bytearray) of each input of the next sample."""
        for name, size in self.sizes.items():
            data = bytearray(size)
            if self._file.readinto(data) != size:
                raise _failed("the file of samples ends too soon; remove it and run again")
            yield name, data


def _size(name, dtype, shape):
    if not TYPES.get(dtype, ("",))[0]:
        raise WorkerError("RecipeError", "input `%s` is %s, which no calibrator takes" % (name, dtype))
    size = TYPES[dtype][1]
    for dimension in shape:
        size *= dimension
    return size


def _inputs(network):
    return [network.get_input(index) for index in range(network.num_inputs)]


def _check_inputs(trt, network, samples):
    """Refuse inputs for which TensorRT would read other bytes than the samples have."""
    for tensor in _inputs(network):
        name = tensor.name
        # A shape tensor has rank 0 or 1; asking of others is not safe in every binding.
        if len(tensor.shape) <= 1 and tensor.is_shape_tensor:
            text = "input `%s` is a shape tensor, which a calibrator cannot feed; write by='qdq'"
            raise WorkerError("RecipeError", text % name)
        if name not in samples.sizes:
            raise WorkerError("RecipeError", "input `%s` of the network has no samples" % name)
        wanted = TYPES[samples.types[name]][0]
        if tensor.dtype.name != wanted:
            text = "input `%s` is %s for %s, and its samples are %s"
            raise WorkerError(
                "RecipeError", text % (name, tensor.dtype.name, trt.__name__, samples.types[name])
            )


def _set_profile(builder, network, config, samples):
    """Dynamic inputs have the samples' shape while TensorRT calibrates."""
    dynamic = [tensor.name for tensor in _inputs(network) if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for name in dynamic:
        shape = samples.shapes[name]
        profile.set_shape(name, shape, shape, shape)
        if [list(each) for each in profile.get_shape(name)] != [shape] * 3:
            raise WorkerError("RecipeError", "TensorRT did not take the samples' shape of `%s`" % name)
    if not config.set_calibration_profile(profile):
        raise WorkerError("RecipeError", "TensorRT refused the samples' shapes; the log says why")


def keep(path, data):
    """Bring a new cache and its sidecar to their place; one that is there stays as it is.

    The sidecar first: cut off between the two, there is a sidecar alone, which means no cache.
    """
    try:
        with locked(path):
            if not os.path.lexists(path):
                _put(path + ".sha256", hashlib.sha256(data).hexdigest().encode("ascii"))
                _put(path, data)
    except OSError as error:
        text = "calibration cache %s: %s; the engine is made without keeping it"
        parent.send("note", text=text % (path, error.strerror))


def _put(path, data):
    temporary = path + ".tmp"  # one name, because the lock is held
    if os.path.lexists(temporary):  # a killed one's, or a link that leads elsewhere
        os.unlink(temporary)
    try:
        with open(temporary, "xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
