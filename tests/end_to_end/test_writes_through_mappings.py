"""Inputs on file systems where a write through a shared mapping moves no time: tmpfs, an overlay."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, hardware, make_model, sha256
from scons_tensorrt.files.digest_cache import FINE_TICK_NS

MEMORY = Path("/dev/shm")


@pytest.fixture
def in_memory() -> Iterator[Tree]:
    kind = subprocess.run(["stat", "-f", "-c", "%T", MEMORY], capture_output=True, text=True, check=False)
    if kind.stdout.strip() != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Tree(Path(name) / "tree")


@pytest.fixture
def on_overlay(tmp_path: Path) -> Iterator[Tree]:
    for name in ("lower", "upper", "work", "at"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "at")]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no overlay can be mounted here")
    try:
        yield Tree(tmp_path / "at/tree")
    finally:
        subprocess.run(["umount", tmp_path / "at"], check=True)


def write_mapped(path: Path, data: bytes) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        bytes(mapping)  # its pages are there before they are written
        mapping[:] = data


def edit_while_compiling(tree: Tree) -> None:
    """A compiler that sees the model edited through a mapping, and put back when it is done."""
    one = make_model(tree.path("models/a.onnx"), seed=1)
    other = make_model(tree.root.parent / "other.onnx", seed=2)
    backup = shutil.copy(one, tree.root.parent / "backup")
    act = textwrap.dedent(
        f"""
        import mmap
        def edit(source):
            with open({str(one)!r}, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
                bytes(mapping)
                mapping[:] = open(source, "rb").read()
        edit({str(other)!r})
        data = write()
        edit({str(backup)!r})
        done(data)
        """
    )
    tree.environment["TRT_PYTHON"] = str(fake_compiler(tree.root.parent / "compiler", act))
    hardware(tree.path("hardware/orin_nx.json"))
    tree.write('env.Engine("a", "models/a.onnx", hardware="orin_nx")\n')


def test_a_model_in_memory_edited_between_two_builds(in_memory: Tree) -> None:
    tree = in_memory
    model = make_model(tree.path("models/a.onnx"), seed=1)
    other = make_model(tree.root.parent / "b.onnx", seed=2)
    tree.write('env.Engine("a", "models/a.onnx")\n')
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    before = model.stat()
    write_mapped(model, other.read_bytes())
    assert model.stat().st_ctime_ns == before.st_ctime_ns
    assert tree.scons().built == ["a"]
    assert tree.receipt("a")["ingredients"]["input onnx"] == sha256(other)


def test_an_engine_in_memory_that_is_flipped(in_memory: Tree) -> None:
    tree = in_memory
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write('env.Engine("a", "models/a.onnx")\n')
    assert tree.scons().built == ["a"]
    time.sleep(1.1 * FINE_TICK_NS / 1e9)  # from here on a stat could be remembered
    assert tree.scons().reused == ["a"]
    engine = tree.engine("a")
    data = engine.read_bytes()
    write_mapped(engine, data[:-1] + bytes([data[-1] ^ 1]))
    assert tree.scons().built == ["a"]
    assert engine.read_bytes() == data


def test_a_model_in_memory_edited_while_it_is_compiled(in_memory: Tree) -> None:
    edit_while_compiling(in_memory)
    run = in_memory.scons("engines")
    assert run.status == 0, run.out
    compiled = in_memory.engine("a").read_bytes()[64:96].hex()
    assert compiled == sha256(in_memory.path("models/a.onnx"))


def test_a_model_on_an_overlay_is_compiled_from_a_copy(on_overlay: Tree) -> None:
    edit_while_compiling(on_overlay)
    run = on_overlay.scons("engines")
    assert run.status == 0, run.out
    compiled = on_overlay.engine("a").read_bytes()[64:96].hex()
    assert compiled == sha256(on_overlay.path("models/a.onnx"))
    assert len((on_overlay.root.parent / "compiler/compiled").read_text().split()) == 1
