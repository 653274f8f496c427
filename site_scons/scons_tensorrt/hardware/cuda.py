"""Query the GPUs through the CUDA driver API with ctypes: a board may have nothing but libcuda.

Also runs standalone (`python -c`, and inside the compile worker), so it imports nothing from this
package. The host probe runs it in a child process, because a driver can hang or crash. The numbers
are from cuda.h.
"""

import ctypes
import json
import signal
import sys

SUCCESS = 0
SECONDS = 120
ATTRIBUTES = {
    "integrated": 18,
    "sm_count": 16,
    "memory_bus_bits": 37,
    "l2_bytes": 38,
    "compute_capability_major": 75,
    "compute_capability_minor": 76,
}
# A device lacks those that its driver does not know. A new attribute also needs signature.py, probe_host.py
# and choose_hardware.py.
OPTIONAL_ATTRIBUTES = {"ecc": 32, "shared_memory_per_block": 97, "texture_alignment": 14}
NAMES = ("libcuda.so.1", "libcuda.so")
TEGRA_STEPS_GIB = (4, 8, 16, 32, 64, 128)


def memory_class(total_bytes: int, integrated: bool) -> int:
    """Memory class in GiB, the same for every board of a kind whatever its carve-outs.

    Integrated (Tegra): the smallest of TEGRA_STEPS_GIB that fits. Discrete: the nearest GiB.
    """
    if not integrated:
        return round(total_bytes / 2**30)
    for step in TEGRA_STEPS_GIB:
        if total_bytes <= step * 2**30:
            return step
    return TEGRA_STEPS_GIB[-1]


class CudaError(Exception):
    """A driver call failed."""


def load():
    """Load the driver library. Raises CudaError."""
    cause = None
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            cause = cause or error
    raise CudaError("libcuda cannot be loaded (%s)" % cause)


def call(cuda, name, *arguments):
    """Call a driver function. Raises CudaError unless it returns success."""
    try:
        function = getattr(cuda, name)
    except AttributeError:
        raise CudaError("the driver has no %s: it is too old" % name) from None
    status = function(*arguments)
    if status != SUCCESS:
        raise CudaError("%s: %s" % (name, _error_text(cuda, status)))


def _error_text(cuda, status):
    text = ctypes.c_char_p()
    try:
        cuda.cuGetErrorString(status, ctypes.byref(text))
    except AttributeError:
        pass
    return "%s (CUDA error %d)" % ((text.value or b"unknown error").decode("utf-8", "replace"), status)


def devices():
    """Every GPU that CUDA_VISIBLE_DEVICES allows, in its order.

    gpu_name; sm_count; memory_bytes; memory_bus_bits; l2_bytes; integrated (bool); ecc (bool);
    shared_memory_per_block (bytes, the most that a block may ask for); texture_alignment (bytes);
    compute_capability ("8.7"); uuid (hex); driver_cuda ("12.6", the newest CUDA version that
    the driver supports). Raises CudaError.
    """
    cuda = load()
    call(cuda, "cuInit", 0)
    version = ctypes.c_int()
    call(cuda, "cuDriverGetVersion", ctypes.byref(version))
    count = ctypes.c_int()
    call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise CudaError("the driver sees no GPU; is CUDA_VISIBLE_DEVICES empty?")
    driver = "%d.%d" % (version.value // 1000, version.value % 1000 // 10)
    return [dict(_device(cuda, index), driver_cuda=driver) for index in range(count.value)]


def _device(cuda, index):
    device = ctypes.c_int()
    call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    call(cuda, "cuDeviceGetName", name, len(name), device)
    total = ctypes.c_size_t()
    call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(total), device)
    found = {}
    for field, number in ATTRIBUTES.items():
        value = ctypes.c_int()
        call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
        found[field] = value.value
    for field, number in OPTIONAL_ATTRIBUTES.items():
        value = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device) == SUCCESS:
            found[field] = bool(value.value) if field == "ecc" else value.value
    major, minor = found.pop("compute_capability_major"), found.pop("compute_capability_minor")
    found["compute_capability"] = "%d.%d" % (major, minor)
    found["integrated"] = bool(found["integrated"])
    found["gpu_name"] = name.value.decode("utf-8", "replace")
    found["memory_bytes"] = total.value
    found["uuid"] = _uuid(cuda, device)
    return found


def _uuid(cuda, device):
    """The UUID in hex. The _v2 call distinguishes MIG instances; drivers before CUDA 11.4 lack it."""
    uuid = (ctypes.c_ubyte * 16)()
    name = "cuDeviceGetUuid_v2" if hasattr(cuda, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
    call(cuda, name, uuid, device)
    return bytes(uuid).hex()


if __name__ == "__main__":
    signal.alarm(SECONDS)  # a hanging driver must not outlive the parent
    try:
        print(json.dumps({"devices": devices()}))
    except CudaError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(0)
