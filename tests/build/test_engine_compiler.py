"""The Python API: what is reused, what is built, what is logged, and what a failure leaves."""

import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from conftest import REPO, make_model, sha256, sound
from scons_tensorrt import (
    BackboneConfig,
    BackboneSpec,
    BuildConfig,
    CalibrationCacheError,
    CompileOutcome,
    EngineBuildError,
    EngineCacheEntry,
    EngineCompiler,
    EngineCompileRequest,
    EngineError,
    EngineFilenameSchema,
    HostCapabilities,
    OptimizationProfile,
    ProvisioningConfig,
    Sha256Sidecar,
    build_backbone_specs,
    build_engine_compiler,
    default_runtime,
)
from scons_tensorrt.errors import (
    EngineFilenameError,
    HardwareMismatchError,
    PublishError,
    RecipeError,
    SidecarError,
)

ORIN = HostCapabilities(sm=87, jp="6.2", trt="10.3")
NAME = "dinov2_vpr__sm87_jp6.2_trt10.3_fp16.engine"
BUILT, REUSED = CompileOutcome.BUILT, CompileOutcome.REUSED


@dataclass
class Runtime:
    """A caller's own: engines are made-up bytes. fails: by model name, what it raises after half a write."""

    calls: list[str] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)
    seconds: float = 0
    configs: list[BuildConfig] = field(default_factory=list)

    def compile_engine(self, onnx_path, config, output):
        self.calls.append(Path(output).name)
        self.configs.append(config)
        time.sleep(self.seconds)
        for name, error in self.fails.items():
            if Path(output).name.startswith(f"{name}__"):
                Path(output).write_bytes(b"half")
                raise error
        data = Path(onnx_path).read_bytes() + repr(config).encode()
        return EngineCacheEntry(output, Sha256Sidecar.write_atomic_and_sidecar(output, data))


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        self.found.append((record.levelname, record.event, record.fields))

    def of(self, event):
        return [fields for _, found, fields in self.found if found == event]


class Corpus:
    """A folder with models, and runs of a compiler over it."""

    def __init__(self, root, names=("dinov2_vpr", "lightglue", "aliked")):
        self.root, self.records, self.runtime = root, Records(), Runtime()
        self.logger = logging.Logger("corpus", logging.DEBUG)
        self.logger.addHandler(self.records)
        (root / "models").mkdir()
        for name in names:
            (root / "models" / f"{name}.onnx").write_bytes(name.encode() * 100)  # any bytes serve
        self.specs = [self.spec(name) for name in names]

    def spec(self, name, **more):
        return BackboneSpec(name, self.root / "models" / f"{name}.onnx", (1, 3, 224, 224), **more)

    def run(self, host=ORIN, runtime=None, specs=None, **more):
        self.records.found.clear()
        compiler = EngineCompiler(runtime or self.runtime, logger=self.logger)
        specs = tuple(self.specs if specs is None else specs)
        request = EngineCompileRequest(specs, host, self.root / "engines", **more)
        return compiler.compile_engines_for_corpus(request)

    @property
    def engine(self):
        return self.root / "engines" / NAME


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


def outcomes(results):
    return [result.outcome for result in results]


def test_a_cold_cache_builds_every_engine_in_order(corpus):
    results = corpus.run()
    assert outcomes(results) == [BUILT] * 3
    assert [r.entry.engine_path.name.split("__")[0] for r in results] == ["dinov2_vpr", "lightglue", "aliked"]
    assert results[0].entry.engine_path == corpus.engine
    for result in results:
        assert result.compile_duration_s >= 0
        digest = sha256(result.entry.engine_path)
        assert result.entry.sha256 == digest
        assert result.entry.sidecar_path.read_bytes() == digest.encode()
        assert Sha256Sidecar.verify(result.entry.engine_path)
    assert [fields["reason"] for fields in corpus.records.of("engine.cache.miss")] == ["new"] * 3
    assert corpus.records.of("engine.sidecar.mismatch") == []


