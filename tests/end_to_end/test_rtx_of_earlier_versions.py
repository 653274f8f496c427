"""Engines of TensorRT for RTX that were built when operating system and machine were in the cache key, and
`rtx_portable` was a list of architectures."""

import json
import platform
from pathlib import Path

import pytest

from conftest import Tree
from scons_tensorrt.artifact.cache_key import make_key

DEFAULT = "80,86,89,120,121"


def as_written_before(tree: Tree, **more: str) -> None:
    """Let the receipts have the ingredients that they had then."""
    then = {"os": "linux", "machine": platform.machine(), **more}
    for path in tree.path(".trt/receipts").glob("*/*.json"):
        data = json.loads(path.read_text())
        data["ingredients"] |= {f"hardware {name}": value for name, value in then.items()}
        data["hardware"]["signature"] |= {"os": "linux", "machine": platform.machine()}
        data["key"] = make_key(data["engine"], data["ingredients"])
        path.unlink()
        path.with_name(f"{data['key']}.{data['sha256'][:16]}.json").write_text(json.dumps(data))
    tree.path(".sconsign.dblite").unlink()


def test_engines_of_one_architecture_are_reused(two: Tree, tmp_path: Path) -> None:
    assert two.scons("engines", "HARDWARE=rtx_sm89").built == ["a", "b"]
    as_written_before(two)
    before = two.snapshot("engines")
    assert two.scons("-q", "engines", "HARDWARE=rtx_sm89").status == 0
    run = two.scons("engines", "HARDWARE=rtx_sm89")
    assert (run.status, run.reused, two.snapshot("engines")) == (0, ["a", "b"], before), run.out
    clone = two.copy(tmp_path / "clone", "models", "SConstruct", "engines", ".trt")
    assert clone.scons("engines", "HARDWARE=rtx_sm89").reused == ["a", "b"]


def test_engines_of_the_list_are_rebuilt_once_for_the_default_target(built: Tree) -> None:
    as_written_before(built, architectures=DEFAULT)
    run = built.scons()
    assert run.built == ["a", "b"]
    assert run.reason("a") == f"hardware architectures changed: {DEFAULT} → 8.0 and later"
    assert built.scons().reused == ["a", "b"]


@pytest.mark.parametrize("listed", [True, False])
def test_a_hardware_file_of_then_is_the_default_target(two: Tree, listed: bool) -> None:
    fields = {"schema": 1, "product": "tensorrt_rtx", "compute_capability": "8.0+"}
    then = {"os": "qnx", "machine": "riscv64", "architectures": [80, 86, 89, 120, 121]}
    two.path("hardware").mkdir()
    two.path("hardware/rtx_portable.json").write_text(json.dumps(fields | then if listed else fields))
    assert two.scons("engines", "HARDWARE=rtx_portable").built == ["a", "b"]
    two.path("hardware/rtx_portable.json").unlink()
    assert two.scons("engines", "HARDWARE=rtx_portable").reused == ["a", "b"]
