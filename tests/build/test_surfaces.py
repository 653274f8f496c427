"""Every name and argument that the worker uses exists on every surface it claims: its whole path
runs over objects that refuse the rest. What the calls do is tried elsewhere, with real runtimes."""

import pytest
from jobs import compile_job
from surface import VERSIONS, RemoteExecutor, Strict, Surface

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import main, timing_cache
from scons_tensorrt.worker.trt.callbacks import make_logger, make_monitor, make_stream
from scons_tensorrt.worker.trt.job import PinnedKernels
from scons_tensorrt.worker.trt.network import check_precision, strongly_typed
from scons_tensorrt.worker.trt.settings import apply_settings

WEAK = [version for version in VERSIONS if version.startswith(("tensorrt-8", "tensorrt-10"))]
EIGHT = [version for version in VERSIONS if version.startswith("tensorrt-8")]
TENSORRT = [version for version in VERSIONS if version.startswith("tensorrt-")]


@pytest.fixture(autouse=True)
def back_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_all_surfaces_are_here():
    assert VERSIONS == [
        "tensorrt-10.13.3.9",
        "tensorrt-10.16.1.11",
        "tensorrt-10.3.0",
        "tensorrt-11.4.0.106",
        "tensorrt-8.5.2.2",
        "tensorrt-8.6.1",
        "tensorrt_rtx-1.7.1.116",
    ]


def test_the_stand_in_refuses_what_a_surface_lacks():
    surface = Surface("tensorrt-10.3.0")
    with pytest.raises(AttributeError, match=r"10\.3\.0 Builder has no max_width"):
        Strict(surface, "Builder").max_width()
    with pytest.raises(AssertionError, match="too many"):
        Strict(surface, "IBuilderConfig").set_flag(1, 2)
    assert not hasattr(Strict(surface, "Builder"), "build_serialized_network_to_stream")
    assert not hasattr(surface, "ComputeCapability")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("flags", [[], ["REFIT"]], ids=["plain", "a flag"])
def test_a_whole_compile(version, flags, tmp_path):
    surface = Surface(version)
    profile = {"x": [[1, 8], [2, 8], [4, 8]]}
    sms = [86, 89] if version.startswith("tensorrt_rtx") else []
    made = main.make(surface, compile_job(tmp_path, flags=flags, profiles=[profile], architectures=sms))
    sha256, size, unsteady = made
    assert (size, unsteady) == (100, False)
    assert (tmp_path / "out.engine").read_bytes() == b"ftrt" + bytes(96)
    assert len(sha256) == 64
    kept = {flag.name for flag in dict(surface.notes)["flags"]}
    assert kept == set(flags)  # and TF32 off: fp32 is not tf32


@pytest.mark.parametrize("version", VERSIONS)
def test_tf32_stays_on_where_it_is_asked_for(version, tmp_path):
    surface = Surface(version)
    main.make(surface, compile_job(tmp_path, precision="tf32"))
    assert surface.BuilderFlag.TF32 in dict(surface.notes)["flags"]


@pytest.mark.parametrize("version", WEAK)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_weakly_typed_builder_is_told_the_precision_by_flag(version, precision, tmp_path):
    surface = Surface(version)
    if not hasattr(surface.BuilderFlag, precision.upper()):
        with pytest.raises(WorkerError, match=f"precision bf16 is not supported by TensorRT {version[9:]}$"):
            main.make(surface, compile_job(tmp_path, precision=precision))
        return
    main.make(surface, compile_job(tmp_path, precision=precision))
    assert surface.BuilderFlag[precision.upper()] in dict(surface.notes)["flags"]


@pytest.mark.parametrize("version", WEAK)
@pytest.mark.parametrize("precision", ["fp16", "mixed"])
def test_a_weakly_typed_builder_is_told_of_q_dq_nodes_by_flag(version, precision, tmp_path):
    surface = Surface(version)
    surface.kind, surface.layer = "INT8", "QUANTIZE"
    main.make(surface, compile_job(tmp_path, precision=precision))
    flags = {flag.name for flag in dict(surface.notes)["flags"]}
    assert flags - {"TF32"} == {"INT8", "FP16"} - ({"FP16"} if precision == "mixed" else set())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_quantized_engine_needs_a_quantized_model_everywhere(version, precision, tmp_path):
    with pytest.raises(WorkerError, match="no tensor of the model is"):
        main.make(Surface(version), compile_job(tmp_path, precision=precision))


