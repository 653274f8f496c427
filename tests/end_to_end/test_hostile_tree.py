"""What others may have put into a tree: pipes, holes, links and lies, met by a whole scons. It ends, in
little memory, with what is right or in one line, and nothing is written where a link leads."""

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, Tree, fake_compiler, make_model, sound

HOLE_BYTES = 1 << 40
MEMORY_BYTES = 2 << 30  # that a run may have


def bounded(tree: Tree, *arguments: str) -> Run:
    """A run that may take neither for ever nor all memory."""
    done = subprocess.run(
        tree.command(*(arguments or ("engines",))),
        cwd=tree.root,
        env=tree.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        check=False,
    )
    run = Run(done.stdout.decode(), done.returncode)
    assert "Traceback" not in run.out, run.out
    return run


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file that must stay as it is, alone in its folder."""
    path = tmp_path / "precious" / "file"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


@pytest.fixture
def stood(tree: Tree) -> Tree:
    """An engine with a step before it, built twice, so that everything remembers everything."""
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    python = fake_compiler(tree.path("fake"), "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    return tree


def hole(path: Path) -> None:
    with open(path, "wb") as out:
        out.truncate(HOLE_BYTES)


ODD: dict[str, Callable[[Path, Path], object]] = {
    "pipe": lambda path, precious: os.mkfifo(path),
    "hole": lambda path, precious: hole(path),
    "link": lambda path, precious: path.symlink_to(precious),
    "dangling link": lambda path, precious: path.symlink_to(precious.with_name("new")),
    "folder": lambda path, precious: path.mkdir(),
    "garbage": lambda path, precious: path.write_bytes(b"\xff[" * 5000),
    "nothing": lambda path, precious: path.write_bytes(b""),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_state_folder_full_of_odd_things(stood: Tree, precious: Path, odd: str) -> None:
    """Each of its files is something else. What is needed is made again, or the run says in a line
    what stands in its way, and is green when that is gone."""
    files = [path for path in stood.path(".trt").rglob("*") if path.is_file()]
    assert {"digests.json", "declared.json", "events.jsonl", "a.fp16.onnx"} <= {p.name for p in files}
    for path in files:
        path.unlink()
        ODD[odd](path, precious)
    run = bounded(stood)
    assert run.status in (0, 2), run.out
    if run.status:
        assert run.failed == ["a"]
        for path in files:
            if not path.is_dir():
                path.unlink()
            elif not os.listdir(path):
                path.rmdir()
        run = bounded(stood)
    assert run.status == 0, run.out
    assert sound(stood.engine("a"))
    assert stood.scons("-q", "engines").status == 0
