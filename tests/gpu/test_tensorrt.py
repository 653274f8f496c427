"""The `tensorrt` product on a GPU, in whatever version is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from gpu_host import TIMES, built, check_against_recorded, load, record_two, version_of

from conftest import Tree, sha256

pytest_plugins = ["gpu_host"]

MODULE = "tensorrt"


def version() -> tuple[int, ...]:
    return version_of("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_is_built_compared_and_loaded(tensorrt: Tree, gpu, network, precision: str) -> None:
    """Proves the whole backend: parser, builder, gate on the engine, sidecar, loading."""
    network(tensorrt)
    tensorrt.write(f"""
        env.Engine("a", "models/a.onnx", precision="{precision}",
                   accuracy=dict(inputs="models/a.npz", rtol=0.01, atol=0.05))
        """)
    run = built(tensorrt, f"TensorRT: compile and compare, {precision}")
    assert run.lines("CHECKED"), run.out
    assert tensorrt.receipt("a")["accuracy"]["engine"]["gpu"] == gpu["gpu_name"]
    done = load(tensorrt, tensorrt.engine("a"), MODULE)
    assert done.returncode == 0, done.stderr
    TIMES.append((f"TensorRT: deserialize, {precision}", json.loads(done.stdout)["load"]))


@pytest.mark.parametrize("by", ["calibrator", "qdq"])
def test_int8_is_within_its_bound(tensorrt: Tree, network, by: str) -> None:
    """Proves that TensorRT calls our calibrator as documented, and takes our Q/DQ nodes."""
    if by == "calibrator" and version() >= (11,):
        pytest.skip("TensorRT 11 has no calibrators")
    network(tensorrt)
    way = ', by="calibrator"' if by == "calibrator" else ""
    tensorrt.write(f"""
        env.Engine("a", "models/a.onnx", precision="int8",
                   calibration=dict(inputs="models/a.npz"{way}),
                   accuracy=dict(inputs="models/a.npz", metric="cosine", atol=0.02))
        """)
    built(tensorrt, f"TensorRT: int8 by {by}")
    assert tensorrt.receipt("a")["accuracy"]["engine"]["outputs"]["y"]["cosine"] > 0.98
    assert tensorrt.path(".trt/calibration").exists() == (by == "calibrator")


def test_a_timing_cache_saves_time(tensorrt: Tree, network) -> None:
    """Proves that the timing cache is written, read back and accepted."""
    network(tensorrt, depth=12, width=96)
    tensorrt.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    environment = {"TRT_CACHE_SIZE": "0"}
    built(tensorrt, "TensorRT: compile, no timing cache", **environment)
    first = tensorrt.receipt("a")["duration_s"]
    tensorrt.write('env.Engine("a", "models/a.onnx", precision="fp16", workspace_mb=4095)')
    built(tensorrt, "TensorRT: compile, with timing cache", **environment)
    second = tensorrt.receipt("a")["duration_s"]
    assert second < first, (first, second)


def test_recorded_kernels_are_used_again_and_a_missing_one_is_named(tensorrt: Tree, network) -> None:
    """Proves that an editable timing cache pins the kernels, that TensorRT fails at a layer without an entry,
    and that its log names that layer. Prints whether two pinned builds have the same bytes."""
    if version() < (10, 13):
        pytest.skip("TensorRT before 10.13 has no editable timing cache in Python")
    network(tensorrt, depth=4, width=64)
    tensorrt.write('env.Engine("a", "models/a.onnx", timing_cache="models/a.cache")')
    run = built(tensorrt, "TensorRT: record kernels, and compile with them", "TIMING=record")
    assert len(run.lines("RECORDED")) == 1
    kernels = tensorrt.receipt("a")["kernels"]
    assert kernels
    first = sha256(tensorrt.engine("a"))
    tensorrt.engine("a").unlink()
    built(tensorrt, "TensorRT: compile with pinned kernels", TRT_CACHE_SIZE="0")
    again = tensorrt.receipt("a")["kernels"]
    assert {key: text.split()[0] for key, text in again.items()} == {
        k: t.split()[0] for k, t in kernels.items()
    }
    print("pinned builds:", "equal" if sha256(tensorrt.engine("a")) == first else "different", "bytes")
    network(tensorrt, depth=4, width=128)
    run = tensorrt.scons()
    assert run.failed == ["a"]
    assert re.search(r"it has no kernel for layer \S+ \(key 0x[0-9a-f]+\)", run.reason("a")), run.out
    run = built(tensorrt, "TensorRT: record the kernels of a wider network", "TIMING=record")
    assert set(tensorrt.receipt("a")["kernels"]) > set(kernels)


def test_hardware_that_is_not_this_is_refused(tensorrt: Tree, network) -> None:
    """Proves that no engine is compiled on the wrong board."""
    network(tensorrt)
    tensorrt.write('env.Engine("a", "models/a.onnx")')
    probe = [sys.executable, "-m", "scons_tensorrt", "probe", "--json"]
    fields = json.loads(
        subprocess.run(probe, env=tensorrt.env(), capture_output=True, text=True, check=True).stdout
    )
    fields["sm_count"] += 1
    tensorrt.path("hardware").mkdir()
    tensorrt.path("hardware/other.json").write_text(json.dumps(fields))
    run = tensorrt.scons("engines", "HARDWARE=other")
    assert run.failed == ["a"]
    assert "HardwareMismatchError" in run.reason("a")
    assert f"sm_count: wanted {fields['sm_count']}" in run.out


def test_reproduce_compares_bytes(tensorrt: Tree, network) -> None:
    """Proves that a second compile runs and is compared: EQUAL, or DIFFERENT, which TensorRT may be."""
    network(tensorrt)
    tensorrt.write('env.Engine("a", "models/a.onnx")')
    built(tensorrt, "TensorRT: compile, fp32")
    command = [sys.executable, "-m", "scons_tensorrt", "reproduce", str(tensorrt.engine("a"))]
    done = subprocess.run(
        command, cwd=tensorrt.root, env=tensorrt.env(), capture_output=True, text=True, check=False
    )
    assert done.stdout.split(" ")[0] in ("EQUAL", "DIFFERENT"), done.stdout + done.stderr


def test_tampered_bytes_never_reach_the_runtime(tensorrt: Tree, network) -> None:
    """Proves that load_verified stops what deserialize_cuda_engine might crash on."""
    network(tensorrt)
    tensorrt.write('env.Engine("a", "models/a.onnx")')
    built(tensorrt, "TensorRT: compile, fp32, again")
    data = bytearray(tensorrt.engine("a").read_bytes())
    for place in np.random.default_rng(1).integers(64, len(data), 20):
        data[place] ^= 0xFF
    tensorrt.engine("a").write_bytes(data)
    done = load(tensorrt, tensorrt.engine("a"), MODULE)
    assert done.returncode == 1
    assert "SidecarError" in done.stderr


def test_an_engine_is_checked_by_what_was_recorded(tensorrt: Tree, gpu, network) -> None:
    """Proves that `check` runs an engine on this GPU, and finds outputs that are not the recorded ones."""
    record_two(tensorrt, network)
    built(tensorrt, "TensorRT: compile and record")
    check_against_recorded(tensorrt, gpu)