@pytest.mark.parametrize("version", [v for v in VERSIONS if v not in WEAK])
def test_a_strongly_typed_runtime_makes_fp16_of_an_fp16_model_alone(version, tmp_path):
    surface = Surface(version)
    assert strongly_typed(surface)
    with pytest.raises(WorkerError, match="no tensor of the model is HALF"):
        main.make(surface, compile_job(tmp_path, precision="fp16"))
    check_precision(surface, RemoteExecutor(surface, "HALF").network(), "fp16")


@pytest.mark.parametrize("version", TENSORRT)
def test_a_flag_that_a_version_lacks_is_named_with_it(version, tmp_path):
    with pytest.raises(
        WorkerError, match=f"flag REQUIRE_USER_ALLOCATION is not supported by TensorRT {version[9:]}"
    ):
        main.make(Surface(version), compile_job(tmp_path, flags=["REQUIRE_USER_ALLOCATION"]))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_callbacks_override_is_there_to_be_overridden(version):
    surface = Surface(version)
    made_here = [(make_logger(surface), "ILogger")]
    if version not in EIGHT:
        made_here.append((make_monitor(surface), "IProgressMonitor"))
    for made, name in made_here:
        own = {m for m in vars(type(made)) if not m.startswith("_")}
        assert own <= set(surface.members(name))
    if "build_serialized_network_to_stream" in surface.members("Builder"):
        own = {m for m in vars(type(make_stream(surface, None))) if not m.startswith("_")}
        assert own <= set(surface.members("IStreamWriter"))


# The timing cache, one for each full signature.


@pytest.fixture
def told(monkeypatch):
    notes = []
    monkeypatch.setattr(parent, "send", lambda event, **fields: notes.append(fields["text"]))
    return notes


@pytest.mark.parametrize("version", TENSORRT)
def test_the_first_compile_leaves_a_timing_cache(version, tmp_path):
    path = tmp_path / "timing" / "x.cache"
    main.make(Surface(version), compile_job(tmp_path, timing_cache=str(path)))
    assert path.exists()


@pytest.mark.parametrize("version", TENSORRT)
def test_what_others_measured_meanwhile_is_kept(version, tmp_path, told):
    path = tmp_path / "x.cache"
    path.write_bytes(b"mine")
    config = RemoteExecutor(Surface(version)).config()
    timing_cache.use(config, str(path))
    path.write_bytes(b"theirs")
    timing_cache.keep(config, str(path))
    assert path.read_bytes() == b"mine\ntheirs"
    assert told == []


@pytest.mark.parametrize("version", TENSORRT)
def test_a_damaged_timing_cache_is_set_aside_and_told(version, tmp_path, told):
    path = tmp_path / "x.cache"
    path.write_bytes(b"garbage")
    main.make(Surface(version), compile_job(tmp_path, timing_cache=str(path)))
    assert (tmp_path / "x.cache.damaged").read_bytes() == b"garbage"
    assert path.read_bytes() == b""
    assert told == [f"timing cache {path} does not fit or is damaged; moved to {path}.damaged"]


# `timing_cache=`: the kernels in a file, from 10.13 on.

EDITABLE = [version for version in TENSORRT if "queryKeys" in Surface(version).members("ITimingCache")]
LAYERS = {"conv": ("0x11", "0xa1"), "matmul": ("0x22", "0xa2")}


@pytest.fixture
def sent(monkeypatch):
    """The kernels that the worker sends."""
    kernels = {}
    send = {"kernels": lambda kernels_of: kernels.update(kernels_of)}
    monkeypatch.setattr(parent, "send", lambda event, **fields: send[event](fields["kernels"]))
    return kernels


def pin(version, tmp_path, cache=b"", record=False, layers=LAYERS, accepts=True):
    """Compile with the kernels in `cache`, or record them; returns the flags and the recorded cache."""
    surface = Surface(version)
    surface.tuned, surface.accepts = layers, accepts
    start, out = tmp_path / "start", tmp_path / "recorded"
    start.write_bytes(cache)
    out.unlink(missing_ok=True)
    kernels = dict(line.split(" ") for line in cache.decode().split("\n") if line.startswith("0x"))
    job = PinnedKernels("a.cache", str(start), kernels, str(out) if record else None)
    main.make(surface, compile_job(tmp_path, pinned=job, input_bytes=0))
    return dict(surface.notes)["flags"], out.read_bytes() if record else b""


