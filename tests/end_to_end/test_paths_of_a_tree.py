"""One tree under several paths, with a state folder outside of it or reached by another path: what is
made under one path is found under the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Tree, make_model


@pytest.fixture
def half(tree: Tree, tmp_path: Path) -> Tree:
    """A tree with a conversion, whose state folder is outside."""
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    tree.environment["TRT_STATE_DIR"] = str(tmp_path / "state")
    return tree


@contextlib.contextmanager
def bound(tree: Tree, place: Path) -> Iterator[Tree]:
    """The same tree at another place."""
    place.mkdir()
    if subprocess.run(["mount", "--bind", tree.root, place], capture_output=True, check=False).returncode:
        pytest.skip("no bind mounts here")
    try:
        yield Tree.at(place, tree.environment)
    finally:
        subprocess.run(["umount", place], check=True)


def converted(state: Path) -> list[Path]:
    return sorted(path for path in state.glob("onnx/**/*.onnx"))


def test_a_bind_mount_of_a_tree_uses_what_the_tree_made(half: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert half.scons().built == ["a"]
    files = converted(state)
    with bound(half, tmp_path / "other") as other:
        assert other.scons("-n", "engines").names("WOULD REUSE") == ["a"]
        assert other.scons().reused == ["a"]
        assert converted(state) == files
        assert len(list(state.glob("declared/*.json"))) == 1
        assert other.scons("engines-prune").status == 0
        (other.root / "models/a.onnx").unlink()
        make_model(other.path("models/a.onnx"), seed=2)
        assert other.scons().built == ["a"]
    assert half.scons().reused == ["a"]
    assert converted(state) == files
    assert len(list(state.glob("locks/a__*.lock"))) == 1


@pytest.mark.slow
def test_two_containers_with_one_tree_at_different_places(half: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert half.scons().built == ["a"]
    files = converted(state)
    inner = tmp_path / "inner"
    inner.mkdir()
    hide = f'mount --bind "{half.root}" "{inner}" && mount -t tmpfs none "{half.root}" && cd "{inner}"'
    script = f'{hide} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *half.command("engines")],
        cwd=tmp_path,
        env=half.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "SCons" not in done.stdout and "scons" not in done.stdout:
        pytest.skip("no mount namespaces here")
    assert "REUSED" in done.stdout, done.stdout
    assert converted(state) == files
    assert half.scons().reused == ["a"]


def test_a_state_folder_of_an_earlier_version_serves_both_paths(half: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert half.scons().built == ["a"]
    shutil.rmtree(state / "trees")  # as it was
    files = converted(state)
    with bound(half, tmp_path / "other") as other:
        assert other.scons().reused == ["a"]
        assert half.scons().reused == ["a"]
    assert converted(state) == files


@pytest.mark.slow
def test_another_tree_that_comes_to_a_path_does_not_take_the_first_ones_files(
    half: Tree, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    second = half.copy(tmp_path / "second", "models", "SConstruct")
    assert half.scons().built == ["a"]
    with bound(half, tmp_path / "other") as other:
        assert other.scons().reused == ["a"]
    (tmp_path / "other").rmdir()
    with bound(second, tmp_path / "other") as other:
        assert other.scons().built + other.scons().reused == ["a", "a"]
        assert len(converted(state)) == 2
    assert half.scons().reused == ["a"]


@pytest.mark.slow
def test_two_trees_that_take_turns_at_one_path_keep_their_own_conversions(half: Tree, tmp_path: Path) -> None:
    second = half.copy(tmp_path / "second", "models", "SConstruct")
    make_model(second.path("models/a.onnx"), seed=2)
    files: list[Path] = []
    for turn in range(4):
        with bound((half, second)[turn % 2], tmp_path / "work") as here:
            run = here.scons()
            assert run.status == 0, run.out
            if turn == 3:
                assert converted(tmp_path / "state") == files
                assert run.reused == ["a"]
            files = converted(tmp_path / "state")
        (tmp_path / "work").rmdir()
    assert len(files) == 2
    assert len(list((tmp_path / "state/declared").glob("*.json"))) == 2
    stamps = [file.stat().st_mtime_ns for file in files]
    for each in (half, second):
        with bound(each, tmp_path / "work") as here:
            assert here.scons().reused == ["a"]
            assert here.scons("engines-prune").status == 0
        (tmp_path / "work").rmdir()
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_prune_keeps_what_another_tree_at_the_path_needs(half: Tree, tmp_path: Path) -> None:
    second = half.copy(tmp_path / "second", "models")
    second.write('env.Engine("b", "models/a.onnx")')
    work, state = tmp_path / "work", tmp_path / "state"
    with bound(half, work) as here:
        assert here.scons().built == ["a"]
    work.rmdir()
    with bound(second, work) as here:
        assert here.scons().built == ["b"]
        here.write('env.Engine("c", "models/a.onnx")')
        assert here.scons().reused == ["c"]  # a copy of b
        run = here.scons("engines-prune", "PRUNE=yes")
        assert run.status == 0, run.out
        assert run.names("PRUNED") == ["b"]
        (kept,) = run.lines("engines: what other trees")
        assert kept.startswith(f"engines: what other trees at {work} declared is kept; once they are gone")
        saved = Path(kept.rpartition(" ")[2])
        assert saved.parent == state / "declared"
    work.rmdir()
    with bound(half, work) as here:
        assert here.scons().reused == ["a"]
    work.rmdir()
    with bound(second, work) as here:
        saved.unlink()
        assert len(here.scons("engines-prune", "PRUNE=yes").lines("PRUNED")) >= 1


@pytest.mark.slow
def test_prune_keeps_engines_in_a_folder_that_is_mounted_in_both_trees(half: Tree, tmp_path: Path) -> None:
    second = half.copy(tmp_path / "second", "models")
    second.write('env.Engine("b", "models/a.onnx")')
    work = tmp_path / "work"
    (tmp_path / "shared").mkdir()
    shared = Tree.at(tmp_path / "shared", half.environment)
    with bound(half, work) as here, bound(shared, work / "engines"):
        assert here.scons().built == ["a"]
    work.rmdir()
    with bound(second, work) as here, bound(shared, work / "engines"):
        assert here.scons().built == ["b"]
        here.write('env.Engine("c", "models/a.onnx")')
        assert here.scons().reused == ["c"]  # a copy of b
        assert here.scons("engines-prune", "PRUNE=yes").names("PRUNED") == ["b"]
    assert len(list(shared.root.glob("a__*"))) == 2


def test_a_state_folder_that_is_mounted_in_its_tree_is_not_pruned(half: Tree, tmp_path: Path) -> None:
    del half.environment["TRT_STATE_DIR"]
    other = half.copy(tmp_path / "other", "models")
    other.write('env.Engine("b", "models/a.onnx")')
    assert half.scons().built == ["a"]
    with bound(Tree.at(half.path(".trt"), {}), other.path(".trt")):
        assert other.scons().built == ["b"]
        run = other.scons("engines-prune", "PRUNE=yes")
        assert (run.status, run.lines("PRUNED")) == (2, [])
        assert ".trt is a mount, which other trees may share; mount it outside" in run.out
    assert half.scons().reused == ["a"]


def test_a_state_folder_in_the_tree_is_the_same_by_a_link(half: Tree, tmp_path: Path) -> None:
    del half.environment["TRT_STATE_DIR"]
    assert half.scons().built == ["a"]
    files = converted(half.path(".trt"))
    os.symlink(half.root, tmp_path / "link")
    assert half.scons("engines", TRT_STATE_DIR=str(tmp_path / "link/.trt")).reused == ["a"]
    assert converted(half.path(".trt")) == files
    assert not half.path(".trt/declared").exists()
    assert len(list(half.path(".trt").glob("locks/a__*.lock"))) == 1


def test_a_dollar_in_a_path(tmp_path) -> None:
    tree = Tree(tmp_path / "a$b")
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Install("firmware", env.Engine("a", "models/a.onnx"))')
    assert tree.scons("engines", "firmware", "ENGINE_DIR=out$x").built == ["a"]
    assert len(list(tree.path("firmware").iterdir())) == 2
    assert os.listdir(tmp_path) == ["a$b"]
    assert tree.scons("-q", "engines", "ENGINE_DIR=out$x").status == 0
    tree.scons("-c", "engines", "ENGINE_DIR=out$x")
    assert os.listdir(tree.path("out$x")) == []


def test_a_hash_in_names_is_no_top(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="#x.bin")
    tree.write('env.Engine("a", "models/a.onnx")')
    assert tree.scons("engines", "ENGINE_DIR=#out").built == ["a"]
    assert list(tree.engines("out")) == ["a"]
