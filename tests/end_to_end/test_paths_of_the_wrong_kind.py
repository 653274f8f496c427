"""Something of the wrong kind where a run reads or writes a path: one line or none, never a Python
stack, never a wait; and what stands there, if it is not the build's own, stays.

A sample of the pairs of path and kind runs by default; all of them where FAULTS=all. A SConscript and
.sconsign.dblite are left out: SCons itself opens them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Run, Tree, fake_compiler, make_model

PATIENCE_S = 60
SCONSTRUCT = """
env.Replace(TRT_HARDWARE="hardware/x.json")
a = env.Engine("a", "models/a.onnx")
b = env.Engine("b", "models/b.onnx", plugins=["models/p.so"])
x = env.Engine("x", env.OnnxExport("x", "models/e.py:f"))
engines = a + b + x
manifest = env.EngineManifest("dist/manifest.json", engines)
env.Alias("install", env.InstallEngines("share/engines", engines, manifest))
env.Alias("dist", manifest)
SConscript("sub/SConscript", exports="env")
"""
SUB = """
Import("env")
env.Engine("s", "s.onnx")
"""
EXPORT = """
import shutil
def f(target):
    shutil.copy({onnx!r}, target)
"""
READ = [
    "models/a.onnx",
    "models/a.data",
    "models/p.so",
    "models/e.py",
    "hardware/x.json",
    "sub/s.onnx",
]
STATE = [
    ".trt",
    ".trt/receipts",
    ".trt/locks",
    ".trt/logs",
    ".trt/partial",
    ".trt/onnx",
    ".trt/onnx/x.onnx",
    ".trt/digests.json",
    ".trt/events.jsonl",
    ".trt/declared.json",
    ".trt/host.json",
    ".trt/interpreters",
    ".trt/interpreters/*",
    ".trt/receipts/a__*",
    ".trt/receipts/a__*/*",
    ".trt/locks/a__*",
    ".trt/logs/a__*",
    ".trt/report",
    ".trt/report/index.html",
]
WRITTEN = [
    "engines",
    "engines/x",
    "engines/x/a__*.engine",
    "engines/x/a__*.sha256",
    "dist",
    "dist/manifest.json",
    "dist/manifest.json.sha256",
    "dist/SHA256SUMS",
]
FOLDERS = [".trt/receipts", ".trt/locks", ".trt/logs", ".trt/partial", ".trt/onnx"]
PLAIN = re.compile(r"is not a folder; remove it|is a file, but must be a folder; remove it")
NEXT_STEP = re.compile(r"; (remove|make|name|put|fetch|check|nothing is pruned)|name that folder")
KINDS = ["file", "folder", "dangling", "fifo", "elsewhere", "loop"]
# Of each kind what stood in the way of something, without a plain line of its own, before.
SAMPLE = [
    ("models/a.onnx", "fifo"),
    ("models/a.data", "elsewhere"),
    (".trt", "file"),
    (".trt", "loop"),
    (".trt/locks", "file"),
    (".trt/logs", "dangling"),
    (".trt/partial", "fifo"),
    (".trt/onnx", "dangling"),
    (".trt/events.jsonl", "fifo"),
    (".trt/receipts", "elsewhere"),
    ("engines/x/a__*.engine", "folder"),
    ("dist", "file"),
    ("dist/manifest.json", "folder"),
    ("dist/SHA256SUMS", "folder"),
]
TRIED = SAMPLE
if os.environ.get("FAULTS") == "all":  # ten minutes
    TRIED = [(path, kind) for path in READ + STATE + WRITTEN for kind in KINDS]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("whole")
    tree = Tree(root / "tree")
    make_model(tree.path("models/a.onnx"), seed=1, external="a.data")
    make_model(tree.path("models/b.onnx"), seed=2)
    make_model(tree.path("sub/s.onnx"), seed=3)
    tree.path("models/p.so").write_bytes(b"plugin")
    tree.path("models/e.py").write_text(EXPORT.format(onnx=str(tree.path("models/b.onnx"))))
    tree.path("hardware").mkdir()
    shutil.copy(Path(__file__).parents[2] / "hardware/rtx_portable.json", tree.path("hardware/x.json"))
    tree.write(SCONSTRUCT)
    tree.write(SUB, "sub/SConscript", "")
    fake = fake_compiler(root / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(fake)
    run = tree.scons("engines", "dist", "install", "engines-report")
    assert run.status == 0, run.out
    return tree


def put(place: Path, kind: str, elsewhere: Path) -> None:
    """Let something of `kind` stand at `place`, with a file in it that nobody may remove."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    if kind == "file":
        place.write_text("kept")
    elif kind == "folder":
        place.mkdir()
        (place / "kept").write_text("kept")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        to = {"dangling": "no/such", "elsewhere": str(elsewhere), "loop": place.name}[kind]
        place.symlink_to(to)