@pytest.mark.parametrize("version", EDITABLE)
def test_kernels_are_recorded_and_used_again(version, tmp_path, sent):
    flags, cache = pin(version, tmp_path, record=True)
    assert cache == b"0x11 0xa1\n0x22 0xa2"
    names = {flag.name for flag in flags}
    assert {"EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE"} <= names
    assert "ERROR_ON_TIMING_CACHE_MISS" not in names
    assert sent == {"0x11": "0xa1 conv", "0x22": "0xa2 matmul"}
    sent.clear()
    other = {"conv": ("0x11", "0xff"), "matmul": ("0x22", "0xff")}  # what timing would choose today
    flags, _ = pin(version, tmp_path, cache, layers=other)
    assert "ERROR_ON_TIMING_CACHE_MISS" in {flag.name for flag in flags}
    assert sent == {"0x11": "0xa1 conv", "0x22": "0xa2 matmul"}


@pytest.mark.parametrize("version", EDITABLE)
def test_a_layer_that_the_cache_lacks_is_named(version, tmp_path, sent):
    with pytest.raises(
        WorkerError, match=r"a\.cache: it has no kernel for layer matmul \(key 0x22\); add it"
    ):
        pin(version, tmp_path, b"0x11 0xa1")
    _, cache = pin(version, tmp_path, b"0x11 0xa0", record=True)
    assert cache == b"0x11 0xa0\n0x22 0xa2"


@pytest.mark.parametrize("version", EDITABLE)
@pytest.mark.parametrize("harm", ["refused", "read as empty", "no cache"])
def test_a_cache_that_does_not_fit_is_one_line(version, harm, tmp_path, sent):
    cache = {"read as empty": b"0x11 0xa1\nunreadable", "no cache": b"garbage"}.get(harm, b"0x11 0xa1")
    with pytest.raises(WorkerError, match=r"a\.cache: TensorRT 1.* does not accept it on this GPU"):
        pin(version, tmp_path, cache, accepts=harm != "refused")


@pytest.mark.parametrize("version", [version for version in TENSORRT if version not in EDITABLE])
def test_earlier_versions_have_no_editable_timing_cache(version, tmp_path):
    with pytest.raises(WorkerError, match=r"timing_cache: not supported by TensorRT [0-9.]+; leave it out"):
        pin(version, tmp_path, b"0x11 0xa1")


# The builder's own options.

SETTINGS = {
    "optimization_level": 5,
    "max_aux_streams": 0,
    "avg_timing_iterations": 8,
    "profiling_verbosity": "detailed",
    "hardware_compatibility": "ampere_plus",
}


def made_with(version, tmp_path, **recipe):
    surface = Surface(version)
    main.make(surface, compile_job(tmp_path, **recipe))
    return surface, dict(surface.notes)


@pytest.mark.parametrize("version", [v for v in TENSORRT if v != "tensorrt-8.5.2.2"])
def test_settings_reach_the_configuration(version, tmp_path):
    surface, notes = made_with(version, tmp_path, settings=SETTINGS)
    config = notes["config"]
    assert (config.builder_optimization_level, config.max_aux_streams) == (5, 0)
    assert config.avg_timing_iterations == 8
    assert config.profiling_verbosity is surface.ProfilingVerbosity.DETAILED
    assert config.hardware_compatibility_level is surface.HardwareCompatibilityLevel.AMPERE_PLUS


LATER = ["tensorrt-10.13.3.9", "tensorrt-10.16.1.11", "tensorrt-11.4.0.106"]
BUT_8_5 = [*LATER, "tensorrt-10.3.0", "tensorrt-8.6.1"]
HAVE = [  # a setting, and the versions that have it
    ({"tiling_optimization_level": "fast"}, LATER),
    ({"hardware_compatibility": "same_compute_capability"}, LATER),
    ({"hardware_compatibility": "ampere_plus"}, BUT_8_5),
    ({"optimization_level": 5}, BUT_8_5),
    ({"max_aux_streams": 0}, BUT_8_5),
    ({"max_num_tactics": 5}, LATER),
    ({"l2_limit_for_tiling": 1 << 20}, LATER),
    ({"build_route": "-a=off"}, LATER[2:]),
    ({"avg_timing_iterations": 8}, TENSORRT),
    ({"profiling_verbosity": "detailed"}, TENSORRT),
]


@pytest.mark.parametrize("version", TENSORRT)
@pytest.mark.parametrize(("settings", "versions"), HAVE, ids=[" ".join(s) for s, _ in HAVE])
def test_a_setting_that_a_version_lacks_is_named_with_it(version, settings, versions, tmp_path):
    if version in versions:
        made_with(version, tmp_path, settings=settings)
        return
    with pytest.raises(WorkerError) as caught:
        made_with(version, tmp_path, settings=settings)
    ((name, value),) = settings.items()
    assert str(caught.value) == f"{name}={value!r} is not supported by TensorRT {version[9:]}"


