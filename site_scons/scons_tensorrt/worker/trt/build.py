"""Configure TensorRT's builder by the recipe, and build the engine. The parser runs in network.py; `make`
in main.py has the order of all steps.

TensorRT only logs a value that it does not accept, so every value is read back.
"""

from __future__ import annotations

from scons_tensorrt.worker.common.errors import WorkerError, recipe_error
from scons_tensorrt.worker.trt.callbacks import EngineFile, make_monitor, make_stream
from scons_tensorrt.worker.trt.network import (
    inputs_of,
    is_shape_tensor,
    quantized_types,
    strongly_typed,
    types_of,
)
from scons_tensorrt.worker.trt.runtime import title
from scons_tensorrt.worker.trt.settings import apply_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from scons_tensorrt.worker.trt.job import CompileJob

# Flags that need a GPU in TensorRT for RTX, and a flag that does not.
NEED_A_GPU = {"REFIT": "REFIT_INDIVIDUAL", "REFIT_IDENTICAL": "REFIT_INDIVIDUAL", "STRIP_PLAN": None}
# Streaming needs a buffer of 64 MiB: a smaller engine takes less memory whole.
STREAM_FROM = 64 << 20  # bytes of the ONNX and its data, about those of the engine
BY_FLAG = ("fp16", "bf16", "int8", "fp8")


def configure(trt: Any, builder: Any, network: Any, job: CompileJob) -> Any:
    """The builder configuration of a job. Raises WorkerError for what TensorRT does not accept."""
    recipe = job.recipe
    config = builder.create_builder_config()
    _set_pool(trt, config, "workspace", recipe.workspace_mb << 20)
    if recipe.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # set by default; `tf32` is another precision
    if not strongly_typed(trt, recipe.strongly_typed):
        own = {recipe.precision.upper()} if recipe.precision in BY_FLAG else set()
        for name in sorted(own | quantized_types(types_of(network))):
            _set_flag(trt, config, name, "precision %s" % name.lower())
    for name in recipe.flags:
        _set_flag(trt, config, name, "flag %s" % name)
    if job.architectures:
        _set_architectures(trt, config, job.architectures)
    for name, size in recipe.memory_pools.items():
        _set_pool(trt, config, name, size)
    if recipe.settings:
        apply_settings(trt, builder, network, config, job)
    _check_shape_tensors(network, recipe.profiles)
    for profile in recipe.profiles:
        _add_profile(builder, network, config, profile)
    if hasattr(trt, "IProgressMonitor"):  # not in TensorRT 8
        config.progress_monitor = make_monitor(trt)
    return config


def _set_pool(trt: Any, config: Any, name: str, size: int) -> None:
    """Limit a memory pool, in bytes."""
    pool = getattr(trt.MemoryPoolType, name.upper(), None)
    if pool is None:
        raise recipe_error("memory_pools %s is not supported by %s" % (name, title(trt)))
    config.set_memory_pool_limit(pool, size)
    if config.get_memory_pool_limit(pool) != size:
        raise recipe_error("TensorRT did not accept %d bytes for memory pool %s" % (size, name))


def _check_shape_tensors(network: Any, profiles: Sequence[dict[str, Any]]) -> None:
    """Every profile must have the values of every shape tensor. Only the network shows which inputs are
    shape tensors."""
    for tensor in filter(is_shape_tensor, inputs_of(network)):
        if not profiles or any(tensor.name not in profile for profile in profiles):
            count = tensor.shape[0] if len(tensor.shape) else 1
            raise recipe_error(
                "input `%s` is a shape tensor: write shapes={%r: (min, opt, max)}, each a tuple of its "
                "%d values" % (tensor.name, tensor.name, count)
            )


def _set_flag(trt: Any, config: Any, name: str, option: str) -> None:
    """option: for messages, what the user wrote."""
    flag = getattr(trt.BuilderFlag, name, None)
    if flag is None:
        raise recipe_error("%s is not supported by %s" % (option, title(trt)))
    config.set_flag(flag)
    if not config.get_flag(flag):
        raise recipe_error("%s did not accept %s" % (title(trt), option))


def _set_architectures(trt: Any, config: Any, architectures: Sequence[int]) -> None:
    known = getattr(trt, "ComputeCapability", None)
    config.num_compute_capabilities = len(architectures)
    for index, sm in enumerate(architectures):
        wanted = getattr(known, "SM%d" % sm, None)
        if wanted is None:
            names = ", ".join(sorted(n for n in dir(known) if n.startswith("SM")))
            text = "SM %d is not supported by %s; supported: %s" % (sm, title(trt), names)
            raise WorkerError("HardwareMismatchError", text)
        accepted = config.set_compute_capability(wanted, index)
        if not accepted or config.get_compute_capability(index) != wanted:
            raise WorkerError("HardwareMismatchError", "%s did not accept SM %d" % (title(trt), sm))


def _add_profile(builder: Any, network: Any, config: Any, wanted: dict[str, Any]) -> None:
    profile = builder.create_optimization_profile()
    inputs = {tensor.name: tensor for tensor in inputs_of(network)}
    for name, bounds in sorted(wanted.items()):
        if name not in inputs:
            raise recipe_error("shapes: the network has no input `%s`" % name)
        if is_shape_tensor(inputs[name]):
            profile.set_shape_input(name, *bounds)
            accepted = profile.get_shape_input(name)
        else:
            profile.set_shape(name, *bounds)
            accepted = profile.get_shape(name)
        if [list(each) for each in accepted] != [list(each) for each in bounds]:
            raise recipe_error("TensorRT did not accept the shapes of `%s`" % name)
    if config.add_optimization_profile(profile) < 0:
        raise recipe_error("TensorRT did not accept the optimization profile; see the log")


def build(trt: Any, builder: Any, network: Any, config: Any, logger: Any, job: CompileJob) -> tuple[str, int]:
    """Build the engine into the job's output; returns its sha256 and size. Raises WorkerError."""
    engine = EngineFile(job.output)
    try:
        if job.input_bytes >= STREAM_FROM and hasattr(builder, "build_serialized_network_to_stream"):
            stream = make_stream(trt, engine)
            built = builder.build_serialized_network_to_stream(network, config, stream)
        else:
            plan = builder.build_serialized_network(network, config)
            built = plan is not None
            if built:
                engine.write(plan)
    finally:
        sha256 = engine.close()
    if engine.error:
        raise WorkerError(
            "PublishError",
            "the engine could not be written: %s; make room, then run again" % engine.error.strerror,
        )
    if not built or engine.size == 0:
        reason = logger.errors[0] if logger.errors else "no reason given"
        if "TensorFormats" in reason and "io_formats" in job.recipe.settings:
            text = "io_formats: %s does not support that format: %s; write another one"
            raise recipe_error(text % (title(trt), " ".join(reason.split())))
        hint = _hint(trt, config) if "CUDA" in reason else ""
        text = "the builder refused the network: %s%s" % (" ".join(reason.split()), hint)
        raise WorkerError("EngineBuildError", text)
    return sha256, engine.size


def _hint(trt: Any, config: Any) -> str:
    """For RTX, which flag needs a GPU, and which does not."""
    if trt.__name__ != "tensorrt_rtx":
        return ""
    for name, other in NEED_A_GPU.items():
        if config.get_flag(getattr(trt.BuilderFlag, name)):
            instead = "; %s does not" % other if other else ""
            return " (flag %s needs a GPU in TensorRT for RTX%s)" % (name, instead)
    return ""
