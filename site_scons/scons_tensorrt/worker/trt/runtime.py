"""Load TensorRT and plugin libraries into the worker."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

    from scons_tensorrt.worker.trt.job import CompileJob, RunJob

TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}


def title(trt: Any) -> str:
    """For example "TensorRT 10.3.0"."""
    return "%s %s" % (TITLES[trt.__name__], trt.__version__)


def load(job: CompileJob | RunJob) -> Any:
    """The module of the job's product. Raises WorkerError (HardwareError)."""
    sys.path.append(job.package_folder)
    sys.meta_path.append(LateSite)
    try:
        return importlib.import_module(job.product)
    except (ImportError, OSError) as error:
        parent.once_more_with_library_path(job.library_path, error)
        raise WorkerError(
            "HardwareError", "%s cannot be imported by %s: %s" % (job.product, sys.executable, error)
        ) from None


class LateSite:
    """The last finder. For a module that is neither in the standard library nor beside TensorRT, it runs
    `site`, which may add a folder or finder that has it."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        # Python 3.8 and 3.9 have no such list: there, a module that is missing in it runs `site`, too.
        if name.partition(".")[0] in getattr(sys, "stdlib_module_names", ()):
            return None
        import importlib.util
        import site

        sys.meta_path.remove(cls)
        site.main()
        return importlib.util.find_spec(name)


def load_plugins(trt: Any, logger: Any, job: CompileJob | RunJob) -> None:
    """Register TensorRT's own plugins, and load the libraries of the recipe. Raises WorkerError."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    for path, descriptor in job.plugins:
        name = os.path.basename(path)
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            parent.once_more_with_library_path(job.library_path, error)
            text = "plugin %s: %s; see `ldd -r %s`" % (name, error, name)
            raise WorkerError("RecipeError", text) from None
        if not is_loaded(descriptor):
            raise WorkerError("EngineBuildError", "%s changed while it was loaded; run again" % name)


def is_loaded(descriptor: int) -> bool:
    """Whether this process has mapped code of the open file: its path may have led to another file while it
    was loaded. True where the kernel does not say."""
    import mmap  # rarely needed, and every import changes the heap

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