LISTS = [  # an option, one of its names, and whether a version has it
    ("tactic_sources", "JIT_CONVOLUTIONS", VERSIONS),
    ("tactic_sources", "CUDNN", WEAK),
    ("preview_features", "FASTER_DYNAMIC_SHAPES_0805", ["tensorrt-8.5.2.2", "tensorrt-8.6.1"]),
    ("preview_features", "PROFILE_SHARING_0806", ["tensorrt-8.6.1", *WEAK[:3]]),
    ("preview_features", "MULTIDEVICE_RUNTIME_10_16", ["tensorrt-10.16.1.11"]),
    ("preview_features", "RUNTIME_ACTIVATION_RESIZE_10_10", [*LATER, "tensorrt_rtx-1.7.1.116"]),
    ("parser_flags", "NATIVE_INSTANCENORM", [v for v in VERSIONS if v != "tensorrt-8.5.2.2"]),
    ("parser_flags", "ADJUST_FOR_DLA", [*LATER[1:], "tensorrt_rtx-1.7.1.116"]),
]
NOTES = {"tactic_sources": "sources", "preview_features": "features", "parser_flags": "parser flags"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("option", "name", "versions"), LISTS, ids=[name for _, name, _ in LISTS])
def test_a_listed_name_is_enabled_or_refused_where_a_version_lacks_it(
    version, option, name, versions, tmp_path
):
    if version not in versions:
        with pytest.raises(WorkerError, match=rf"^{option} {name} is not supported by TensorRT "):
            made_with(version, tmp_path, settings={option: name})
        return
    surface, notes = made_with(version, tmp_path, settings={option: name})
    member = getattr(surface, {"parser_flags": "OnnxParserFlag"}.get(option, "TacticSource"), {})
    if option == "tactic_sources":
        assert notes["sources"][-1] == 1 << int(member[name])
    else:
        assert {each.name for each in notes[NOTES[option]]} == {name}


@pytest.mark.parametrize("version", VERSIONS)
def test_formats_of_inputs_and_outputs_are_set_by_name(version, tmp_path):
    surface, notes = made_with(version, tmp_path, settings={"io_formats": '{"x": "chw16", "y": "fp32:hwc8"}'})
    forms = surface.TensorFormat
    assert notes["ends"]["x"].allowed_formats == 1 << int(forms.CHW16)
    assert notes["ends"]["y"].allowed_formats == 1 << int(forms.HWC8)
    with pytest.raises(WorkerError, match="the network has no input or output `z`"):
        made_with(version, tmp_path, settings={"io_formats": '{"z": "hwc"}'})


@pytest.mark.parametrize("version", VERSIONS)
def test_only_a_weakly_typed_network_gives_an_input_another_type(version, tmp_path):
    settings = {"io_formats": '{"x": "fp16:chw16"}'}
    if version in WEAK:
        surface, notes = made_with(version, tmp_path, settings=settings)
        assert notes["ends"]["x"].dtype is surface.DataType.HALF
        return
    with pytest.raises(
        WorkerError, match=r"io_formats: `x` is FLOAT in the ONNX, and TensorRT .* compiles it so"
    ):
        made_with(version, tmp_path, settings=settings)


@pytest.mark.parametrize("version", TENSORRT)
def test_the_device_of_a_layer_is_set_by_its_name(version, tmp_path):
    settings = {"dla_core": 0, "layer_devices": '{"first": "gpu"}'}
    surface, notes = made_with(version, tmp_path, settings=settings)
    assert notes["devices"] == {"first": surface.DeviceType.GPU}
    for devices, message in (('{"first": "dla"}', "cannot run on a DLA"), ('{"b": "gpu"}', "no layer `b`")):
        with pytest.raises(WorkerError, match=message):
            made_with(version, tmp_path, settings={**settings, "layer_devices": devices})


@pytest.mark.parametrize("version", TENSORRT)
def test_plugins_are_serialized_by_their_path(version, tmp_path):
    settings = {"plugins_to_serialize": '["a.so"]'}
    surface = Surface(version)
    job = compile_job(tmp_path, settings=settings, plugins=[])._replace(
        plugins=[("/x/a.so", 3), ("/x/b.so", 4)]
    )
    config = RemoteExecutor(surface).config()
    if version == "tensorrt-8.5.2.2":
        with pytest.raises(
            WorkerError, match=r"^plugins_to_serialize is not supported by TensorRT 8\.5\.2\.2$"
        ):
            apply_settings(surface, None, None, config, job)
        return
    apply_settings(surface, None, None, config, job)
    assert config.plugins_to_serialize == ["/x/a.so"]


