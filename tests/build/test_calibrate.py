"""TensorRT 10's calibrators, over objects that refuse what the surfaces lack and a C library that
plays the driver: host memory is the device, so what is at an address can be read back."""

import ctypes
import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from jobs import compile_job
from surface import CALIBRATION_TABLE as TABLE
from surface import VERSIONS, Calibrates, Surface

from scons_tensorrt.build.calibration_cache import read_cache
from scons_tensorrt.errors import CalibrationCacheError
from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import calibrate, main
from scons_tensorrt.worker.trt.job import CalibrationJob

WEAK = [version for version in VERSIONS if version.startswith(("tensorrt-10", "tensorrt-8"))]
COUNT, SHAPE = 3, [2, 8]
DATA = [bytes([number + 1]) * 64 for number in range(COUNT)]


@pytest.fixture(autouse=True)
def driver(libcuda, monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "NAMES", (str(libcuda),))
    monkeypatch.chdir(tmp_path)
    return ctypes.CDLL(str(libcuda))


@pytest.fixture(autouse=True)
def told(monkeypatch):
    events = []
    monkeypatch.setattr(parent, "send", lambda event, **fields: events.append((event, fields)))
    return events


def samples(path, inputs=(("x", "float32", SHAPE),), data=tuple(DATA), count=None):
    header = {"inputs": list(inputs), "samples": len(data) if count is None else count}
    path.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(data))
    return path


def spec(folder, method="entropy", known=None, **more):
    calibration = CalibrationJob(
        method=method,
        samples=str(more.pop("samples", None) or samples(folder / "s")),
        cache=str(folder / "calibration" / "a.0123.cache"),
        known=known and known.hex(),
    )
    profiles = [{"x": [[1, 8], [2, 8], [4, 8]]}]
    return compile_job(folder, precision="int8", profiles=profiles, calibration=calibration, **more)


def run(version, folder, tensorrt=None, **more):
    """A whole compile; the TensorRT that played."""
    surface = Surface(version)
    surface.calibrate = tensorrt or Calibrates()
    main.make(surface, spec(folder, **more))
    return surface.calibrate


def refusal(*arguments, **more):
    with pytest.raises(WorkerError) as caught:
        run(*arguments, **more)
    return f"{caught.value.error_class}: {caught.value}"


def cache(folder):
    return folder / "calibration" / "a.0123.cache"


@pytest.mark.parametrize("version", WEAK)
@pytest.mark.parametrize(
    ("method", "kind"), [("entropy", "IInt8EntropyCalibrator2"), ("minmax", "IInt8MinMaxCalibrator")]
)
def test_every_sample_reaches_the_device_and_the_cache_is_kept(version, method, kind, tmp_path, driver, told):
    played = run(version, tmp_path, method=method)
    assert played.kinds == [kind]
    assert played.seen == [[data] for data in DATA]
    assert played.batch_size == 2
    assert played.shapes == [(SHAPE, SHAPE, SHAPE)]
    digest = hashlib.sha256(TABLE).hexdigest()
    assert cache(tmp_path).read_bytes() == TABLE
    assert Path(f"{cache(tmp_path)}.sha256").read_text() == digest
    assert told[-1] == ("calibration", {"cache": "a.0123.cache", "sha256": digest, "samples": COUNT})
    assert (tmp_path / "out.engine").exists()
    assert driver.play_allocations() == 0


@pytest.mark.parametrize("version", WEAK)
def test_the_callbacks_are_there_to_be_overridden(version):
    surface = Surface(version)
    for method, name in calibrate.CALIBRATORS.items():
        made = calibrate.make_calibrator(surface, method, None)
        own = {member for member in vars(type(made)) if not member.startswith("_")}
        assert own | {"get_algorithm"} == set(surface.members(name))


@pytest.mark.parametrize("version", [v for v in VERSIONS if v not in WEAK])
def test_later_runtimes_have_no_calibrator(version, tmp_path):
    surface = Surface(version)
    with pytest.raises(WorkerError, match=r"by='calibrator' is not supported by TensorRT .*; write by='qdq'"):
        calibrate.make_calibrator(surface, "entropy", None)


@pytest.mark.parametrize("version", WEAK)
def test_a_known_cache_reads_no_sample(version, tmp_path, told):
    empty = samples(tmp_path / "s", data=(), count=COUNT)
    played = run(version, tmp_path, samples=empty, known=TABLE)
    assert (played.known, played.seen) == (TABLE, [])
    assert not cache(tmp_path).exists()
    assert told[-1][1]["samples"] == 0


def test_a_static_network_needs_no_calibration_profile(tmp_path):
    surface = Surface(WEAK[0])
    surface.shape, surface.calibrate = (2, 8), Calibrates()
    main.make(surface, spec(tmp_path))
    assert surface.calibrate.shapes == []


