"""Engines that the aarch64 runtime of TensorRT for RTX compiles. AARCH64_PYTHON names an interpreter that
make_python.sh made; without it, these tests are skipped."""

import os
from pathlib import Path

import pytest

from conftest import Tree, make_model

PYTHON = os.environ.get("AARCH64_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="AARCH64_PYTHON is not set; see make_python.sh")


@pytest.fixture
def static(tree: Tree) -> Tree:
    """Two models, one in fp16."""
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    tree.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Engine("b", "models/b.onnx", precision="fp16")
        """
    )
    return tree


def bytes_of(tree: Tree) -> dict[str, str]:
    return {name: digest for name, (digest, _) in tree.snapshot("engines").items()}


def test_both_machines_compile_the_same_bytes(static: Tree, tmp_path: Path) -> None:
    there = static.copy(tmp_path / "there", "models", "SConstruct")
    assert static.scons("engines").built == ["a", "b"]
    there.environment["TRT_PYTHON"] = PYTHON
    run = there.scons("engines")
    assert run.built == ["a", "b"], run.out
    assert bytes_of(there) == bytes_of(static)
    assert there.receipt("a")["key"] == static.receipt("a")["key"]
    assert there.receipt("a")["worker"]["machine"] == "aarch64"


def test_each_machine_reuses_what_the_other_built(static: Tree, tmp_path: Path) -> None:
    static.scons("engines")
    there = static.copy(tmp_path / "there", "models", "SConstruct", "engines", ".trt")
    there.environment["TRT_PYTHON"] = PYTHON
    assert there.scons("engines").reused == ["a", "b"]