def limited(tree: Tree, *arguments: str, **environment: str) -> Run:
    done = subprocess.run(
        tree.command("-k", *arguments),
        cwd=tree.root,
        env=tree.env(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE_S,
        check=False,
    )
    return Run(done.stdout.decode("utf-8"), done.returncode)


def check(tree: Tree, path: str, kind: str, elsewhere: Path) -> list[str]:
    places = sorted(tree.root.glob(path)) or [tree.path(path)]
    put(places[0], kind, elsewhere)
    near = str(places[0].relative_to(tree.root))
    bad = []
    if not path.startswith("models/a."):
        make_model(tree.path("models/a.onnx"), seed=7, external="a.data")
    for what in (["engines", "dist", "install", "engines-report"], ["engines-prune"]):
        if path in READ and what == ["engines-prune"]:
            continue
        try:
            done = limited(tree, *what)
        except subprocess.TimeoutExpired:
            return [f"hangs: {what}"]
        print(near, kind, what, done.status, done.out)
        if "Traceback" in done.out or "TypeError" in done.out or "Error :" in done.out:
            bad.append(f"stack: {what}\n{done.out}")
        if done.status not in (0, 2):
            bad.append(f"status {done.status}: {what}\n{done.out}")
        if done.status == 2 and path not in READ and not (NEXT_STEP.search(done.out) and near in done.out):
            bad.append(f"no place or no next step: {what}\n{done.out}")
    if [each.name for each in elsewhere.iterdir() if each.name == "kept"] != ["kept"]:
        bad.append("what the link leads to was removed")
    if kind == "folder" and not (places[0] / "kept").exists():
        bad.append("a folder's file was removed")
    return bad


@pytest.mark.parametrize(("path", "kind"), TRIED, ids=[f"{kind}-{path}" for path, kind in TRIED])
def test_no_path_of_the_wrong_kind_ends_in_a_stack(whole: Tree, tmp_path: Path, path: str, kind: str) -> None:
    tree = whole.twin(tmp_path / "tree")
    bad = check(tree, path, kind, tmp_path / "elsewhere")
    assert not bad, "\n".join(bad)


def test_names_that_no_file_system_or_stream_takes_end_in_one_line(tree: Tree, tmp_path: Path) -> None:
    fake = fake_compiler(tmp_path / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(fake)
    make_model(tree.path("models/a.onnx"), external="a.data")
    whole = tree.path("models/a.onnx").read_bytes()
    tree.path("models/a.onnx").write_bytes(whole.replace(b"a.data", b"a\0data"))
    tree.path("models/\udcff.onnx").write_bytes(make_model(tree.path("models/c.onnx")).read_bytes())
    tree.write('env.Engine("a", "models/a.onnx")\nenv.Engine("b", "models/\\udcff.onnx")')
    done = limited(tree, "engines")
    assert done.status == 2
    assert "Traceback" not in done.out
    assert done.failed == ["a"]
    assert done.built == ["b"]


@pytest.mark.parametrize("place", ["scons_tensorrt.build.build_engine.build_engine", "EngineTarget.spec"])
def test_what_no_message_was_written_for_is_one_line(tree: Tree, tmp_path: Path, place: str) -> None:
    fake = fake_compiler(tmp_path / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(fake)
    make_model(tree.path("models/a.onnx"))
    tree.write(
        f"""
        import scons_tensorrt.build.build_engine
        from scons_tensorrt.scons_tool.engine_target import EngineTarget
        def fail(*args, **kwargs):
            raise ValueError("embedded\\nnull byte")
        {place} = fail
        env.Engine("a", "models/a.onnx")
        """
    )
    done = limited(tree, "engines")
    assert done.status == 2, done.out
    assert "Traceback" not in done.out
    assert "ValueError: embedded\\nnull byte; check the paths of its inputs" in done.reason("a")


@pytest.mark.parametrize("suffix", ["", ".sha256"])
def test_a_folder_where_the_engine_shall_be(two: Tree, suffix: str) -> None:
    two.path(f"engines/a__sm80plus_cu13.0_rtx1.7_fp32.engine{suffix}").mkdir(parents=True)
    run = two.scons("-k", "engines")
    assert (run.status, run.failed, run.built) == (2, ["a"], ["b"])
    assert "is a folder, but the engine goes there; remove it" in run.reason("a")


def test_an_engine_folder_that_cannot_be_made(two: Tree) -> None:
    run = two.scons("engines", "ENGINE_DIR=/proc/no/such")
    assert (run.status, run.failed) == (2, ["a"])
    assert "cannot be made" in run.reason("a")
    assert "name another ENGINE_DIR=" in run.reason("a")
