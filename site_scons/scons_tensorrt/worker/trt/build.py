"""From a network to an engine on disk, by the recipe. Flags, pools, architectures and shapes are
read back, because TensorRT only logs what it does not take."""

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt.callbacks import EngineFile, make_monitor, make_stream
from scons_tensorrt.worker.trt.network import quantized_types, strongly_typed, types_of

# Options that are one attribute of the configuration, and the enumeration of its values.
SETTINGS = {
    "optimization_level": ("builder_optimization_level", None),
    "max_aux_streams": ("max_aux_streams", None),
    "avg_timing_iterations": ("avg_timing_iterations", None),
    "tiling_optimization_level": ("tiling_optimization_level", "TilingOptimizationLevel"),
    "profiling_verbosity": ("profiling_verbosity", "ProfilingVerbosity"),
    "hardware_compatibility": ("hardware_compatibility_level", "HardwareCompatibilityLevel"),
}
# Flags with which TensorRT for RTX compiles only where there is a GPU, and what serves instead.
NEED_A_GPU = {"REFIT": "REFIT_INDIVIDUAL", "REFIT_IDENTICAL": "REFIT_INDIVIDUAL", "STRIP_PLAN": None}
# TensorRT streams an engine through a buffer of 64 MiB: a smaller one is smaller in memory whole.
STREAM_FROM = 64 << 20  # bytes of the ONNX and its data, about the engine's
BY_FLAG = ("fp16", "bf16", "int8", "fp8")


def configure(trt, builder, network, job):
    """The builder configuration of a job. TensorRT only logs what it does not take."""
    recipe = job["recipe"]
    config = builder.create_builder_config()
    _set_pool(trt, config, "workspace", recipe["workspace_mb"] << 20)
    if recipe["precision"] == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on unless cleared; `tf32` is another precision
    if not strongly_typed(trt, recipe.get("strongly_typed")):
        own = {recipe["precision"].upper()} if recipe["precision"] in BY_FLAG else set()
        for name in sorted(own | quantized_types(types_of(network))):
            _set_flag(trt, config, name)
    for name in recipe["flags"]:
        _set_flag(trt, config, name)
    if job["architectures"]:
        _set_architectures(trt, config, job["architectures"])
    for name, size in recipe.get("memory_pools", {}).items():
        _set_pool(trt, config, name, size)
    for name, value in recipe.get("settings", {}).items():
        _set(trt, builder, config, name, value)
    _check_shape_tensors(network, recipe["profiles"])
    for profile in recipe["profiles"]:
        _add_profile(builder, network, config, profile)
    config.progress_monitor = make_monitor(trt)
    return config


def _set_pool(trt, config, name, size):
    """Limit a memory pool, in bytes."""
    pool = getattr(trt.MemoryPoolType, name.upper())
    config.set_memory_pool_limit(pool, size)
    if config.get_memory_pool_limit(pool) != size:
        raise WorkerError("RecipeError", "memory pool %s of %d bytes was not taken" % (name, size))


def _set(trt, builder, config, name, value):
    """Set an option of the configuration, and read it back."""
    if name == "dla_core":
        return _use_dla(trt, builder, config, value)
    attribute, enumeration = SETTINGS[name]
    known = getattr(trt, enumeration, None) if enumeration else None
    wanted = getattr(known, value.upper(), None) if enumeration else value
    if wanted is None or not hasattr(config, attribute):
        raise WorkerError(
            "RecipeError", "%s=%r: %s %s has none" % (name, value, trt.__name__, trt.__version__)
        )
    setattr(config, attribute, wanted)
    if getattr(config, attribute) != wanted:
        raise WorkerError("RecipeError", "%s=%r was not taken by %s" % (name, value, trt.__name__))


def _use_dla(trt, builder, config, core):
    if core >= builder.num_DLA_cores:
        raise WorkerError("RecipeError", "dla_core=%d: this hardware has %d" % (core, builder.num_DLA_cores))
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _check_shape_tensors(network, profiles):
    """A profile must say the values of every shape tensor, which the ONNX alone does not tell."""
    for tensor in map(network.get_input, range(network.num_inputs)):
        if len(tensor.shape) > 1 or not tensor.is_shape_tensor:
            continue
        if not profiles or any(tensor.name not in profile for profile in profiles):
            count = tensor.shape[0] if len(tensor.shape) else 1
            raise WorkerError(
                "RecipeError",
                "input `%s` is a shape tensor: write shapes={%r: (min, opt, max)}, each a tuple of its "
                "%d values" % (tensor.name, tensor.name, count),
            )