def test_int64_samples_reach_a_tensorrt_without_int64_as_int32(tmp_path):
    surface = Surface("tensorrt-8.6.1")
    surface.kind, surface.calibrate = "INT32", Calibrates(sizes=(64,))
    data = [np.arange(16, dtype="<i8").tobytes()] * COUNT
    path = samples(tmp_path / "s", [("x", "int64", SHAPE)], data)
    main.make(surface, spec(tmp_path, samples=path))
    assert surface.calibrate.seen == [[np.arange(16, dtype="<i4").tobytes()]] * COUNT
    path = samples(tmp_path / "s", [("x", "int64", SHAPE)], [np.full(16, 1 << 31, "<i8").tobytes()] * COUNT)
    with pytest.raises(WorkerError, match="input `x` is INT32, but its samples need int64"):
        main.make(surface, spec(tmp_path, samples=path))


def test_several_inputs_come_in_the_order_that_tensorrt_asks(tmp_path):
    inputs = [("x", "float32", SHAPE), ("mask", "int64", [2, 1])]
    data = [b"".join(DATA[n : n + 1]) + bytes([n]) * 16 for n in range(COUNT)]
    path = samples(tmp_path / "s", inputs, data)
    played = run(WEAK[0], tmp_path, Calibrates(["mask", "x"], sizes=(16, 64)), samples=path)
    assert played.seen == [[bytes([n]) * 16, DATA[n]] for n in range(COUNT)]


def test_a_cache_that_is_there_is_never_overwritten(tmp_path):
    cache(tmp_path).parent.mkdir()
    cache(tmp_path).write_bytes(b"another's")
    run(WEAK[0], tmp_path)
    assert cache(tmp_path).read_bytes() == b"another's"
    assert not Path(f"{cache(tmp_path)}.sha256").exists()


def test_a_sidecar_without_a_cache_is_no_cache(tmp_path):
    cache(tmp_path).parent.mkdir()
    Path(f"{cache(tmp_path)}.sha256").write_text("0" * 64)
    assert read_cache(cache(tmp_path), "x") is None
    run(WEAK[0], tmp_path)
    assert read_cache(cache(tmp_path), "x") == TABLE


def test_a_cache_that_cannot_be_kept_is_told_and_no_fault_of_the_engines(tmp_path, told):
    (tmp_path / "calibration").write_bytes(b"a file")
    run(WEAK[0], tmp_path)
    note = next(fields["text"] for event, fields in told if event == "note")
    assert "a.0123.cache: " in note
    assert note.endswith("the engine is built, the cache is not saved")


def test_a_build_that_fails_later_has_its_calibration_still(tmp_path):
    surface = Surface(WEAK[0])
    surface.calibrate, surface.fails = Calibrates(), True
    with pytest.raises(WorkerError, match="the builder refused the network: no reason given"):
        main.make(surface, spec(tmp_path))
    assert read_cache(cache(tmp_path), "x") == TABLE


# What a callback cannot raise is raised afterwards, and nothing is kept.


def test_samples_that_end_too_soon(tmp_path, driver):
    short = samples(tmp_path / "s", data=DATA[:2], count=COUNT)
    said = refusal(WEAK[0], tmp_path, samples=short)
    assert said.startswith("EngineBuildError: calibration: the file of samples is truncated")
    assert not cache(tmp_path).exists()
    assert driver.play_allocations() == 0


def test_a_gpu_without_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAY_MEMORY", "1")
    said = refusal(WEAK[0], tmp_path)
    assert said == "EngineBuildError: calibration: cuMemAlloc_v2: out of memory (CUDA error 2)"
    assert not cache(tmp_path).exists()


def test_a_driver_that_lacks_a_function(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "NAMES", ("libc.so.6",))
    assert "the driver has no cuInit" in refusal(WEAK[0], tmp_path)


def test_an_input_of_which_there_are_no_samples(tmp_path):
    said = refusal(WEAK[0], tmp_path, Calibrates(["x", "y"]))
    assert said == "RecipeError: TensorRT asked for samples of `y`, which has none"


def test_an_engine_that_was_calibrated_with_some_of_the_samples_is_none(tmp_path):
    said = refusal(WEAK[0], tmp_path, Calibrates(stops_after=2))
    assert said == "EngineBuildError: calibration: TensorRT read 2 of 3 samples"
    assert not cache(tmp_path).exists()


def test_an_engine_that_was_not_calibrated_at_all_is_none(tmp_path):
    said = refusal(WEAK[0], tmp_path, lambda calibrator, profiles: None)
    assert "calibration: TensorRT read 0 of 3 samples and wrote no cache; see the log" in said
    said = refusal(WEAK[0], tmp_path, lambda calibrator, profiles: None, known=TABLE)
    assert "calibration: TensorRT did not read the cache" in said


