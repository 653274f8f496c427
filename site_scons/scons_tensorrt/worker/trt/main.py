"""One compile, from the job to the `done` event; whatever goes wrong is an `error` event."""

import contextlib
import ctypes
import importlib
import os
import resource
import sys

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import timing_cache
from scons_tensorrt.worker.trt.build import build, configure
from scons_tensorrt.worker.trt.callbacks import make_logger
from scons_tensorrt.worker.trt.check_hardware import check_gpu, check_machine, check_version, full_version
from scons_tensorrt.worker.trt.network import check_precision, parse, renumbered


def main(job):
    """Run a job: see `build/job.py` for its fields. Ends the process."""
    parent.claim_stdout()
    parent.die_with_parent()
    try:
        sha256, size, unsteady, version = _compile(job)
    except WorkerError as refused:
        what = {"error_class": refused.error_class, "message": str(refused), "lasting": refused.lasting}
        parent.send("error", **what)
        os._exit(1)
    except BaseException as error:
        import traceback  # costly without its .pyc, and most compiles end well

        traceback.print_exc()
        message = "%s: %s" % (type(error).__name__, error)
        parent.send("error", error_class="EngineBuildError", message=message)
        os._exit(1)
    parent.send(
        "done",
        sha256=sha256,
        size=size,
        version=version,
        python=sys.version.split()[0],
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        not_reproducible_because=_why_not_reproducible(job, unsteady),
    )
    os._exit(0)  # an engine on disk needs no destructors


def _why_not_reproducible(job, unsteady):
    if job["product"] == "tensorrt":
        return "TensorRT chooses kernels by timing them on the GPU"
    if unsteady:
        return "TensorRT for RTX numbers tensors anew in a quantized network with dynamic shapes"
    return job["not_canonical_because"] or None


def _compile(job):
    check_machine(job["hardware"])
    trt = _load(job)
    version = full_version(trt.__version__)
    check_version(job["runtime_version"], version)
    if job["product"] == "tensorrt":
        check_gpu(job)
    return (*make(trt, job), version)


def make(trt, job):
    """Compile with the runtime `trt`, whatever it is; (sha256, size) of the engine, and whether RTX may
    give others another time."""
    logger = make_logger(trt)
    load_plugins(trt, logger, job)
    os.chdir(job["folder"])
    try:
        builder = trt.Builder(logger)
    except TypeError:
        reason = logger.errors[0] if logger.errors else "is there a GPU?"
        raise WorkerError(
            "HardwareMismatchError", "%s cannot build here: %s" % (trt.__name__, reason)
        ) from None
    strong = job["recipe"].get("strongly_typed", False)
    network, parser = parse(trt, builder, logger, job["onnx"], strong)
    calibrated = bool(job.get("calibration"))
    check_precision(trt, network, job["recipe"]["precision"], strong, calibrated)
    unsteady = renumbered(network)
    config = configure(trt, builder, network, job)
    if job["timing_cache"]:
        timing_cache.use(config, job["timing_cache"])
    with _calibrating(trt, builder, network, config, job):
        sha256, size = build(trt, builder, network, config, logger, job)
    if job["timing_cache"]:
        timing_cache.keep(config, job["timing_cache"])
    del parser  # it owns weights that the network refers to
    return sha256, size, unsteady


def _calibrating(trt, builder, network, config, job):
    if not job.get("calibration"):
        return contextlib.nullcontext()
    from scons_tensorrt.worker.trt import calibrate  # sent with a job that calibrates

    return calibrate.attached(trt, builder, network, config, job["calibration"])


def load_plugins(trt, logger, job):
    """The plugins that TensorRT ships, and the libraries of the recipe."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    for path, descriptor in job["plugins"]:
        name = os.path.basename(path)
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            parent.once_more_with_library_path(job, error)
            told = "plugin %s: %s; see `ldd -r %s`" % (name, error, name)
            raise WorkerError("RecipeError", told) from None
        if not is_loaded(descriptor):
            raise WorkerError("EngineBuildError", "%s changed while it was loaded; run again" % name)


def is_loaded(descriptor):
    """Whether code of the file behind this descriptor is mapped here: a name may lead elsewhere for
    the moment in which it is loaded. True where the kernel does not tell."""
    import mmap  # seldom needed, and what is imported moves the heap

    try:
        sample = mmap.mmap(descriptor, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        first = ctypes.c_char.from_buffer(sample)
        start = ctypes.addressof(first)
        with open("/proc/self/maps") as maps:
            rows = [line.split(None, 5) for line in maps]
    except (OSError, ValueError):
        return True
    ours = [row[3:5] for row in rows if int(row[0].partition("-")[0], 16) == start]
    return not ours or any(row[3:5] == ours[0] and "x" in row[1] for row in rows)


def _load(job):
    sys.path.append(job["package_folder"])
    sys.meta_path.append(LateSite)
    try:
        return importlib.import_module(job["product"])
    except (ImportError, OSError) as error:
        parent.once_more_with_library_path(job, error)
        raise WorkerError(
            "HardwareError", "%s cannot be imported by %s: %s" % (job["product"], sys.executable, error)
        ) from None


class LateSite:
    """The finder asked last. What is neither in the standard library nor beside TensorRT may stand
    in a folder, or behind a finder, that only `site` knows: started not before something is."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in sys.stdlib_module_names:
            return None
        import importlib.util
        import site

        sys.meta_path.remove(cls)
        site.main()
        return importlib.util.find_spec(name)