def test_a_warm_cache_calls_no_runtime(corpus):
    first = corpus.run()
    before = {p: p.stat().st_mtime_ns for p in (corpus.root / "engines").iterdir()}
    results = corpus.run(runtime=Runtime(fails=dict.fromkeys(("dinov2_vpr", "aliked"), ValueError())))
    assert outcomes(results) == [REUSED] * 3
    assert [r.compile_duration_s for r in results] == [None] * 3
    assert [r.entry for r in results] == [r.entry for r in first]
    assert {p: p.stat().st_mtime_ns for p in (corpus.root / "engines").iterdir()} == before
    hits = corpus.records.of("engine.cache.hit")
    assert [fields["model_name"] for fields in hits] == ["dinov2_vpr", "lightglue", "aliked"]
    assert {level for level, _, _ in corpus.records.found} == {"INFO"}


def test_a_mixed_cache_builds_what_is_missing(corpus):
    corpus.run(specs=corpus.specs[:2])
    corpus.runtime.calls.clear()
    assert outcomes(corpus.run()) == [REUSED, REUSED, BUILT]
    assert corpus.runtime.calls == ["aliked__sm87_jp6.2_trt10.3_fp16.engine"]
    [summary] = corpus.records.of("engine.compile.summary")
    assert (summary["engines_built"], summary["engines_reused"]) == (1, 2)
    assert summary["seconds"] > 0


def test_other_hardware_gets_other_files_and_old_ones_stay(corpus):
    corpus.run(specs=corpus.specs[:1])
    old = corpus.engine.read_bytes(), corpus.engine.stat().st_mtime_ns
    later = HostCapabilities(sm=87, jp="6.2", trt="10.4")
    assert outcomes(corpus.run(later, specs=corpus.specs[:1])) == [BUILT]
    assert sorted(p.name for p in (corpus.root / "engines").glob("*.engine")) == [
        NAME,
        NAME.replace("trt10.3", "trt10.4"),
    ]
    assert (corpus.engine.read_bytes(), corpus.engine.stat().st_mtime_ns) == old
    assert outcomes(corpus.run(specs=corpus.specs[:1])) == [REUSED]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda e: e.write_bytes(e.read_bytes()[:-1] + b"!"), "digest_mismatch"),
        (lambda e: e.write_bytes(e.read_bytes()[:-1]), "digest_mismatch"),
        (lambda e: Path(f"{e}.sha256").write_text("0" * 64), "digest_mismatch"),
        (lambda e: Path(f"{e}.sha256").unlink(), "sidecar_missing"),
        (lambda e: Path(f"{e}.sha256").write_text("none"), "sidecar_malformed"),
    ],
)
def test_a_damaged_pair_is_built_again_and_it_alone(corpus, damage, reason):
    corpus.run()
    damage(corpus.engine)
    corpus.runtime.calls.clear()
    assert outcomes(corpus.run()) == [BUILT, REUSED, REUSED]
    assert corpus.runtime.calls == [NAME]
    assert Sha256Sidecar.verify(corpus.engine)
    told = {"model_name": "dinov2_vpr", "reason": reason}
    assert corpus.records.of("engine.sidecar.mismatch") == [told]
    assert corpus.records.of("engine.cache.miss") == [told]
    levels = {event: level for level, event, _ in corpus.records.found}
    assert levels["engine.sidecar.mismatch"] == levels["engine.cache.miss"] == "WARNING"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: (c.root / "models/dinov2_vpr.onnx").write_bytes(b"another network"),
        lambda c: c.specs.__setitem__(0, replace(c.specs[0], expected_input_shape=(1, 3, 448, 448))),
        lambda c: c.specs.__setitem__(0, replace(c.specs[0], input_name="image")),
    ],
)
def test_a_changed_model_or_option_under_the_same_name_is_built(corpus, change):
    corpus.run()
    change(corpus)
    assert outcomes(corpus.run()) == [BUILT, REUSED, REUSED]
    assert corpus.records.of("engine.cache.miss") == [{"model_name": "dinov2_vpr", "reason": "changed"}]
    assert outcomes(corpus.run()) == [REUSED] * 3


def test_another_workspace_builds_all_of_them(corpus):
    corpus.run()
    assert outcomes(corpus.run(workspace_mb=2048)) == [BUILT] * 3
    assert {config.workspace_mb for config in corpus.runtime.configs} == {4096, 2048}


