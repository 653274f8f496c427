"""Disks that are full, read-only or limited: a clean error, nothing half, and the next run is green."""

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from calls import (
    ALL,
    calls_of,
    compiles,
    edit,
    litter,
    make_fake,
    needs_strace,
    one,
    pair,
    temporaries,
    traced,
)

from conftest import Run, Tree, sha256

ENGINE_BYTES = 2398  # of the fake


def mount(*arguments: str) -> None:
    """Mount, or skip the test: only root may, and not in every container."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def full(tmp_path):
    """A tree on a filesystem of its own, with `fill` and `empty`."""
    if os.geteuid():
        pytest.skip("only root may mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, but: int) -> None:
    """Leave `but` bytes of the disk, in whole pages."""
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"\0" * (free.f_bavail * free.f_frsize - but))


def on(disk: Path, tmp_path: Path) -> Tree:
    """A tree there. SCons's own record is elsewhere: a full disk gives it a traceback, ours or not."""
    tree = one(disk / "tree", make_fake(tmp_path / "fake"))
    record = str(tmp_path / "sconsign")
    tree.write(f'SConsignFile({record!r})\nenv.Engine("a", "models/a.onnx")')
    return tree


@pytest.mark.parametrize("pages", range(12) if ALL else [2])
@pytest.mark.parametrize("rebuild", [False, True], ids=["first", "rebuild"])
def test_a_full_disk(full: Path, tmp_path, pages: int, rebuild: bool) -> None:
    tree = on(full, tmp_path)
    old = (None, None)
    if rebuild:
        assert tree.scons().status == 0
        edit(tree)
        old = pair(tree)
    fill(full, pages * 4096)
    run = tree.scons()
    assert run.status in (0, 2), run.out
    assert temporaries(tree) == []
    after, done = pair(tree), compiles(tree)
    finished = len(list(tree.path(".trt/receipts").rglob("*.json"))) > rebuild
    if run.status:
        assert after == old or (finished and after[1] == old[1]), run.out
    (full / "ballast").unlink()
    run = tree.scons()
    assert run.status == 0, run.out
    digest, side = pair(tree)
    assert digest == side != old[0]
    assert compiles(tree) == done + (not finished)
    assert tree.scons("-q", "engines").status == 0
    assert litter(tree) == []


def test_a_full_disk_is_said_to_be_full(full: Path, tmp_path) -> None:
    tree = on(full, tmp_path)
    del tree.environment["TRT_PYTHON"]
    fill(full, 0)
    run = tree.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "No space left on device" in run.reason("a")


@pytest.fixture
def read_only(tmp_path):
    """Make folders read-only, for root too."""
    if os.geteuid():
        pytest.skip("only root may mount")
    mounted = []

    def make(folder: Path) -> None:
        mount("--bind", str(folder), str(folder))
        mounted.append(folder)
        mount("-o", "remount,ro,bind", str(folder))

    make.undo = lambda: [subprocess.run(["umount", "-l", str(mounted.pop())], check=True) for _ in mounted[:]]
    yield make
    make.undo()


@pytest.mark.parametrize("name", ["engines", ".trt"])
def test_a_folder_that_is_read_only(tmp_path, read_only, name: str) -> None:
    tree = one(tmp_path / "tree", make_fake(tmp_path / "fake"))
    assert tree.scons().built == ["a"]
    old = tree.snapshot("engines")
    read_only(tree.path(name))
    assert tree.scons().reused == ["a"], "what is right needs no writing"
    edit(tree)
    run = tree.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "Read-only file system" in run.reason("a")
    assert compiles(tree) == 1, "it is said before the compile"
    assert tree.snapshot("engines") == old
    read_only.undo()
    assert tree.scons().built == ["a"]
    assert litter(tree) == []


def limited(tree: Tree, size: int) -> Run:
    """A run that may write no file of more than `size` bytes."""
    done = subprocess.run(
        tree.command("engines"),
        cwd=tree.root,
        env=tree.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        check=False,
    )
    return Run(done.stdout.decode(), done.returncode)


