"""Every name and argument that the worker uses exists on every surface it claims: its whole path
runs over objects that refuse the rest. What the calls do is tried elsewhere, with real runtimes."""

import pytest
from jobs import compile_job
from surface import VERSIONS, RemoteExecutor, Strict, Surface

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import main, timing_cache
from scons_tensorrt.worker.trt.callbacks import make_logger, make_monitor, make_stream
from scons_tensorrt.worker.trt.network import check_precision, strongly_typed

WEAK = [version for version in VERSIONS if version.startswith("tensorrt-10")]
TENSORRT = [version for version in VERSIONS if version.startswith("tensorrt-")]


@pytest.fixture(autouse=True)
def back_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_all_four_surfaces_are_here():
    assert VERSIONS == [
        "tensorrt-10.13.3.9",
        "tensorrt-10.3.0",
        "tensorrt-11.4.0.106",
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
@pytest.mark.parametrize("flags", [[], ["STRIP_PLAN"]], ids=["plain", "a flag"])
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
    for made, name in ((make_monitor(surface), "IProgressMonitor"), (make_logger(surface), "ILogger")):
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


@pytest.mark.parametrize("version", TENSORRT)
def test_settings_reach_the_configuration(version, tmp_path):
    surface, notes = made_with(version, tmp_path, settings=SETTINGS)
    config = notes["config"]
    assert (config.builder_optimization_level, config.max_aux_streams) == (5, 0)
    assert config.avg_timing_iterations == 8
    assert config.profiling_verbosity is surface.ProfilingVerbosity.DETAILED
    assert config.hardware_compatibility_level is surface.HardwareCompatibilityLevel.AMPERE_PLUS


@pytest.mark.parametrize("version", TENSORRT)
@pytest.mark.parametrize(
    "settings",
    [{"tiling_optimization_level": "fast"}, {"hardware_compatibility": "same_compute_capability"}],
    ids=["tiling", "same compute capability"],
)
def test_a_setting_that_10_3_lacks_is_named_with_its_version(version, settings, tmp_path):
    if version == "tensorrt-10.3.0":
        with pytest.raises(WorkerError, match=r"is not supported by TensorRT 10\.3\.0"):
            made_with(version, tmp_path, settings=settings)
    else:
        made_with(version, tmp_path, settings=settings)


@pytest.mark.parametrize("version", TENSORRT)
def test_a_dla_core_is_used_and_one_too_many_refused(version, tmp_path):
    surface, notes = made_with(version, tmp_path, settings={"dla_core": 1})
    assert notes["config"].DLA_core == 1
    assert notes["config"].default_device_type is surface.DeviceType.DLA
    with pytest.raises(WorkerError, match="dla_core=2: this hardware has 2"):
        made_with(version, tmp_path, settings={"dla_core": 2})


@pytest.mark.parametrize("version", VERSIONS)
def test_memory_pools_are_limited_in_bytes(version, tmp_path):
    pools = {"tactic_dram": 1 << 30, "tactic_shared_memory": 1 << 20}
    surface, notes = made_with(version, tmp_path, memory_pools=pools)
    config = notes["config"]
    assert config.get_memory_pool_limit(surface.MemoryPoolType.TACTIC_DRAM) == 1 << 30
    assert config.get_memory_pool_limit(surface.MemoryPoolType.TACTIC_SHARED_MEMORY) == 1 << 20


@pytest.mark.parametrize("version", VERSIONS)
def test_a_strongly_typed_network_is_asked_for_where_there_is_another(version, tmp_path):
    surface, notes = made_with(version, tmp_path, strongly_typed=True)
    bit = 1 << int(surface.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if version in WEAK else 0
    assert notes["network"] == bit
