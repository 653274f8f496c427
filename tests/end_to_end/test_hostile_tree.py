"""What others may have put into a tree: pipes, holes, links and lies, met by a whole scons. It ends, in
little memory, with what is right or in one line, and nothing is written where a link leads."""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, Tree, fake_compiler, make_model, sha256, sound

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


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Tree:
    """An engine with a step before it, built twice, so that everything remembers everything."""
    tree = Tree(tmp_path_factory.mktemp("template") / "tree")
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    python = fake_compiler(tree.root.parent / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    return tree


@pytest.fixture
def stood(template: Tree, tmp_path: Path) -> Tree:
    tree = Tree.__new__(Tree)
    tree.root, tree.environment = tmp_path / "tree", dict(template.environment)
    subprocess.run(["cp", "-a", template.root, tree.root], check=True)
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
    assert "TypeError" not in run.out, run.out
    if run.status:
        refused = "a.fp16.onnx is a folder, but must be a file; remove it" in run.out
        assert run.failed == ["a"] or refused, run.out
        for path in files:
            if not path.is_dir():
                path.unlink()
            elif not os.listdir(path):
                path.rmdir()
        run = bounded(stood)
    assert run.status == 0, run.out
    assert sound(stood.engine("a"))
    assert stood.scons("-q", "engines").status == 0


def test_a_model_of_a_terabyte_is_refused_at_once(stood: Tree) -> None:
    """A hole takes no room on disk, and hashing it takes for ever."""
    stood.path("models/a.onnx").unlink()
    hole(stood.path("models/a.onnx"))
    run = bounded(stood)
    assert (run.status, run.failed) == (2, ["a"])
    assert "larger than the 2 GiB that an ONNX can have" in run.reason("a")


@pytest.mark.parametrize("odd", ["pipe", "hole", "folder"])
@pytest.mark.parametrize("suffix", ["", ".sha256"])
def test_an_engine_or_sidecar_that_is_no_file(stood: Tree, precious: Path, odd: str, suffix: str) -> None:
    path = Path(f"{stood.engine('a')}{suffix}")
    path.unlink()
    ODD[odd](path, precious)
    run = bounded(stood)
    if odd == "folder":
        assert (run.status, run.failed) == (2, ["a"])
        path.rmdir()
        run = bounded(stood)
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert sound(stood.engine("a"))


@pytest.mark.parametrize("suffix", ["", ".sha256"])
def test_an_engine_or_sidecar_that_is_a_link_is_made_anew(stood: Tree, tmp_path: Path, suffix: str) -> None:
    """Although it leads to the very bytes: tomorrow it may lead to others."""
    path, elsewhere = Path(f"{stood.engine('a')}{suffix}"), tmp_path / "elsewhere"
    shutil.move(path, elsewhere)
    before = sha256(elsewhere)
    path.symlink_to(elsewhere)
    assert stood.scons("-q", "engines").status == 1
    run = stood.scons()
    assert (run.status, run.built) == (0, ["a"])
    assert not path.is_symlink()
    assert sha256(elsewhere) == before


@pytest.mark.parametrize("name", ["partial", "locks", "logs", "onnx", "receipts"])
def test_a_folder_of_the_state_that_is_a_link_loses_nothing_elsewhere(
    stood: Tree, precious: Path, name: str
) -> None:
    """It is not swept there, whatever is written."""
    shutil.rmtree(stood.path(f".trt/{name}"), ignore_errors=True)
    stood.path(f".trt/{name}").symlink_to(precious.parent)
    make_model(stood.path("models/a.onnx"), seed=5)
    run = stood.scons()
    assert run.status in (0, 2), run.out
    assert precious.read_bytes() == b"precious"
    stood.path(f".trt/{name}").unlink()
    for each in precious.parent.iterdir():
        if each != precious:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    assert stood.scons().status == 0


def tampered(tree: Tree) -> bytes:
    """An engine with a byte changed, and its sidecar, receipt and memo made to say that it is right."""
    engine = tree.engine("a")
    data = bytearray(engine.read_bytes())
    data[-1] ^= 1
    engine.write_bytes(data)
    return bytes(data)


def bless(tree: Tree) -> None:
    """Let the memo say of the tampered engine what it said of the true one."""
    digest_cache = tree.path(".trt/digests.json")
    said = json.loads(digest_cache.read_text())
    stat = tree.engine("a").stat()
    name = str(tree.engine("a").relative_to(tree.root))
    said["files"][name]["stat"] = [
        *(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    ]
    digest_cache.write_text(json.dumps(said))


@pytest.mark.parametrize("mode", [0o602, 0o620])
def test_a_memo_that_others_can_write_blesses_no_tampered_engine(stood: Tree, mode: int) -> None:
    true = sha256(stood.engine("a"))
    tampered(stood)
    bless(stood)
    digest_cache = stood.path(".trt/digests.json")
    blessed = digest_cache.read_bytes()
    assert stood.scons("-q", "engines").status == 0, "its own user's memo is believed, or this shows nothing"
    digest_cache.write_bytes(blessed)
    digest_cache.chmod(mode)
    assert stood.scons("-q", "engines").status == 1
    run = stood.scons()
    assert (run.status, run.built) == (0, ["a"])
    assert sha256(stood.engine("a")) == true


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_state_folder_blesses_no_tampered_engine(stood: Tree) -> None:
    true = sha256(stood.engine("a"))
    tampered(stood)
    bless(stood)
    for path in [stood.path(".trt"), *stood.path(".trt").rglob("*")]:
        os.chown(path, 1234, 1234)
    run = stood.scons()
    assert (run.status, run.built) == (0, ["a"])
    assert sha256(stood.engine("a")) == true


def test_a_folder_that_everybody_may_write_is_told_in_a_line(stood: Tree) -> None:
    stood.path(".trt").chmod(0o777)
    run = stood.scons()
    assert run.reused == ["a"]
    assert "every user of this machine may write to .trt/" in run.out