def _set_flag(trt, config, name):
    flag = getattr(trt.BuilderFlag, name, None)
    if flag is None:
        raise WorkerError("RecipeError", "flag %s: %s %s has none" % (name, trt.__name__, trt.__version__))
    config.set_flag(flag)
    if not config.get_flag(flag):
        raise WorkerError("RecipeError", "flag %s was not taken by %s" % (name, trt.__name__))


def _set_architectures(trt, config, architectures):
    known = getattr(trt, "ComputeCapability", None)
    config.num_compute_capabilities = len(architectures)
    for index, sm in enumerate(architectures):
        wanted = getattr(known, "SM%d" % sm, None)
        if wanted is None:
            names = sorted(n for n in dir(known) if n.startswith("SM"))
            raise WorkerError(
                "HardwareMismatchError",
                "SM %d is not an architecture of %s %s: it has %s"
                % (sm, trt.__name__, trt.__version__, ", ".join(names)),
            )
        taken = config.set_compute_capability(wanted, index)
        if not taken or config.get_compute_capability(index) != wanted:
            raise WorkerError("HardwareMismatchError", "%s did not take SM %d" % (trt.__name__, sm))


def _add_profile(builder, network, config, wanted):
    profile = builder.create_optimization_profile()
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    for name, bounds in sorted(wanted.items()):
        if name not in inputs:
            raise WorkerError("RecipeError", "shapes names `%s`, which is no input of the network" % name)
        # A shape tensor has rank 0 or 1; asking of others is not safe in every binding.
        if len(inputs[name].shape) <= 1 and inputs[name].is_shape_tensor:
            profile.set_shape_input(name, *bounds)
            if [list(values) for values in profile.get_shape_input(name)] != [list(b) for b in bounds]:
                raise WorkerError("RecipeError", "the values of `%s` were not taken by TensorRT" % name)
            continue
        profile.set_shape(name, *bounds)
        taken = [list(shape) for shape in profile.get_shape(name)]
        if taken != [list(shape) for shape in bounds]:
            raise WorkerError("RecipeError", "the shapes of `%s` were not taken by TensorRT" % name)
    if config.add_optimization_profile(profile) < 0:
        raise WorkerError("RecipeError", "TensorRT refused the optimization profile; the log says why")


def build(trt, builder, network, config, logger, job):
    """Compile to the job's output; (sha256, size). Raises WorkerError with the builder's reason."""
    engine = EngineFile(job["output"])
    streams = job.get("input_bytes", STREAM_FROM) >= STREAM_FROM
    try:
        if streams and hasattr(builder, "build_serialized_network_to_stream"):
            stream = make_stream(trt, engine)
            made = builder.build_serialized_network_to_stream(network, config, stream)
        else:
            plan = builder.build_serialized_network(network, config)
            made = plan is not None
            if made:
                engine.write(plan)
    finally:
        sha256 = engine.close()
    if engine.error:
        raise WorkerError(
            "PublishError",
            "the engine could not be written: %s; make room, then run again" % engine.error.strerror,
        )
    if not made or engine.size == 0:
        reason = logger.errors[0] if logger.errors else "it gave no reason"
        hint = _hint(trt, config) if "CUDA" in reason else ""
        raise WorkerError("EngineBuildError", "the builder refused it: " + " ".join(reason.split()) + hint)
    return sha256, engine.size


def _hint(trt, config):
    """What to write instead of a flag for which RTX needs a GPU."""
    if trt.__name__ != "tensorrt_rtx":
        return ""
    for name, other in NEED_A_GPU.items():
        if config.get_flag(getattr(trt.BuilderFlag, name)):
            serves = "; %s does not" % other if other else ""
            return " (flag %s needs a GPU in TensorRT for RTX%s)" % (name, serves)
    return ""
