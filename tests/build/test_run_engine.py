"""An engine on its GPU, over objects that refuse what the surfaces lack and a C library that plays the
driver: host memory is the device, so what an engine is given, and what comes back, is seen."""

import ctypes
import hashlib
import io

import numpy as np
import pytest
from jobs import run_job
from surface import VERSIONS, Plays, Surface

from scons_tensorrt.hardware import cuda
from scons_tensorrt.worker.common import array_file
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.trt import run_engine

ENGINE = b"ftrt" + bytes(96)
ROWS = [np.full((n, 4), n + 0.5, np.float32) for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def driver(libcuda, monkeypatch):
    monkeypatch.setattr(cuda, "NAMES", (str(libcuda),))
    return ctypes.CDLL(str(libcuda))


def doubled(given):
    """y = 2 x, as bytes."""
    shape, data = given["x"]
    return {"y": (shape, (np.frombuffer(data, np.float32) * 2).tobytes())}


def plays(compute=doubled, inputs=None, outputs=None, **more):
    more.setdefault("profiles", [{"x": ((1, 4), (8, 4))}])
    return Plays(compute, inputs or {"x": "FLOAT"}, outputs or {"y": "FLOAT"}, **more)


def samples(*records_of):
    out = io.BytesIO()
    for record in records_of:
        array_file.write(out, [(n, a.dtype.name, a.shape, a.tobytes()) for n, a in record.items()])
    return io.BytesIO(out.getvalue())


def job(folder, **changes):
    path = folder / "a.engine"
    path.write_bytes(ENGINE)
    digest = hashlib.sha256(ENGINE).hexdigest()
    return run_job(folder, **{"sha256": digest, **changes})


def given_back(version, folder, engine, *records_of, **changes):
    """The outputs of each sample, as (dtype, shape, bytes) by name; and the surface."""
    surface, out = Surface(version), io.BytesIO()
    surface.engine = engine
    run_engine.run(surface, job(folder, **changes), samples(*records_of), out)
    return list(array_file.read(io.BytesIO(out.getvalue()))), surface


def refusal(*arguments, error=WorkerError, **changes):
    with pytest.raises(error) as caught:
        given_back(*arguments, **changes)
    return str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_sample_goes_in_and_every_output_comes_back(version, tmp_path, driver):
    engine = plays()
    found, surface = given_back(version, tmp_path, engine, *({"x": rows} for rows in ROWS))
    assert dict(surface.notes)["loaded"] == ENGINE
    assert [each["y"] for each in found] == [
        ("float32", rows.shape, bytearray((rows * 2).tobytes())) for rows in ROWS
    ]
    assert [shapes["x"] for _, shapes in engine.taken] == [(rows.shape, rows.tobytes()) for rows in ROWS]
    assert driver.play_allocations() == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_profile_that_fits_is_taken(version, tmp_path):
    engine = plays(profiles=[{"x": ((1, 4), (1, 4))}, {"x": ((2, 4), (9, 4))}])
    given_back(version, tmp_path, engine, *({"x": rows} for rows in (*ROWS, ROWS[0])))
    assert [profile for profile, _ in engine.taken] == [0, 1, 1, 0]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_output_whose_shape_the_data_decide(version, tmp_path, driver):
    def positive(given):
        values = np.frombuffer(given["x"][1], np.float32)
        kept = values[values > 0]
        return {"y": ((kept.size,), kept.tobytes())}

    x = np.array([[1, -1, 2, -2]], np.float32)
    none = np.full((1, 4), -1, np.float32)
    found, _ = given_back(version, tmp_path, plays(positive, late=("y",)), {"x": x}, {"x": none})
    assert found[0]["y"] == ("float32", (2,), bytearray(np.array([1, 2], "f4").tobytes()))
    assert found[1]["y"] == ("float32", (0,), bytearray())
    assert driver.play_allocations() == 0


def test_tensors_in_the_hosts_memory_are_never_given_to_the_device(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAY_MEMORY", "1")  # a byte: more would fail

    def same(given):
        return {"y": given["x"]}

    engine = plays(same, {"x": "INT64"}, {"y": "INT64"}, profiles=(), on_host=("x", "y"))
    x = np.arange(3, dtype=np.int64)
    found, _ = given_back(VERSIONS[0], tmp_path, engine, {"x": x})
    assert found[0]["y"] == ("int64", (3,), bytearray(x.tobytes()))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_recipe_says_of_running_reaches_the_runtime(version, tmp_path):
    compatible = hasattr(Surface(version).BuilderFlag, "VERSION_COMPATIBLE")  # not in 8.5
    changes = {"flags": ["VERSION_COMPATIBLE"] * compatible, "settings": {"dla_core": 1}}
    _, surface = given_back(version, tmp_path, plays(), {"x": ROWS[0]}, **changes)
    runtime = dict(surface.notes)["runtime"]
    assert runtime.DLA_core == 1
    assert not compatible or runtime.engine_host_code_allowed is True


def test_int64_samples_reach_a_tensorrt_without_int64_as_int32(tmp_path):
    def same(given):
        return {"y": given["x"]}

    engine = plays(same, {"x": "INT32"}, {"y": "INT32"}, profiles=())
    x = np.array([1, -5, 7], np.int64)
    found, _ = given_back("tensorrt-8.6.1", tmp_path, engine, {"x": x})
    assert found[0]["y"] == ("int32", (3,), bytearray(x.astype("<i4").tobytes()))
    said = refusal("tensorrt-8.6.1", tmp_path, engine, {"x": x << 32}, error=run_engine.NotRun)
    assert said == "input `x` is INT32, but its samples need int64"


# What cannot be run, and what is wrong with the engine.


def test_bytes_that_are_not_those_that_were_compiled_are_never_loaded(tmp_path):
    said = refusal(VERSIONS[0], tmp_path, plays(), {"x": ROWS[0]}, sha256="0" * 64)
    assert said == "the engine changed before it was loaded"


def test_an_engine_that_does_not_load(tmp_path):
    assert refusal(VERSIONS[0], tmp_path, None, {"x": ROWS[0]}) == "TensorRT cannot load the engine"


def test_an_engine_that_does_not_run(tmp_path, driver):
    engine = plays()
    engine.runs = False
    assert (
        refusal(VERSIONS[0], tmp_path, engine, {"x": ROWS[0]}) == "sample 0: TensorRT cannot run the engine"
    )
    assert driver.play_allocations() == 0


def test_a_kernel_that_fails_shows_when_it_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAY_STREAM", "700")
    said = refusal(VERSIONS[0], tmp_path, plays(), {"x": ROWS[0]})
    assert said == "cuStreamSynchronize: an illegal memory access was encountered (CUDA error 700)"


@pytest.mark.parametrize("late", [(), ("y",)], ids=["known", "decided by data"])
def test_a_gpu_without_memory(late, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAY_MEMORY", "1")
    said = refusal(VERSIONS[0], tmp_path, plays(late=late), {"x": ROWS[0]})
    assert said == "cuMemAlloc_v2: out of memory (CUDA error 2)"


def test_a_sample_that_no_profile_takes_is_named(tmp_path):
    said = refusal(VERSIONS[0], tmp_path, plays(), {"x": ROWS[0]}, {"x": np.zeros((9, 4), "f4")})
    assert said == "sample 1: no profile of shapes= covers `x` [9, 4]"


def test_an_input_of_which_there_are_no_samples(tmp_path):
    engine = plays(inputs={"x": "FLOAT", "mask": "FLOAT"}, profiles=())
    said = refusal(VERSIONS[0], tmp_path, engine, {"x": ROWS[0]})
    assert said == "sample 0: input `mask` has no samples"


def test_an_input_of_another_type_is_not_run(tmp_path):
    said = refusal(VERSIONS[0], tmp_path, plays(), {"x": np.zeros((1, 4))}, error=run_engine.NotRun)
    assert said == "input `x` is FLOAT, but its samples are float64"


def test_a_form_that_is_not_read_here_is_not_run(tmp_path):
    engine = plays()
    engine.form = "CHW32"
    said = refusal(VERSIONS[0], tmp_path, engine, {"x": ROWS[0]}, error=run_engine.NotRun)
    assert said == "tensor `x` is FLOAT in an unsupported format"


@pytest.mark.parametrize(("sms", "runs"), [([80, 87], True), ([80, 86], False)])
def test_an_engine_of_rtx_runs_on_its_architectures_alone(tmp_path, sms, runs):
    import os

    here = os.uname()
    found = {"os": here.sysname.lower(), "machine": here.machine}
    spec = run_job(tmp_path, architectures=sms, hardware=found)
    if runs:
        assert run_engine._gpu(spec) == "Orin"
    else:
        with pytest.raises(run_engine.NotRun, match="the engine is for SM 80, 86, this GPU is SM 87"):
            run_engine._gpu(spec)
