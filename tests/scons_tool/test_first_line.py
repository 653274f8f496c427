"""The first line of a run: hardware, runtime and why, in 80 columns."""

from pathlib import Path

import pytest
from boards import JETSON

from scons_tensorrt.hardware.choose_hardware import BUILT_IN, Hardware, resolve
from scons_tensorrt.hardware.probe_host import Host
from scons_tensorrt.hardware.runtime import Runtime
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.scons_tool.console import Console
from scons_tensorrt.scons_tool.run_messages import RunMessages

REPO = Path(__file__).parents[2]
NAMES = sorted({*BUILT_IN, *(path.stem for path in (REPO / "hardware").glob("*.json"))})


def runtime(product: str) -> Runtime:
    return Runtime(product, {"tensorrt": "10.13.3.9", "tensorrt_rtx": "1.7.1.116"}[product], "13.0", "", "")


def first_lines(hardware: Hardware, capsys) -> list[str]:
    RunMessages(Console(False, False), dry=False).hardware(hardware)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_named_hardware(name, capsys):
    (line,) = first_lines(resolve(name, REPO, runtime), capsys)
    assert line.startswith(f"engines: for {name} (")
    assert line.endswith(f"): HARDWARE={name}")
    assert " TensorRT " in line.replace("(", " ")
    assert len(line) <= 80


def test_a_host_without_a_gpu(tmp_path, capsys):
    (line,) = first_lines(resolve(None, tmp_path, runtime, host=Host(tmp_path)), capsys)
    assert line == "engines: for rtx_portable (TensorRT for RTX 1.7.1.116): no NVIDIA GPU found"


ORIN = {"gpu_name": "Orin", "jetpack": "6.2.1"}
DESKTOP = {"gpu_name": "NVIDIA GeForce RTX 4090", "cuda": "13.0", "runtime_version": "10.13.3.9"}


@pytest.mark.parametrize("fields", [ORIN, DESKTOP], ids=["orin", "desktop"])
def test_a_probed_host(fields, capsys):
    signature = HardwareSignature.from_json({**JETSON, **fields}, "test")
    line, note = first_lines(Hardware(None, signature, "probed", note="this is the first of 2"), capsys)
    assert line.startswith(f"engines: for this host ({signature.gpu_name}, ")
    assert line.endswith("): probed")
    assert len(line) <= 80
    assert note == "engines: this is the first of 2"
