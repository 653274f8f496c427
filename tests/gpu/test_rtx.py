"""TensorRT for RTX on a GPU. Its support matrix has no data-center GPUs: on one, a refusal is the answer,
and the test is skipped with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_host import TIMES, built, check_against_recorded, load, record_two

from conftest import Tree
from scons_tensorrt.hardware.signature import RTX_DEFAULT

pytest_plugins = ["gpu_host"]

PORTABLE = "HARDWARE=rtx_portable"


def loaded(tree: Tree, gpu: dict[str, Any], *cache: str) -> dict[str, float]:
    """The times of loading engine `a`; skips the test if this GPU is not in the support matrix."""
    done = load(tree, tree.engine("a"), "tensorrt_rtx", *cache)
    sm = int(gpu["compute_capability"].replace(".", ""))
    if done.returncode and sm not in RTX_DEFAULT and sm <= max(RTX_DEFAULT):
        pytest.skip(f"TensorRT for RTX refuses SM {sm}: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_engine_of_the_default_target_loads(rtx: Tree, gpu: dict[str, Any], network) -> None:
    """Proves that an engine compiled for no GPU in particular runs on this one."""
    network(rtx)
    rtx.write('env.Engine("a", "models/a.onnx")')
    built(rtx, "RTX: compile for the default target", PORTABLE)
    assert loaded(rtx, gpu)["inputs"] == 2


def test_a_runtime_cache_makes_the_second_start_quicker(
    rtx: Tree, gpu: dict[str, Any], network, tmp_path: Path
) -> None:
    """Proves nothing of ours: a figure for the docs, and that the cache is accepted."""
    network(rtx, depth=8, width=64)
    rtx.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    built(rtx, "RTX: compile, fp16, ten convolutions", PORTABLE)
    cache = str(tmp_path / "runtime.cache")
    cold, warm = loaded(rtx, gpu, cache), loaded(rtx, gpu, cache)
    TIMES.append(("RTX: execution context, no runtime cache", cold["context"]))
    TIMES.append(("RTX: execution context, with runtime cache", warm["context"]))
    assert warm["context"] <= cold["context"] * 1.5


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_is_compared_with_its_original(
    rtx: Tree, gpu: dict[str, Any], network, precision: str
) -> None:
    """Proves that an engine is run on the GPU before it is published, within its bound."""
    network(rtx)
    rtx.write(f"""
        env.Engine("a", "models/a.onnx", precision="{precision}",
                   accuracy=dict(inputs="models/a.npz", rtol=0.01, atol=0.05))
        """)
    built(rtx, f"RTX: compile and compare, {precision}")
    loaded(rtx, gpu)
    found = rtx.receipt("a")["accuracy"]["engine"]
    assert isinstance(found, dict), found
    assert found["gpu"] == gpu["gpu_name"]
    assert found["outputs"]["y"]["max_abs"] < 0.05


def test_rows_of_a_batch_do_not_touch_each_other(rtx: Tree, gpu: dict[str, Any], network) -> None:
    """Proves that the corners of a profile are run on the engine, too."""
    network(rtx, batch="n")
    rtx.write("""
        env.Engine("a", "models/a.onnx", precision="fp16",
                   shapes={"x": ((1, 8, 32, 32), (2, 8, 32, 32), (8, 8, 32, 32))},
                   accuracy=dict(rtol=0.01, atol=0.05))
        """)
    built(rtx, "RTX: compile and compare at every corner")
    loaded(rtx, gpu)
    assert isinstance(rtx.receipt("a")["accuracy"]["engine"], dict)


def test_another_architecture_is_refused_before_the_runtime_sees_it(
    rtx: Tree, gpu: dict[str, Any], network
) -> None:
    """Proves that `verify` on this host knows that its GPU is not the engine's."""
    network(rtx)
    rtx.write('env.Engine("a", "models/a.onnx")')
    sm = next(each for each in RTX_DEFAULT if each != int(gpu["compute_capability"].replace(".", "")))
    built(rtx, "RTX: compile for one other SM", f"HARDWARE=rtx_sm{sm}")
    verify = [sys.executable, "-m", "scons_tensorrt", "verify", str(rtx.engine("a"))]
    done = subprocess.run([*verify, "--hardware", PORTABLE.partition("=")[2]], env=rtx.env(), text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 11, done.stdout


def test_an_engine_is_checked_by_what_was_recorded(rtx: Tree, gpu: dict[str, Any], network) -> None:
    """Proves that `check` runs an engine on this GPU, and finds outputs that are not the recorded ones."""
    record_two(rtx, network)
    built(rtx, "RTX: compile and record")
    loaded(rtx, gpu)
    check_against_recorded(rtx, gpu)