@pytest.mark.parametrize(
    "error", [EngineBuildError("out of memory"), CalibrationCacheError("x"), ValueError("y")]
)
def test_an_error_keeps_its_type_and_the_engines_before_it(corpus, error):
    corpus.runtime.fails["lightglue"] = error
    with pytest.raises(type(error)) as caught:
        corpus.run()
    assert caught.value is error
    assert sorted(p.name for p in (corpus.root / "engines").iterdir()) == [NAME, f"{NAME}.sha256"]
    assert len(corpus.runtime.calls) == 2  # the third was not tried
    assert corpus.records.of("engine.compile.error") == [
        {"model_name": "lightglue", "calibration_path": None, "error_class": type(error).__name__}
    ]
    assert corpus.records.of("engine.compile.summary") == []
    corpus.runtime.fails.clear()
    assert outcomes(corpus.run()) == [REUSED, BUILT, BUILT]


def test_an_error_before_anything_is_written_keeps_the_old_pair(corpus):
    corpus.run()
    old = corpus.engine.read_bytes()
    (corpus.root / "models/dinov2_vpr.onnx").write_bytes(b"another network")

    class Refuses:
        def compile_engine(self, onnx_path, config, output):
            raise EngineBuildError("refused")

    with pytest.raises(EngineBuildError):
        corpus.run(runtime=Refuses())
    assert corpus.engine.read_bytes() == old
    assert Sha256Sidecar.verify(corpus.engine)


def test_calibration_data_is_handed_on_and_counts(corpus, tmp_path):
    cache = tmp_path / "calibration.cache"  # it may be missing, and may go with fp16
    corpus.specs = [replace(corpus.specs[0], calibration_path=cache)]
    assert outcomes(corpus.run()) == [BUILT]
    assert corpus.runtime.configs[-1].calibration_path == cache
    cache.write_bytes(b"ranges")
    assert outcomes(corpus.run()) == [BUILT]
    assert outcomes(corpus.run()) == [REUSED]
    cache.write_bytes(b"other ranges")
    corpus.runtime.fails["dinov2_vpr"] = CalibrationCacheError("unreadable")
    with pytest.raises(CalibrationCacheError):
        corpus.run()
    assert corpus.records.of("engine.compile.error") == [
        {
            "model_name": "dinov2_vpr",
            "calibration_path": str(cache),
            "error_class": "CalibrationCacheError",
        }
    ]


def test_one_profile_has_the_expected_shape_unless_profiles_are_given(corpus):
    corpus.run(specs=corpus.specs[:1])
    shape = (1, 3, 224, 224)
    assert corpus.runtime.configs[-1] == BuildConfig(
        "fp16", 4096, None, (OptimizationProfile("input", shape, shape, shape),)
    )
    profiles = (OptimizationProfile("input", (1, 3, 224, 224), (4, 3, 224, 224), (8, 3, 224, 224)),)
    corpus.run(specs=[replace(corpus.specs[0], profiles=profiles)])
    assert corpus.runtime.configs[-1].profiles == profiles


def test_an_empty_corpus_is_summed_up_too(corpus):
    assert corpus.run(specs=[]) == ()
    [summary] = corpus.records.of("engine.compile.summary")
    assert (summary["engines_built"], summary["engines_reused"]) == (0, 0)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda output: output.write_bytes(b"x"), "sidecar missing"),
        (
            lambda output: (output.write_bytes(b"x"), Path(f"{output}.sha256").write_text("0" * 64)),
            "does not match its sidecar",
        ),
        (lambda output: None, "the runtime wrote nothing"),
        (lambda output: Sha256Sidecar.write_atomic_and_sidecar(output, b"other"), "the file has"),
    ],
)
def test_what_a_runtime_leaves_is_checked(corpus, write, reason):
    class Careless:
        def compile_engine(self, onnx_path, config, output):
            write(output)
            return EngineCacheEntry(output, hashlib.sha256(b"x").hexdigest())

    with pytest.raises(EngineBuildError, match=reason):
        corpus.run(runtime=Careless(), specs=corpus.specs[:1])
    assert outcomes(corpus.run(specs=corpus.specs[:1])) == [BUILT]