def test_an_empty_cache_is_not_kept(tmp_path):
    assert "TensorRT wrote an empty cache" in refusal(WEAK[0], tmp_path, Calibrates(table=b""))
    assert not cache(tmp_path).exists()


# What is refused before the build.


def test_samples_of_another_type_than_the_network_reads(tmp_path):
    path = samples(tmp_path / "s", [("x", "int64", SHAPE)], [bytes(128)])
    said = refusal(WEAK[0], tmp_path, samples=path)
    assert said == "RecipeError: input `x` is FLOAT in TensorRT, but its samples are int64"


def test_samples_of_a_type_that_no_calibrator_takes(tmp_path):
    path = samples(tmp_path / "s", [("x", "float64", SHAPE)], [bytes(128)])
    assert "input `x` has type float64, which calibrators do not support" in refusal(
        WEAK[0], tmp_path, samples=path
    )


def test_samples_of_other_inputs(tmp_path):
    path = samples(tmp_path / "s", [("y", "float32", SHAPE)])
    assert "input `x` of the network has no samples" in refusal(WEAK[0], tmp_path, samples=path)


def test_a_quantized_model_takes_no_calibrator(tmp_path, monkeypatch):
    from scons_tensorrt.worker.trt import network

    monkeypatch.setattr(network, "types_of", lambda network: {"FLOAT", "INT8"})
    assert "it has Q/DQ nodes already; leave out calibration" in refusal(WEAK[0], tmp_path)


# The cache and its sidecar.


@pytest.fixture
def pair(tmp_path):
    calibrate.keep(str(cache(tmp_path)), TABLE)
    return cache(tmp_path), Path(f"{cache(tmp_path)}.sha256")


def test_both_agree(pair):
    assert read_cache(pair[0], "x") == TABLE
    assert sorted(p.name for p in pair[0].parent.iterdir()) == [
        *(pair[0].name, f"{pair[0].name}.lock", pair[1].name),
    ]


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (lambda cache, sidecar: sidecar.unlink(), "sidecar missing"),
        (lambda cache, sidecar: sidecar.write_text("x"), "sidecar malformed"),
        (lambda cache, sidecar: sidecar.write_text(""), "sidecar empty"),
        (lambda cache, sidecar: sidecar.write_text("0" * 64), "its sha256 does not match"),
        (lambda cache, sidecar: cache.write_bytes(TABLE[:-1]), "its sha256 does not match"),
        (lambda cache, sidecar: cache.write_bytes(b""), "its sha256 does not match"),
        (lambda cache, sidecar: (cache.unlink(), cache.mkdir()), "not readable"),
    ],
    ids=["missing", "malformed", "empty", "of another", "truncated", "emptied", "a folder"],
)
def test_a_pair_that_disagrees_is_an_error_that_says_what_to_do(pair, harm, cause):
    harm(*pair)
    with pytest.raises(CalibrationCacheError) as caught:
        read_cache(pair[0], ".trt/calibration/a.0123.cache")
    said = str(caught.value)
    assert said.startswith(f"calibration cache .trt/calibration/a.0123.cache: {cause}")
    assert said.endswith("; restore the two files, or remove both to calibrate again")


def test_what_sha256sum_writes_is_a_sidecar_too(pair):
    pair[1].write_text(f"{hashlib.sha256(TABLE).hexdigest()}  {pair[0].name}\n")
    assert read_cache(pair[0], "x") == TABLE


def test_of_many_that_keep_one_cache_the_pair_is_one_ones(tmp_path):
    fork = multiprocessing.get_context("fork")
    tables = [bytes([n]) * 4096 for n in range(8)]
    running = [fork.Process(target=calibrate.keep, args=(str(cache(tmp_path)), t)) for t in tables]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert read_cache(cache(tmp_path), "x") in tables


@pytest.mark.parametrize("point", range(8))
def test_cut_off_anywhere_there_is_never_a_cache_without_its_sidecar(tmp_path, monkeypatch, point):
    """The system calls of keeping, the process gone before each of them."""
    made = []

    def counted(do):
        def call(*arguments):
            made.append(do)
            if len(made) > point:
                raise KeyboardInterrupt
            return do(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    try:
        calibrate.keep(str(cache(tmp_path)), TABLE)
    except KeyboardInterrupt:
        assert read_cache(cache(tmp_path), "x") in (None, TABLE)
    monkeypatch.undo()
    monkeypatch.setattr(parent, "send", lambda event, **fields: None)
    calibrate.keep(str(cache(tmp_path)), TABLE)
    assert read_cache(cache(tmp_path), "x") == TABLE
