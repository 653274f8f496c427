"""What the driver tells, and one compile at a time on a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from gpu_host import version_of

from conftest import Tree

pytest_plugins = ["gpu_host"]


def smi(*fields: str) -> dict[str, str]:
    if not shutil.which("nvidia-smi"):
        pytest.skip("nvidia-smi is not installed")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    first = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return dict(zip(fields, (value.strip() for value in first.split(",")), strict=True))


def test_the_driver_and_nvidia_smi_agree(gpu: dict[str, Any]) -> None:
    """Proves that each field of the device class is read at the right place of the driver."""
    told = smi("name", "uuid", "compute_cap", "memory.total")
    assert gpu["gpu_name"] == told["name"]
    assert gpu["uuid"] in told["uuid"].replace("-", "")
    assert gpu["compute_capability"] == told["compute_cap"]
    reserved_mib = float(told["memory.total"]) - gpu["memory_bytes"] / 2**20
    assert 0 <= reserved_mib < 1024
    assert gpu["sm_count"] > 0
    assert gpu["memory_bus_bits"] % 32 == 0
    assert 64 <= gpu["memory_bus_bits"] <= 8192
    assert gpu["l2_bytes"] >= 1 << 18
    assert gpu["integrated"] is False


def test_probe_writes_a_hardware_file_that_builds_for_this_host(gpu: dict[str, Any], tree: Tree) -> None:
    """Proves that a probe and a hardware file of it are the same hardware: same key, same filename."""
    version_of("tensorrt-rtx")
    probe = [sys.executable, "-m", "scons_tensorrt", "probe", "--json", "--backend", "tensorrt_rtx"]
    done = subprocess.run(probe, env=tree.env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["compute_capability"] == gpu["compute_capability"]
    tree.path("hardware").mkdir()
    tree.path("hardware/here.json").write_text(done.stdout)
    again = subprocess.run([*probe[:-2], "--hardware", "here"], cwd=tree.root, env=tree.env(), text=True,
                           capture_output=True, check=False)  # fmt: skip
    assert json.loads(again.stdout) == fields


def test_two_builds_take_turns_on_the_gpu(tensorrt: Tree, network, tmp_path: Path) -> None:
    """Proves that the lock by UUID holds between processes: compiles of two trees never overlap."""
    network(tensorrt, depth=6, width=64)
    tensorrt.write('env.Engine("a", "models/a.onnx")')
    other = tensorrt.copy(tmp_path / "other", "models", "SConstruct")
    runs: list[Any] = []
    threads = [
        threading.Thread(target=lambda tree=tree: runs.append(tree.scons())) for tree in (tensorrt, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.built for run in runs] == [["a"], ["a"]], [run.out for run in runs]
    spans = []
    for tree in (tensorrt, other):
        receipt = tree.receipt("a")
        spans.append((receipt["started"], receipt["duration_s"]))
    spans.sort()
    first_ends = _seconds(spans[0][0]) + spans[0][1]
    assert first_ends <= _seconds(spans[1][0]) + 1, spans  # starts are in whole seconds


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