def test_a_runtime_that_writes_nothing_gets_no_receipt_for_the_old_engine(corpus):
    corpus.run(specs=corpus.specs[:1])
    (corpus.root / "models/dinov2_vpr.onnx").write_bytes(b"another network")

    class Idle:
        def compile_engine(self, onnx_path, config, output):
            return EngineCacheEntry(output, Path(f"{output}.sha256").read_text())

    for _ in range(2):
        with pytest.raises(EngineBuildError, match="the runtime wrote nothing"):
            corpus.run(runtime=Idle(), specs=corpus.specs[:1])
    assert Sha256Sidecar.verify(corpus.engine)


def test_a_model_that_changes_meanwhile_gets_no_receipt(corpus):
    model = corpus.root / "models/dinov2_vpr.onnx"
    first = model.read_bytes()

    class Slow(Runtime):
        def compile_engine(self, onnx_path, config, output):
            model.write_bytes(b"another network")
            return super().compile_engine(onnx_path, config, output)

    with pytest.raises(EngineBuildError, match="changed while it was compiled; run again"):
        corpus.run(runtime=Slow(), specs=corpus.specs[:1])
    model.write_bytes(first)
    assert outcomes(corpus.run(specs=corpus.specs[:1])) == [BUILT]


def test_an_engine_that_another_model_replaced_comes_back(corpus):
    """Also one whose file the runtime wrote over in place."""
    [spec], model = corpus.specs[:1], corpus.specs[0].onnx_path
    corpus.run(specs=[spec])
    first, data = corpus.engine.read_bytes(), model.read_bytes()
    model.write_bytes(b"another")
    failing = Runtime(fails={"dinov2_vpr": ValueError()})
    with pytest.raises(ValueError):
        corpus.run(specs=[spec], runtime=failing)
    assert outcomes(corpus.run(specs=[spec])) == [BUILT]
    second = corpus.engine.read_bytes()
    for wanted, onnx in ((first, data), (second, b"another")):
        model.write_bytes(onnx)
        [result] = corpus.run(specs=[spec], runtime=failing)
        assert (result.outcome, result.compile_duration_s) == (REUSED, None)
        assert corpus.engine.read_bytes() == wanted
        assert Sha256Sidecar.verify(corpus.engine)
        assert corpus.records.of("engine.cache.hit") == [{"model_name": "dinov2_vpr"}]
        assert corpus.records.of("engine.cache.miss") == []


def test_a_size_of_0_keeps_nothing(corpus, monkeypatch):
    [spec], model = corpus.specs[:1], corpus.specs[0].onnx_path
    data = model.read_bytes()
    monkeypatch.setenv("TRT_CACHE_SIZE", "0")
    for onnx in (data, b"another", data):
        model.write_bytes(onnx)
        assert outcomes(corpus.run(specs=[spec])) == [BUILT]
    assert not (corpus.root / ".trt/kept").exists()
    monkeypatch.setenv("TRT_CACHE_SIZE", "much")
    with pytest.raises(RecipeError, match="TRT_CACHE_SIZE=much: write a size such as 5G"):
        corpus.run(specs=[spec])


