"""Wherever the tree lies and however scons is called, engines are the same."""

import os
import resource
import shutil
import subprocess
import tempfile

import pytest

from conftest import HEADER, Tree, make_model, sha256


def test_directory_option(two: Tree, tmp_path) -> None:
    run = two.scons(f"--directory={two.root}", "engines", cwd=tmp_path)
    assert (run.status, run.built) == (0, ["a", "b"])
    assert sorted(two.engines()) == ["a", "b"]


def test_from_a_subfolder_with_u(two: Tree) -> None:
    run = two.scons("-u", "engines", cwd=two.path("models"))
    assert (run.status, run.built) == (0, ["a", "b"])
    assert run.lines("BUILT")[0].startswith("BUILT engines/a__")
    assert two.scons("-u", "engines", cwd=two.path("models")).reused == ["a", "b"]


def test_variant_dir_with_and_without_copies(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    for duplicate in (1, 0):
        tree.write(
            f'SConscript("models/SConscript", exports="env", variant_dir="build/v{duplicate}", '
            f"duplicate={duplicate})"
        )
        tree.write('Import("env")\nenv.Engine("a", "a.onnx")', "models/SConscript", header="")
        run = tree.scons()
        assert run.status == 0, run.out
        assert (run.built, run.reused) == ((["a"], []) if duplicate else ([], ["a"]))
        assert tree.scons("-q", "engines").status == 0


def test_a_node_of_a_subfolder_is_taken_as_it_is(tree: Tree) -> None:
    make_model(tree.path("sub/src/a.onnx"))
    tree.write('SConscript("sub/SConscript", exports="env")')
    tree.write('Import("env")\nenv.Engine("a", File("src/a.onnx"))', "sub/SConscript", header="")
    assert tree.scons().built == ["a"]


def test_spaces_and_letters_of_the_world(tmp_path) -> None:
    tree = Tree(tmp_path / "mein Ordner" / "größe 模型")
    make_model(tree.path("models/näme mit raum.onnx"), external="gewichte ü.bin")
    tree.write('env.Engine("a", "models/näme mit raum.onnx")')
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a"])
    assert tree.scons().reused == ["a"]
    assert tree.scons(LC_ALL="C").reused == ["a"]


def test_a_repository_gives_its_models(two: Tree, tmp_path) -> None:
    other = Tree(tmp_path / "other")
    other.write(f'Repository("{two.root}")\nenv.Engine("a", "models/a.onnx")')
    other.path("models").rmdir()
    assert other.scons().built == ["a"]
    assert other.scons().reused == ["a"]


def test_the_state_folder_may_lie_elsewhere(two: Tree, tmp_path) -> None:
    state = str(tmp_path / "state")
    assert two.scons(TRT_STATE_DIR=state).built == ["a", "b"]
    assert not two.path(".trt").exists()
    two.path(".sconsign.dblite").unlink()
    assert two.scons(TRT_STATE_DIR=state).reused == ["a", "b"]


def test_the_state_folder_may_lie_on_another_filesystem(two: Tree) -> None:
    if os.stat("/dev/shm").st_dev == os.stat(two.root).st_dev:
        pytest.skip("/dev/shm is not another filesystem here")
    state = tempfile.mkdtemp(dir="/dev/shm")
    try:
        run = two.scons(TRT_STATE_DIR=state)
        assert (run.status, run.built) == (0, ["a", "b"])
        assert two.scons(TRT_STATE_DIR=state).reused == ["a", "b"]
        assert not [p for p in two.path("engines").iterdir() if p.name.startswith(".")]
    finally:
        shutil.rmtree(state)


def test_static_shapes_in_two_clones_give_the_same_bytes(built: Tree, tmp_path) -> None:
    clone = built.copy(tmp_path / "a much longer path of a clone", "models", "SConstruct")
    assert clone.scons().built == ["a", "b"]
    for name, engine in built.engines().items():
        assert sha256(engine) == sha256(clone.engine(name))


def test_dynamic_shapes_twice_give_the_same_bytes_whatever_the_environment(tree: Tree, tmp_path) -> None:
    make_model(tree.path("models/a.onnx"), shape=("n", 8, "h", "w"))
    tree.write(
        """
        env.Engine("a", "models/a.onnx",
                   shapes={"x": ((1, 8, 16, 16), (2, 8, 32, 32), (4, 8, 64, 64))})
        """
    )
    assert tree.scons().built == ["a"]
    assert tree.receipt("a")["reproducible"] is True
    clone = tree.copy(tmp_path / "elsewhere" / ("x" * 99), "models", "SConstruct")
    noise = {"LANG": "de_DE.UTF-8", "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "7", "JUNK": "x" * 5000}
    limits = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, limits[1]))  # so it starts at stage 1
    try:
        assert clone.scons("-j3", "engines", **noise).built == ["a"]
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, limits)
    assert sha256(tree.engine("a")) == sha256(clone.engine("a"))


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_where_randomisation_cannot_be_switched_off_the_engine_is_built_and_its_receipt_says_so(
    tree: Tree,
) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    refuse = ["strace", "-f", "-o", os.devnull, "-e", "inject=personality:error=EPERM"]
    subprocess.run([*refuse, *tree.command("engines")], cwd=tree.root, env=tree.env(), check=True)
    receipt = tree.receipt("a")
    assert receipt["reproducible"] is False
    assert "personality: Operation not permitted" in receipt["not_reproducible_because"]


def test_two_environments_share_one_alias_and_one_summary(two: Tree) -> None:
    two.write(
        HEADER
        + """
env.Engine("a", "models/a.onnx")
other = env.Clone(TRT_HARDWARE="rtx_sm86")
other.Engine("a", "models/a.onnx")
""",
        header="",
    )
    run = two.scons()
    assert run.built == ["a", "a"]
    assert run.summary.startswith("engines: 0 reused, 2 built")


@pytest.mark.slow
def test_two_trees_that_share_a_state_folder_keep_to_their_own_model(tmp_path) -> None:
    state = str(tmp_path / "state")
    trees = [Tree(tmp_path / name) for name in ("one", "two")]
    for seed, tree in enumerate(trees):
        make_model(tree.path("models/a.onnx"), seed=seed, depth=8, width=32)
        tree.write('env.Engine("a", "models/a.onnx")')
    alone = []
    for tree in trees:
        assert tree.scons().built == ["a"]
        alone.append(sha256(tree.engine("a")))
        shutil.rmtree(tree.path("engines"))
        shutil.rmtree(tree.path(".trt"))
        tree.path(".sconsign.dblite").unlink()
    running = [tree.start("engines", TRT_STATE_DIR=state) for tree in trees]
    assert [process.wait() for process in running] == [0, 0]
    assert [sha256(tree.engine("a")) for tree in trees] == alone
    assert all(tree.scons(TRT_STATE_DIR=state).reused == ["a"] for tree in trees)


def test_two_state_folders_in_one_run_are_refused(two: Tree) -> None:
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Clone(TRT_STATE_DIR="other").Engine("b", "models/b.onnx")
        """
    )
    run = two.scons()
    assert run.status == 2
    assert "use the same values" in run.out
