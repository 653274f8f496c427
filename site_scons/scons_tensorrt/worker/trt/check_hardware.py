"""Check that this machine is the hardware that the engine is for.

TensorRT times kernels on the GPU of this machine, so an engine for another board must not be compiled here.
"""

from __future__ import annotations

import ctypes
import os

from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def check_machine(hardware: Mapping[str, Any]) -> None:
    """Raise WorkerError (HardwareMismatchError) for another operating system or machine."""
    here = os.uname()
    _compare(hardware, {"os": here.sysname.lower(), "machine": here.machine})


def check_gpu(hardware: Mapping[str, Any], library_path: str | None) -> None:
    """Raise WorkerError (HardwareMismatchError) if the GPU differs in a hard or device-class field."""
    try:
        device = cuda.devices()[0]
    except cuda.CudaError as error:
        parent.once_more_with_library_path(library_path, error)
        raise WorkerError("HardwareMismatchError", "the GPU cannot be queried: %s" % error) from None
    memory = cuda.memory_class(device["memory_bytes"], device["integrated"])
    _compare(hardware, dict(device, memory_gib=memory))


def check_version(wanted: str, found: str) -> None:
    """Raise WorkerError (HardwareMismatchError) for another runtime. Compares the parts that both versions
    have."""
    pairs = list(zip(wanted.split("."), found.split(".")))
    if len(pairs) < 2 or any(a != b for a, b in pairs):
        raise WorkerError(
            "HardwareMismatchError",
            "runtime_version: wanted %s, found %s; install that version or name other hardware"
            % (wanted, found),
        )


def full_version(version: str) -> str:
    """`version` with its fourth part, which the Python package of a JetPack lacks, from the library."""
    if version.count(".") != 2:
        return version
    library = _loaded("libnvinfer.so")
    try:
        return "%s.%d" % (version, ctypes.CDLL(library).getInferLibBuildVersion())
    except (OSError, AttributeError, TypeError):
        return version


def _loaded(name: str) -> str | None:
    """The path of a library that is loaded in this process."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if name in path.rpartition("/")[2]:
                return "/" + path
    return None


def _compare(hardware: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compare the fields of the hardware signature that are known here."""
    differing = [
        "%s: wanted %s, found %s" % (field, wanted, found[field])
        for field, wanted in hardware.items()
        if field in found and wanted != found[field]
    ]
    if differing:
        raise WorkerError("HardwareMismatchError", "; ".join(differing))
