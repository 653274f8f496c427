"""`scons engines-prune` where links or shared folders lead to what belongs to others."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Tree, hardware, make_model

UNKNOWN = ("sm_count", "memory_gib", "memory_bus_bits", "l2_bytes", "gpu_name", "integrated", "jetpack")
DESK = {
    **dict.fromkeys(UNKNOWN),
    "product": "tensorrt_rtx",
    "runtime_version": "1.7.1.116",
    "cuda": "13.0",
    "machine": None,
    "compute_capability": "8.9",
}
GONE = "gone__sm80plus_cu13.0_rtx1.7_fp32"


def test_two_trees_whose_engines_are_one_folder_keep_each_others(tmp_path: Path) -> None:
    trees = []
    (tmp_path / "shared").mkdir()
    for name in ("a", "b"):
        tree = Tree(tmp_path / name)
        make_model(tree.path("models/m.onnx"))
        tree.write(f'env.Engine("{name}", "models/m.onnx")')
        tree.path("engines").symlink_to(tmp_path / "shared")
        tree.environment["TRT_STATE_DIR"] = str(tmp_path / "state")
        assert tree.scons().status == 0
        trees.append(tree)
    run = trees[0].scons("engines-prune", "PRUNE=yes")
    assert run.status == 0, run.out
    assert not run.lines("PRUNED")
    assert "kept by KEEP=" not in run.out
    assert sorted(trees[1].engines()) == ["a", "b"]

    trees[1].write('env.Engine("a", "models/m.onnx")')  # now nobody wants b
    assert trees[1].scons().status == 0
    assert len(trees[1].scons("engines-prune", "PRUNE=yes").lines("PRUNED")) == 1
    assert sorted(trees[1].engines()) == ["a"]


@pytest.mark.parametrize("folder", ["receipts", f"receipts/{GONE}", "logs", "locks", "partial"])
def test_nothing_behind_a_link_in_the_state_folder_is_removed(
    built: Tree, tmp_path: Path, folder: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    log = built.path(f".trt/logs/{GONE}.engine.0123456789abcdef.log")
    log.write_text("x")
    for name in (
        f"{'0' * 64}.{'0' * 16}.json",
        f"{GONE}/{'0' * 64}.{'0' * 16}.json",
        log.name,
        "0123456789abcdef/precious",
    ):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("{}")
    place = built.path(f".trt/{folder}")
    if place.exists():
        place.rename(tmp_path / "aside")
    place.symlink_to(elsewhere)
    before = {*elsewhere.rglob("*")}
    run = built.scons("engines-prune", "PRUNE=yes")
    assert run.status == 0, run.out
    assert before <= {*elsewhere.rglob("*")}  # a lock may have been taken there


def test_a_file_beside_receipts_that_is_none_stays(built: Tree) -> None:
    folder = built.path(f".trt/receipts/{GONE}")
    folder.mkdir()
    for name in ("notes.json", f"{'0' * 64}.{'0' * 16}.json"):
        (folder / name).write_text("{}")
    assert built.scons("engines-prune", "PRUNE=yes").status == 0
    assert [path.name for path in folder.iterdir()] == ["notes.json"]


def test_a_state_folder_that_is_a_link_is_not_pruned(built: Tree, tmp_path: Path) -> None:
    built.path(".trt").rename(tmp_path / "state")
    built.path(".trt").symlink_to(tmp_path / "state")
    built.write('env.Engine("a", "models/a.onnx")')
    run = built.scons("engines-prune", "PRUNE=yes")
    assert run.status == 2
    assert "engines-prune: .trt is a link to" in run.out
    assert sorted(built.engines()) == ["a", "b"]


def test_an_engine_of_other_hardware_that_another_tree_may_want_stays(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    trees = []
    for name in ("a", "b"):
        tree = Tree(tmp_path / name)
        make_model(tree.path("models/m.onnx"))
        tree.write(f'env.Engine("{name}", "models/m.onnx")')
        tree.path("engines").symlink_to(tmp_path / "shared")
        tree.environment["TRT_STATE_DIR"] = str(tmp_path / "state")
        hardware(tree.path("hardware/desk.json"), **DESK)
        trees.append(tree)
    assert trees[1].scons("engines", "HARDWARE=desk").status == 0
    assert trees[1].scons("engines").status == 0  # its last run is of another hardware
    assert trees[0].scons().status == 0
    run = trees[0].scons("engines-prune", "PRUNE=yes")
    assert run.status == 0, run.out
    assert not run.lines("PRUNED"), run.out
    assert len(list((tmp_path / "shared").rglob("b__*.engine"))) == 2


@pytest.fixture
def neighbour(built: Tree, tmp_path: Path) -> Tree:
    """A tree with the same engines and its own state folder; `built` no longer declares b."""
    built.write('env.Engine("a", "models/a.onnx")')
    return built.twin(tmp_path / "neighbour")


def test_engines_that_a_link_leads_to_are_kept_without_a_shared_state_folder(
    built: Tree, neighbour: Tree
) -> None:
    shutil.rmtree(built.path("engines"))
    built.path("engines").symlink_to(neighbour.path("engines"))
    run = built.scons("engines-prune", "PRUNE=yes")
    assert run.status == 0, run.out
    assert "engines/ is kept: it is outside of the tree, or a link or mount leads to it" in run.out
    assert not run.lines("PRUNED")
    assert sorted(neighbour.engines()) == ["a", "b"]
    assert len(list(built.path(".trt/receipts").iterdir())) == 2


def test_engines_that_are_mounted_are_kept_without_a_shared_state_folder(
    built: Tree, neighbour: Tree
) -> None:
    command = shlex.join(built.command("-Q", "engines-prune", "PRUNE=yes"))
    script = f"mount --bind {shlex.quote(str(neighbour.path('engines')))} engines && exec {command}"
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=built.root, env=built.env(), capture_output=True, text=True
    )
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip(run.stderr)
    assert run.returncode == 0, run.stderr
    assert "engines/ is kept" in run.stdout
    assert sorted(neighbour.engines()) == ["a", "b"]


def test_receipts_of_engines_in_a_linked_hardware_folder_are_kept(built: Tree, tmp_path: Path) -> None:
    assert built.scons("engines", "HARDWARE=rtx_sm89").status == 0
    built.path("engines/rtx_sm89").rename(tmp_path / "elsewhere")
    built.path("engines/rtx_sm89").symlink_to(tmp_path / "elsewhere")
    built.write('env.Engine("a", "models/a.onnx")')
    run = built.scons("engines-prune", "PRUNE=yes")
    assert run.status == 0, run.out
    assert "engines/rtx_sm89/ is kept" in run.out
    assert [path.name[:12] for path in built.path(".trt/receipts").glob("b__*")] == ["b__sm89_cu13"]
    assert len(list((tmp_path / "elsewhere").glob("*.engine"))) == 2
