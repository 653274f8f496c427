"""The worker of a compile: reads the job, builds the engine, sends a `done` or an `error` event."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import timing_cache
from scons_tensorrt.worker.trt.build import build, configure
from scons_tensorrt.worker.trt.callbacks import make_logger
from scons_tensorrt.worker.trt.check_hardware import check_gpu, check_machine, check_version, full_version
from scons_tensorrt.worker.trt.job import CompileJob
from scons_tensorrt.worker.trt.network import check_precision, parse, renumbered
from scons_tensorrt.worker.trt.runtime import load, load_plugins, title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any


def main(data: Mapping[str, Any]) -> None:
    """Compile the job in `data`. Ends the process."""
    run(lambda: _compile(CompileJob.from_json(data), data["not_canonical_because"]), "EngineBuildError")


def run(work: Callable[[], dict[str, Any]], error_class: str) -> None:
    """Send what `work` returns as the `done` event, or what it raises as an `error` event: a WorkerError as
    such, another exception as an error of `error_class`. Ends the process."""
    parent.claim_stdout()
    parent.die_with_parent()
    try:
        fields = work()
    except WorkerError as error:
        what = {"error_class": error.error_class, "message": str(error), "lasting": error.lasting}
        parent.send("error", **what)
        os._exit(1)
    except BaseException as error:
        import traceback  # slow to import, and rarely needed

        traceback.print_exc()
        parent.send("error", error_class=error_class, message="%s: %s" % (type(error).__name__, error))
        os._exit(1)
    parent.send("done", **fields)
    os._exit(0)  # without destructors


def _compile(job: CompileJob, not_canonical_because: str) -> dict[str, Any]:
    check_machine(job.hardware)
    trt = load(job)
    version = full_version(trt.__version__)
    check_version(job.runtime_version, version)
    if job.product == "tensorrt":
        check_gpu(job.hardware, job.library_path)
    sha256, size, unsteady = make(trt, job)
    why: str | None = not_canonical_because or None
    if job.product == "tensorrt":
        why = "TensorRT chooses kernels by timing them on the GPU"
        if job.pinned:
            why = "the kernels are those of timing_cache, but TensorRT does not promise equal bytes"
    elif unsteady:
        why = "TensorRT for RTX numbers tensors anew in a quantized network with dynamic shapes"
    return {
        "sha256": sha256,
        "size": size,
        "version": version,
        "python": sys.version.split()[0],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "not_reproducible_because": why,
    }


def make(trt: Any, job: CompileJob) -> tuple[str, int, bool]:
    """Compile with the runtime `trt`: sha256 and size of the engine, and whether RTX may number its tensors
    differently in another build. Raises WorkerError."""
    logger = make_logger(trt)
    load_plugins(trt, logger, job)
    os.chdir(job.folder)
    try:
        builder = trt.Builder(logger)
    except TypeError:
        text = "%s cannot create a builder: %s" % (title(trt), _no_builder(logger))
        raise WorkerError("HardwareMismatchError", text) from None
    recipe = job.recipe
    flags = str(recipe.settings.get("parser_flags", ""))
    network, parser = parse(trt, builder, logger, job.onnx, recipe.strongly_typed, flags)
    calibrated = job.calibration is not None
    check_precision(trt, network, recipe.precision, recipe.strongly_typed, calibrated)
    unsteady = renumbered(network)
    config = configure(trt, builder, network, job)
    with _timings(trt, config, logger, job), _calibrating(trt, builder, network, config, job):
        sha256, size = build(trt, builder, network, config, logger, job)
    del parser  # it owns weights that the network refers to
    return sha256, size, unsteady


@contextlib.contextmanager
def _timings(trt: Any, config: Any, logger: Any, job: CompileJob) -> Iterator[None]:
    """The timing cache of the build: that of the option, else that of the hardware."""
    if job.pinned:
        from scons_tensorrt.worker.trt import pinned_kernels  # sent only with a job that needs it

        kernels = pinned_kernels.Kernels(trt, config, logger, job.pinned)
        try:
            yield
        except WorkerError as error:
            raise kernels.explain(error, logger.errors) from None
        kernels.finish()
        return
    if job.timing_cache:
        timing_cache.use(config, job.timing_cache)
    yield
    if job.timing_cache:
        timing_cache.keep(config, job.timing_cache)


def _no_builder(logger: Any) -> str:
    if logger.cuda in (35, 36, 100):  # cudaErrorInsufficientDriver, …CallRequiresNewerDriver, …NoDevice
        return "no CUDA driver, or one older than this TensorRT needs; see `nvidia-smi` (CUDA error %d)" % (
            logger.cuda
        )
    if logger.cuda:
        return "CUDA error %d; see `nvidia-smi`" % logger.cuda
    return logger.errors[0] if logger.errors else "is there a GPU?"


def _calibrating(
    trt: Any, builder: Any, network: Any, config: Any, job: CompileJob
) -> contextlib.AbstractContextManager[Any]:
    if job.calibration is None:
        return contextlib.nullcontext()
    from scons_tensorrt.worker.trt import calibrate  # sent only with a job that calibrates

    return calibrate.attached(trt, builder, network, config, job.calibration)
