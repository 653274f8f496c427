"""docs/examples/check_engine.cpp, compiled against a played part of TensorRT's interface, and run.

It was never compiled against TensorRT's own headers."""

import hashlib
import os
import shutil
import subprocess

import numpy as np
import pytest
from test_verified_engine import INCLUDE, PROGRAM, WARNINGS

from conftest import REPO
from scons_tensorrt.artifact.filename import RECORDED_SUFFIX
from scons_tensorrt.worker.common import recorded_file

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    folder = tmp_path_factory.mktemp("check")
    where = [f"-I{INCLUDE}", f"-I{PROGRAM.with_name('played')}"]
    command = ["g++", "-std=c++17", "-O0", *WARNINGS, *where]
    source = REPO / "docs/examples/check_engine.cpp"
    subprocess.run([*command, source, "-o", folder / "check_engine"], check=True)
    return folder / "check_engine"


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"ftrt" + bytes(96))
    path.with_name(f"{NAME}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    record(path)
    return path


def record(engine, factor=2, **options):
    samples = []
    for rows in (1, 3):
        x = np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)
        arrays = {"x": x, "y": (factor * x).astype(np.float32)}
        given = {name: ("float32", each.shape, each.tobytes()) for name, each in arrays.items()}
        samples.append(({"x": given["x"]}, {"y": given["y"]}))
    target = f"{engine}{RECORDED_SUFFIX}"
    recorded_file.write(target, samples, {"atol": 0.01, "rtol": 0.0, "metric": "elemwise", **options})


def run(program, engine, **environment):
    env = {**os.environ, **environment}
    done = subprocess.run([program, engine], env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_the_example_checks_an_engine_by_what_was_recorded(program, engine):
    status, lines = run(program, engine)
    assert (status, lines) == (0, [f"OK 000{n}/outputs/y: 0 of the bound" for n in (0, 1)])
    status, lines = run(program, engine, OFF="0.5")
    assert (status, [line.split()[0] for line in lines]) == (1, ["FAILED", "FAILED"])
    assert "50 of the bound" in lines[0]
    assert run(program, engine, OFF="0.005")[0] == 0
    assert [run(program, engine, OFF=off)[0] for off in ("nan", "inf")] == [1, 1]


def test_the_example_refuses_what_it_cannot_check(program, engine):
    record(engine, metric="cosine")
    assert run(program, engine)[1] == [f"FAILED {engine}{RECORDED_SUFFIX}: another metric than elemwise"]
    record(engine)
    engine.write_bytes(b"ftrt" + bytes(95) + b"x")
    assert run(program, engine)[1] == [f"FAILED {engine}: its sha256 does not match its sidecar"]
    engine.with_name(f"{NAME}{RECORDED_SUFFIX}").unlink()
    assert run(program, engine)[1] == [f"FAILED {engine}{RECORDED_SUFFIX}: missing or damaged"]
