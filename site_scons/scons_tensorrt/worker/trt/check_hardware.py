"""Is this the hardware that the engine is for? Asked before a TensorRT compile, of the driver
itself: an engine timed on another board is never sold as the wanted one's."""

import ctypes
import os

from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError

GPU_FIELDS = (
    "compute_capability",
    "gpu_name",
    "sm_count",
    "memory_gib",
    "memory_bus_bits",
    "l2_bytes",
    "integrated",
)


def check_machine(hardware):
    """Refuse another operating system or machine, which no product can compile for."""
    here = os.uname()
    found = {"os": here.sysname.lower(), "machine": here.machine}
    _compare(hardware, found, ("os", "machine"))


def check_gpu(job):
    """Refuse a GPU that differs in any hard or device-class field that is wanted."""
    try:
        device = cuda.devices()[0]
    except cuda.CudaError as error:
        parent.once_more_with_library_path(job, error)
        raise WorkerError("HardwareMismatchError", "the GPU cannot be asked what it is: %s" % error) from None
    memory = cuda.memory_class(device["memory_bytes"], device["integrated"])
    _compare(job["hardware"], dict(device, memory_gib=memory), GPU_FIELDS)


def check_version(wanted, found):
    """Refuse another runtime: as many parts as both versions have must agree."""
    pairs = list(zip(wanted.split("."), found.split(".")))
    if len(pairs) < 2 or any(a != b for a, b in pairs):
        raise WorkerError(
            "HardwareMismatchError",
            "runtime_version: wanted %s, found %s; install that version or name other hardware"
            % (wanted, found),
        )


def full_version(version):
    """`version` with its fourth part, which the Python package of a JetPack leaves out and the
    library knows."""
    if version.count(".") != 2:
        return version
    library = _loaded("libnvinfer.so")
    try:
        return "%s.%d" % (version, ctypes.CDLL(library).getInferLibBuildVersion())
    except (OSError, AttributeError, TypeError):
        return version


def _loaded(name):
    """The path of a library that this process has loaded."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if name in path.rpartition("/")[2]:
                return "/" + path
    return None


def _compare(wanted, found, fields):
    differing = [
        "%s: wanted %s, found %s" % (field, wanted[field], found[field])
        for field in fields
        if wanted.get(field) is not None and wanted[field] != found[field]
    ]
    if differing:
        raise WorkerError("HardwareMismatchError", "; ".join(differing))