@pytest.mark.parametrize("version", TENSORRT)
@pytest.mark.parametrize("capability", ["safety", "dla_standalone"])
def test_the_engine_capability_is_set(version, capability, tmp_path):
    surface, notes = made_with(version, tmp_path, settings={"engine_capability": capability})
    assert notes["config"].engine_capability is surface.EngineCapability[capability.upper()]


@pytest.mark.parametrize("version", TENSORRT)
def test_a_dla_core_is_used_and_one_too_many_refused(version, tmp_path):
    surface, notes = made_with(version, tmp_path, settings={"dla_core": 1})
    assert notes["config"].DLA_core == 1
    assert notes["config"].default_device_type is surface.DeviceType.DLA
    with pytest.raises(WorkerError, match="dla_core=2: this hardware has 2"):
        made_with(version, tmp_path, settings={"dla_core": 2})


@pytest.mark.parametrize("version", VERSIONS)
def test_memory_pools_are_limited_in_bytes(version, tmp_path):
    for name, size in {"tactic_dram": 1 << 30, "tactic_shared_memory": 1 << 20}.items():
        pool = getattr(Surface(version).MemoryPoolType, name.upper(), None)
        if pool is None:  # 8.5 has neither, 8.6 the first
            assert version in EIGHT
            with pytest.raises(WorkerError, match=f"^memory_pools {name} is not supported by TensorRT 8"):
                made_with(version, tmp_path, memory_pools={name: size})
            continue
        surface, notes = made_with(version, tmp_path, memory_pools={name: size})
        assert notes["config"].get_memory_pool_limit(surface.MemoryPoolType[pool.name]) == size


@pytest.mark.parametrize("version", VERSIONS)
def test_a_strongly_typed_network_is_asked_for_where_there_is_another(version, tmp_path):
    if version in EIGHT:
        with pytest.raises(WorkerError, match=r"^strongly_typed is not supported by TensorRT 8"):
            made_with(version, tmp_path, strongly_typed=True)
        return
    surface, notes = made_with(version, tmp_path, strongly_typed=True)
    bit = 1 << int(surface.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if version in WEAK else 0
    assert notes["network"] == bit


# TensorRT 8.


@pytest.mark.parametrize("version", VERSIONS)
def test_an_explicit_batch_is_asked_for_where_there_is_an_implicit_one(version, tmp_path):
    surface, notes = made_with(version, tmp_path)
    bit = 1 << int(surface.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if version in EIGHT else 0
    assert notes["network"] == bit


@pytest.mark.parametrize("version", VERSIONS)
def test_the_parsers_error_is_reported_with_what_the_version_tells(version, tmp_path):
    surface = Surface(version)
    named = version not in EIGHT
    words = {"node": 3, "desc": "bad axes", "code": "INVALID_NODE"}
    if named:
        words |= {"node_name": "/pool", "node_operator": "MaxPool", "local_function_stack_size": 0}
    surface.refusal = {name: (lambda value=value: value) for name, value in words.items()}
    with pytest.raises(WorkerError) as caught:
        main.make(surface, compile_job(tmp_path))
    place = " `/pool` (MaxPool)" if named else ""
    assert str(caught.value) == f"the parser refused node 3{place}: bad axes"


NO_DRIVER = "no CUDA driver, or one older than this TensorRT needs; see `nvidia-smi` (CUDA error 35)"
WHY_NO_BUILDER = [
    (("WARNING", "CUDA initialization failure with error: 35. Please check your installation"), NO_DRIVER),
    (("WARNING", "CUDA initialization failure with error: 999"), "CUDA error 999; see `nvidia-smi`"),
    (("WARNING", "Unable to determine GPU memory usage"), "is there a GPU?"),
    (("ERROR", "out of memory"), "out of memory"),
]


@pytest.mark.parametrize(("logged", "cause"), WHY_NO_BUILDER, ids=[text for (_, text), _ in WHY_NO_BUILDER])
def test_a_builder_that_cannot_be_made_is_one_line_with_the_cause(logged, cause, tmp_path):
    surface = Surface("tensorrt-8.6.1")

    def fails(logger):
        logger.log(surface.ILogger.Severity[logged[0]], logged[1])
        raise TypeError("pybind11::init(): factory function returned nullptr")

    surface.Builder = fails
    with pytest.raises(WorkerError) as caught:
        main.make(surface, compile_job(tmp_path))
    assert str(caught.value) == f"TensorRT 8.6.1 cannot create a builder: {cause}"