LIMITS = [(size, False) for size in (0, 63, 64, 1000, ENGINE_BYTES - 1)] + [(64, True), (1000, True)]


@pytest.mark.parametrize(("size", "real"), LIMITS if ALL else LIMITS[3::3])
def test_a_limit_of_file_size(tmp_path, size: int, real: bool) -> None:
    tree = one(tmp_path / "tree", make_fake(tmp_path / "fake"))
    if real:
        del tree.environment["TRT_PYTHON"]
    assert tree.scons().built == ["a"]
    old = pair(tree)
    edit(tree)
    run = limited(tree, size)
    assert (run.status, run.failed) == (2, ["a"]), run.out
    assert pair(tree) == old
    assert tree.scons().built == ["a"]
    assert litter(tree) == []


WRAPPER = """#!/bin/sh
[ "$1" = -I ] || exec {python} "$@"
exec strace -f -o /dev/null -P {path} -e inject={call}:{fault}:when={when} {python} "$@"
"""
WORKER = [
    ("openat", "error=ENOSPC", 1),
    ("openat", "error=EDQUOT", 1),
    ("openat", "signal=SIGKILL", 1),
    ("write", "error=ENOSPC", 1),
    ("write", "error=EIO", 1),
    ("write", "signal=SIGKILL", 1),
    ("write", "retval=100", 1),  # a short write
    ("close", "error=EIO", 1),
    ("close", "signal=SIGKILL", 1),
]


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize(("call", "fault", "when"), WORKER if ALL else WORKER[3:4])
def test_a_fault_where_the_real_compiler_writes_its_engine(
    tmp_path, call: str, fault: str, when: int
) -> None:
    """Its calls that touch the engine on its way: native code may see a fault, or never look."""
    tree = one(tmp_path / "tree", make_fake(tmp_path / "fake"))
    del tree.environment["TRT_PYTHON"]
    python = tree.command()[0]
    assert tree.scons().built == ["a"]
    receipt, digest = tree.receipt("a"), sha256(tree.engine("a"))
    for path in tree.engines().values():
        path.unlink()
    shutil.rmtree(tree.path(".trt/receipts"))
    path_id = next(tree.path(".trt/locks").glob("*.lock")).name.split(".")[-2]
    path = tree.path(f".trt/partial/{path_id}/{receipt['key']}.engine")
    wrapper = tmp_path / "python"
    wrapper.write_text(WRAPPER.format(python=python, path=path, call=call, fault=fault, when=when))
    wrapper.chmod(0o755)
    run = tree.scons(TRT_PYTHON=str(wrapper))
    if run.status == 0:
        assert call == "close"
    else:
        assert (run.status, run.failed) == (2, ["a"])
        assert tree.engines() == {}
    assert tree.scons().status == 0
    assert pair(tree) == (digest, digest)
    assert litter(tree) == []


@needs_strace
@pytest.mark.parametrize("target", [".json", ".engine", ".engine.sha256"] if ALL else [".engine"])
def test_the_real_compilers_work_is_not_lost(tmp_path, target: str) -> None:
    """Killed at the three renames of publishing: before the receipt's, it compiles again; after, not."""
    tree = one(tmp_path / "tree", make_fake(tmp_path / "fake"))
    del tree.environment["TRT_PYTHON"]
    other = tree.copy(tmp_path / "trace", "models", "SConstruct")
    run, lines = traced(other)
    assert run.status == 0, run.out
    spec = pair(other)
    renames = [c for c in calls_of(other.root, lines) if c.name == "rename" and target + '"' in c.text]
    traced(tree, "signal=SIGKILL", renames[0])
    run = tree.scons()
    assert run.status == 0
    assert run.built == (["a"] if target == ".json" else [])
    assert pair(tree) == spec
    assert litter(tree) == []
