"""A tree that cannot be written: what is there is reused, and what must be built is one cause, once."""

import shutil
import subprocess

import pytest

from conftest import Run, Tree

SCRIPT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" && shift && exec "$@"'


def read_only(tree: Tree, *arguments: str) -> Run:
    """Run scons where the tree is mounted read-only, for root too."""
    command = ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", str(tree.root), *tree.command(*arguments)]
    done = subprocess.run(
        command, env=tree.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if "unshare" in done.stdout or "mount:" in done.stdout:
        pytest.skip(f"no mount of its own here: {done.stdout.strip()}")
    assert "Traceback" not in done.stdout, done.stdout
    assert "OSError" not in done.stdout, done.stdout
    return Run(done.stdout, done.returncode)


@pytest.fixture
def shut(built: Tree) -> Tree:
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    return built


def test_engines_are_reused_and_new_ones_fail_with_one_cause(shut: Tree) -> None:
    run = read_only(shut, "engines")
    assert (run.status, run.reused) == (0, ["a", "b"])
    assert "engines: 2 reused, 0 built, 0 failed in " in run.out

    shut.path(".sconsign.dblite").unlink()  # SCons then runs the action of an engine that its path names
    run = read_only(shut, str(shut.engine("a").relative_to(shut.root)))
    assert run.status == 0
    assert "engines: 1 reused, 0 built, 0 failed in " in run.out

    shut.write(
        """
        env.Engine("a", "models/a.onnx")
        for n in range(3):
            env.Engine(f"new{n}", "models/b.onnx", workspace_mb=n + 1)
        """
    )
    for options in ((), ("-k",), ("-n",)):
        run = read_only(shut, *options, "engines")
        assert run.status == 2
        assert {*run.failed, *run.names("WOULD")} >= {"new0", "new1", "new2"}
        assert run.out.count("cannot be written: Read-only file system; make it writable, or name ano") == 1
        assert " 1 reused, 0 built, 3 failed in " in run.summary


def test_a_tree_without_anything_built_names_the_tree(two: Tree) -> None:
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    run = read_only(two, "engines")
    assert (run.status, run.failed) == (2, ["a", "b"])
    assert run.reason("a") == (
        "PublishError: the tree cannot be written: Read-only file system; make it writable, or name another "
        "ENGINE_DIR="
    )
    assert run.reason("b") == "PublishError, see error above"