def test_external_data_and_a_folder_of_samples_count(corpus, tmp_path):
    make_model(tmp_path / "models/ext.onnx", external="ext.bin")
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "0.npy").write_bytes(b"0")
    specs = [corpus.spec("ext", calibration_path=samples)]
    assert outcomes(corpus.run(specs=specs)) == [BUILT]
    assert outcomes(corpus.run(specs=specs)) == [REUSED]
    data = bytearray((tmp_path / "models/ext.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "models/ext.bin").write_bytes(data)
    assert outcomes(corpus.run(specs=specs)) == [BUILT]
    (samples / "1.npy").write_bytes(b"1")
    assert outcomes(corpus.run(specs=specs)) == [BUILT]
    assert outcomes(corpus.run(specs=specs)) == [REUSED]


def test_what_another_runtime_made_is_not_an_engine_of_this_machine(real):
    host = real.runtime.host()
    specs = [replace(real.specs[0], precision="fp32")]
    assert outcomes(real.run(host, runtime=Runtime(), specs=specs)) == [BUILT]
    assert outcomes(real.run(host, specs=specs)) == [BUILT]
    assert all(sound(engine) for engine in (real.root / "engines").glob("*.engine"))


def test_paths_are_those_of_the_start(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()

    class Wanders(Runtime):
        def compile_engine(self, onnx_path, config, output):
            monkeypatch.chdir(tmp_path / "other")
            return super().compile_engine(onnx_path, config, output)

    specs = (spec for spec in [replace(s, onnx_path=s.onnx_path.relative_to(tmp_path)) for s in corpus.specs])
    request = EngineCompileRequest(specs, ORIN, Path("engines"))  # any iterable
    results = EngineCompiler(Wanders(), logger=corpus.logger).compile_engines_for_corpus(request)
    assert outcomes(results) == [BUILT] * 3
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 3
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        (87, "6.2", 10.10),
        (87, "6", "10.3"),
        (87, "6.2", "10.3.0.26.1"),
        ("87", "6.2", "10.3"),
        (87, None, "10.3"),
    ],
)
def test_a_host_that_cannot_be_is_a_value_error(wrong):
    with pytest.raises(ValueError, match=r"write a (version|compute capability)"):
        HostCapabilities(*wrong)


def test_a_cache_root_that_is_a_file_is_named(corpus):
    (corpus.root / "engines").write_text("x")
    with pytest.raises(EngineError, match=r"engines is not a folder"):
        corpus.run()


@pytest.mark.parametrize(
    ("cache_root", "message"),
    [
        ("file/engines", "file is not a folder; remove it"),
        ("/proc/1/none/engines", "No such file or directory; (choose another cache_root|make the folder)"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_cache_root_where_nothing_can_be_written_is_one_line(corpus, own, cache_root, message):
    (corpus.root / "file").write_text("x")
    runtime = corpus.runtime if own else default_runtime("rtx_portable")
    host = ORIN if own else runtime.host()
    make_model(corpus.root / "a.onnx")
    spec = BackboneSpec("a", corpus.root / "a.onnx", (1, 8, 16, 16), precision="fp32", input_name="x")
    request = EngineCompileRequest((spec,), host, corpus.root / cache_root)
    with pytest.raises(PublishError, match=message):
        EngineCompiler(runtime).compile_engines_for_corpus(request)


@pytest.mark.parametrize("answer", [None, "text", 3])
def test_an_answer_that_is_no_entry_is_said(corpus, answer):
    class Odd:
        def compile_engine(self, onnx_path, config, output):
            Sha256Sidecar.write_atomic_and_sidecar(output, b"x")
            return answer

    with pytest.raises(EngineBuildError, match="it returned"):
        corpus.run(runtime=Odd(), specs=corpus.specs[:1])


def test_two_calls_at_once_compile_once(corpus):
    corpus.runtime.seconds = 0.3
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(corpus.run(specs=corpus.specs[:1]))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.outcome.name for result in found) == ["BUILT", "REUSED"]
    assert corpus.runtime.calls == [NAME]


def test_receipts_may_lie_elsewhere(corpus, tmp_path):
    state = tmp_path / "state"
    corpus.run(state_dir=state)
    assert not (tmp_path / ".trt").exists()
    assert len(list((state / "receipts").iterdir())) == 3
    assert outcomes(corpus.run(state_dir=state)) == [REUSED] * 3


# Names and sidecars.


def test_a_filename_is_built_parsed_and_matched():
    name = EngineFilenameSchema.build(model_name="dinov2_vpr", sm=87, jp="6.2", trt="10.3", precision="fp16")
    assert name == NAME
    fields = EngineFilenameSchema.parse(name)
    assert (fields.model, fields.sm, fields.platform) == ("dinov2_vpr", 87, "jp6.2")
    assert (fields.runtime, fields.precision) == ("trt10.3", "fp16")
    matches = EngineFilenameSchema.matches_host
    assert matches(name, ORIN)
    assert matches(name.replace("fp16", "int8"), ORIN)
    assert matches(name, HostCapabilities(87, "6.2", "10.3.0.30"))
    for other in (
        HostCapabilities(86, "6.2", "10.3"),
        HostCapabilities(87, "6.1", "10.3"),
        HostCapabilities(87, "6.2", "10.4"),
    ):
        assert not matches(name, other)
    assert matches(name.replace("sm87", "sm80plus"), ORIN)
    assert not matches(name.replace("sm87", "sm89plus"), ORIN)
    assert not matches("a__sm87_cu12.6_trt10.3_fp16.engine", ORIN)


@pytest.mark.parametrize(
    "field", [{"model_name": "a__b"}, {"sm": 0}, {"jp": "6"}, {"trt": "x.y"}, {"precision": "half"}]
)
def test_a_name_that_is_none_is_a_value_error(field):
    with pytest.raises(EngineFilenameError):
        EngineFilenameSchema.build(
            **{"model_name": "a", "sm": 87, "jp": "6.2", "trt": "10.3", "precision": "fp16", **field}
        )
    with pytest.raises(ValueError, match="not an engine's filename"):
        EngineFilenameSchema.parse("a.engine")


def test_a_sidecar_tells_whole_from_other_bytes(tmp_path):
    path = tmp_path / "new" / NAME
    assert Sha256Sidecar.verify(path) is False
    digest = Sha256Sidecar.write_atomic_and_sidecar(path, b"engine")
    assert digest == hashlib.sha256(b"engine").hexdigest()
    assert Path(f"{path}.sha256").read_bytes() == digest.encode()
    assert sorted(p.name for p in path.parent.iterdir()) == [NAME, f"{NAME}.sha256"]
    assert Sha256Sidecar.verify(path) is True
    path.write_bytes(b"enginE")
    assert Sha256Sidecar.verify(path) is False
    Path(f"{path}.sha256").write_text("x")
    with pytest.raises(SidecarError, match="malformed"):
        Sha256Sidecar.verify(path)
    Path(f"{path}.sha256").unlink()
    with pytest.raises(SidecarError, match="missing"):
        Sha256Sidecar.verify(path)
    path.unlink()
    assert Sha256Sidecar.verify(path) is False


# Configurations.


@pytest.mark.parametrize("kind", [BackboneSpec, BackboneConfig])
@pytest.mark.parametrize(
    "wrong",
    [{"model_name": ""}, {"input_name": " "}, {"expected_input_shape": (1, 0)}, {"expected_input_shape": ()}],
)
def test_a_backbone_that_cannot_be_is_refused(kind, wrong):
    good = {"model_name": "a", "onnx_path": Path("a.onnx"), "expected_input_shape": (1, 3)}
    kind(**good)
    with pytest.raises(ValueError, match=r"a name|at least 1"):
        kind(**{**good, **wrong})


def test_a_configuration_is_a_corpus(corpus):
    one = BackboneConfig("dinov2_vpr", corpus.specs[0].onnx_path, (1, 3, 224, 224))
    config = ProvisioningConfig((one,))
    assert config.workspace_mb == 4096
    assert build_backbone_specs(config) == (corpus.specs[0],)
    assert isinstance(build_engine_compiler(config), EngineCompiler)
    for wrong in ((one, one),):
        with pytest.raises(ValueError, match="twice"):
            ProvisioningConfig(wrong)
        with pytest.raises(ValueError, match="twice"):
            EngineCompileRequest(tuple(build_backbone_specs(config) * 2), ORIN, corpus.root)
    with pytest.raises(ValueError, match="workspace_mb"):
        ProvisioningConfig((one,), workspace_mb=0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": "rtx_portable"}, r"host='rtx_portable': give default_runtime"),
        ({"backbones": ("dinov2_vpr",)}, r"backbones=\['dinov2_vpr'\]: write a tuple of BackboneSpec"),
        ({"backbones": "one spec"}, "write a tuple of BackboneSpec"),
        ({"backbones": "config"}, "write a tuple of BackboneSpec"),
    ],
)
def test_a_request_of_wrong_types_is_refused(corpus, wrong, says):
    one = corpus.specs[0]
    given = {"one spec": one, "config": (BackboneConfig("a", one.onnx_path, (1, 3)),)}
    wrong = {name: given.get(value, value) for name, value in wrong.items()}
    with pytest.raises(ValueError, match=says):
        EngineCompileRequest(**{"backbones": (one,), "host": ORIN, "cache_root": corpus.root, **wrong})


# The runtime of this machine.


@pytest.fixture
def real(tmp_path):
    """A corpus of one real network, dynamic in its batch."""
    found = Corpus(tmp_path, names=())
    make_model(tmp_path / "models/net.onnx", shape=("n", 8, 16, 16))
    found.specs = [BackboneSpec("net", tmp_path / "models/net.onnx", (2, 8, 16, 16), input_name="x")]
    found.runtime = default_runtime("rtx_portable")
    return found


def test_this_machine_compiles_and_reuses_with_scons(real, tree):
    host = real.runtime.host()
    profiles = (OptimizationProfile("x", (1, 8, 16, 16), (2, 8, 16, 16), (4, 8, 16, 16)),)
    spec = real.specs[0]
    specs = [replace(spec, precision="fp32"), spec, replace(spec, model_name="many", profiles=profiles)]
    results = real.run(host, specs=specs)
    assert outcomes(results) == [BUILT] * 3
    assert all(sound(result.entry.engine_path) for result in results)
    assert outcomes(real.run(host, specs=specs)) == [REUSED] * 3

    tree.root = real.root
    tree.write(
        """
        env.Engine("net", "models/net.onnx", precision="fp32", shapes={"x": (2, 8, 16, 16)})
        env.Engine("net", "models/net.onnx", precision="fp16", shapes={"x": (2, 8, 16, 16)})
        shapes = {"x": ((1, 8, 16, 16), (2, 8, 16, 16), (4, 8, 16, 16))}
        env.Engine("many", "models/net.onnx", precision="fp16", shapes=shapes)
        """
    )
    run = tree.scons("engines", "TRT_VERBOSE=1", TRT_VERBOSE="1")
    assert run.status == 0, run.out
    assert run.built == []
    assert run.summary.startswith("engines: 3 reused, 0 built, 0 failed")
    make_model(tree.path("models/net.onnx"), seed=1, shape=("n", 8, 16, 16))
    assert len(tree.scons().built) == 3
    assert outcomes(real.run(host, specs=specs)) == [REUSED] * 3
    assert tree.receipt("many")["made_by"][0]["kind"] == "precision"
    make_model(tree.path("models/net.onnx"), shape=("n", 8, 16, 16))
    [back] = real.run(host, specs=specs[:1])
    assert (back.outcome, back.compile_duration_s) == (REUSED, None)
    assert back.entry.sha256 == results[0].entry.sha256
    assert real.records.of("engine.cache.hit") == [{"model_name": "net"}]


def test_this_machine_compiles_to_a_path(real):
    host = real.runtime.host()
    [result] = real.run(host, specs=[replace(real.specs[0], precision="fp32")])
    config = real.specs[0].config(4096)
    entry = real.runtime.compile_engine(
        real.specs[0].onnx_path, replace(config, precision="fp32"), result.entry.engine_path
    )
    assert entry == result.entry
    other = result.entry.engine_path.with_name(NAME)
    with pytest.raises(HardwareMismatchError, match="this runtime compiles"):
        real.runtime.compile_engine(real.specs[0].onnx_path, config, other)


def test_a_jetson_in_short_is_compiled_on_that_jetson_alone(real):
    with pytest.raises(HardwareMismatchError, match=r"the request is for sm87 jp6\.2 trt10\.3"):
        real.run(ORIN)
    assert not (real.root / "engines").exists()
    assert real.records.of("engine.compile.error")[0]["error_class"] == "HardwareMismatchError"


def test_what_is_wrong_with_a_model_or_its_options_is_said_in_one_line(real):
    host = real.runtime.host()
    with pytest.raises(RecipeError, match="the model has no input `input`"):
        real.run(host, specs=[replace(real.specs[0], input_name="input")])
    (real.root / "models/net.onnx").write_bytes(b"not a network")
    with pytest.raises(EngineError) as caught:
        real.run(host)
    assert "models/net.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_killed_compile_leaves_nothing_half_and_the_next_one_finishes(real, tmp_path):
    make_model(tmp_path / "models/net.onnx", shape=("n", 8, 64, 64), width=256, depth=24)
    program = tmp_path / "compile.py"
    program.write_text(
        """
from pathlib import Path
from scons_tensorrt import BackboneSpec, EngineCompiler, EngineCompileRequest, default_runtime

spec = BackboneSpec("net", Path("models/net.onnx"), (2, 8, 64, 64), "x", "fp32")
compiler = EngineCompiler(default_runtime("rtx_portable"))
request = EngineCompileRequest((spec,), compiler.runtime.host(), Path("engines"))
print(compiler.compile_engines_for_corpus(request)[0].outcome.name)
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO / "site_scons")}
    command = [sys.executable, str(program)]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    partial = tmp_path / ".trt/partial"
    deadline = time.monotonic() + 60
    while not any(partial.rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "engines").glob("*.engine*")) == []
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "BUILT\n"
    assert all(sound(engine) for engine in (tmp_path / "engines").glob("*.engine"))
    assert not any(path.is_file() for path in partial.rglob("*"))


def test_public_names_need_the_standard_library_alone():
    program = (
        "import sys, scons_tensorrt as s\n"
        "[getattr(s, name) for names in s._PUBLIC.values() for name in names.split()]\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'SCons', 'filelock', 'numpy', 'onnx', 'rich', 'jinja2'}))\n"
    )
    command = [sys.executable, "-S", "-c", program]
    environment = {"PYTHONPATH": str(REPO / "site_scons")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# A build within a build, and beside one.


@dataclass
class Wrapper:
    """A caller's own runtime that leaves the work to that of this machine."""

    inner: object
    calls: int = 0

    def compile_engine(self, onnx_path, config, output):
        self.calls += 1
        return self.inner.compile_engine(onnx_path, config, output)


def test_a_runtime_may_call_that_of_this_machine(real):
    host, wrapper = real.runtime.host(), Wrapper(real.runtime)
    specs = [replace(real.specs[0], precision="fp32")]
    [built] = real.run(host, wrapper, specs)
    assert built.outcome is BUILT
    assert sound(built.entry.engine_path)
    assert outcomes(real.run(host, wrapper, specs)) == [REUSED]
    assert wrapper.calls == 1
    assert real.records.of("engine.lock.wait") == []


def test_waiting_for_another_build_is_logged_after_a_second(corpus):
    corpus.runtime.seconds = 2.5
    first = threading.Thread(target=lambda: corpus.run(specs=corpus.specs[:1]))
    other = Corpus.__new__(Corpus)
    vars(other).update(vars(corpus), records=Records(), logger=logging.Logger("other", logging.DEBUG))
    other.logger.addHandler(other.records)
    first.start()
    while not corpus.runtime.calls:
        time.sleep(0.01)
    assert outcomes(other.run(specs=corpus.specs[:1])) == [REUSED]
    first.join()
    [waited] = other.records.of("engine.lock.wait")
    engine = f"engines/{NAME}"
    text = rf"WAITING {engine}: for process {os.getpid()} \(this one\), compiling {engine} since .*"
    assert re.fullmatch(text, waited["text"])


def test_a_model_that_changes_between_its_conversion_and_the_compile_is_not_compiled(real, monkeypatch):
    from scons_tensorrt.build import local_runtime

    def convert_and_edit(spec, context):
        made = make_onnx(spec, context)
        make_model(spec.onnx["onnx"].path, seed=5, shape=("n", 8, 16, 16))
        return made

    make_onnx = local_runtime.make_onnx
    monkeypatch.setattr(local_runtime, "make_onnx", convert_and_edit)
    with pytest.raises(EngineBuildError, match=r"^net\.onnx changed since it was checked; run again$"):
        real.run(real.runtime.host())
    assert not list(real.root.rglob("*.engine"))
    monkeypatch.undo()
    assert outcomes(real.run(real.runtime.host())) == [BUILT]
