"""The real TensorRT 8 without a GPU: the worker imports it over stubs of cuBLAS and cuDNN.

Skipped unless TENSORRT_8 is a Python that has it. Its wheels are too large for a test to install:

    python3.10 -m venv /tmp/8.6 && /tmp/8.6/bin/pip install --no-deps tensorrt==8.6.0  # or 3.8 and 8.5.2.2
    TENSORRT_8=/tmp/8.6/bin/python python3 -m pytest tests/build/test_tensorrt_8.py
"""

import importlib.util
import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
from surface import FOLDER

from conftest import Tree, hardware, make_model

PYTHON = os.environ.get("TENSORRT_8", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="TENSORRT_8 is not set to a Python with TensorRT 8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Version, folder and stubs of the TensorRT."""
    query = Path(importlib.util.find_spec("scons_tensorrt.hardware.installed_tensorrt").origin).read_text()
    said = subprocess.run([PYTHON, "-c", query], capture_output=True, text=True, check=True).stdout
    found = json.loads(said)["products"]["tensorrt"]
    stubs = tmp_path_factory.mktemp("stubs")
    make_stubs = [PYTHON, FOLDER / "stub_libraries.py", Path(found["folder"], "tensorrt"), stubs]
    subprocess.run(make_stubs, check=True)
    return found["version"], stubs


def test_the_surface_of_the_tests_is_that_of_the_bindings(installed):
    version, stubs = installed
    said = subprocess.run(
        [PYTHON, FOLDER / "extract.py"],
        env={**os.environ, "LD_LIBRARY_PATH": str(stubs)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = json.loads(said)["api"]
    known = json.loads((FOLDER / f"tensorrt-{version.replace('8.6.0', '8.6.1')}.json").read_text())["api"]
    if version == "8.6.0":  # its parser has no flags yet
        assert known.pop("OnnxParserFlag")
        known["OnnxParser"] = {n: p for n, p in known["OnnxParser"].items() if "flag" not in n}
    assert {name: sorted(members) for name, members in found.items()} == {
        name: sorted(members) for name, members in known.items()
    }


def test_the_worker_imports_it_and_says_in_one_line_that_there_is_no_driver(installed, tree: Tree, driver):
    version, stubs = installed
    fields = {"runtime_version": version, "machine": platform.machine(), "jetpack": None, "cuda": "12.0"}
    hardware(tree.path("hardware/board.json"), **fields)
    tree.environment |= {"TRT_PYTHON": PYTHON, "TRT_HARDWARE": "board", "LD_LIBRARY_PATH": f"{stubs}"}
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    run = tree.scons()
    assert "the GPU cannot be queried: libcuda cannot be loaded" in run.reason("a")
    run = tree.scons(LD_LIBRARY_PATH=f"{stubs}:{driver}")  # a driver that answers the probe, and no more
    assert run.failed == ["a"]
    assert f"TensorRT {version} cannot create a builder: no CUDA driver, or one older" in run.reason("a")
    assert len(run.lines("FAILED")) == 1
    assert "Traceback" not in run.out
