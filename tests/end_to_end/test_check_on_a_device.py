"""`scons-tensorrt check`: an engine is compared with recorded outputs where it runs. A build records them.

No GPU ran an engine here: an API surface stands in for TensorRT, and a C library for the driver.
"""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_engine_accuracy import Board, make_board

from conftest import REPO, Tree, sha256

RECORDED = ".recorded.npz"
_ROW = re.search(r"^\| `check` .*$", (REPO / "docs/json.md").read_text(encoding="utf-8"), re.M)
FIGURES = set(re.findall(r"`outputs\.(\w+)`", _ROW[0]))
HANDOFF = """
m = env.EngineManifest("dist/manifest.json", a)
env.InstallEngines("/opt/engines", a, manifest=m)
"""


@pytest.fixture(scope="module")
def origin(driver, tmp_path_factory) -> Board:
    """A board with its engine, which is for this host as it is probed, and what was recorded of it."""
    root = tmp_path_factory.mktemp("board")
    board = make_board(Tree(root / "tree"), driver, root / "site")
    del board.tree.environment["TRT_HARDWARE"]
    declare(board)
    run = board.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    return board


@pytest.fixture
def board(origin: Board, tmp_path) -> Board:
    """A copy of it."""
    site = shutil.copytree(origin.site, tmp_path / "site")
    names = "SConstruct", "models", "engines", ".trt", ".sconsign.dblite"
    return Board(origin.tree.copy(tmp_path / "tree", *names), site)


def declare(board: Board, more: str = "record=2", handoff: str = "") -> None:
    accuracy = f'dict(inputs="models/a.npz", rtol=0, atol=0.01, {more})'
    board.tree.write(f'a = env.Engine("a", "models/a.onnx", precision="fp16", accuracy={accuracy}){handoff}')


def cli(board: Board, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{board.site}:{board.tree.env()['PYTHONPATH']}"
    command = [sys.executable, "-m", "scons_tensorrt", *map(str, arguments)]
    env = board.tree.env(PYTHONPATH=path, **environment)
    return subprocess.run(command, cwd=board.tree.root, env=env, capture_output=True, text=True, check=False)


def test_an_engine_is_compared_with_what_was_recorded(board: Board) -> None:
    engine = board.tree.engine("a")
    done = cli(board, "check", engine)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"OK {engine}: output `y`: elemwise error 0 of 0.01 (2 samples, on Orin)\n"
    board.play("off", "0.5")
    done = cli(board, "check", engine)
    assert done.returncode == 20
    assert f"FAILED {engine}: output `y`: elemwise error 0.5, beyond 0.01 (sample " in done.stdout
    assert ", worst at [0, 1]: " in done.stdout
    board.play("loads-not")
    done = cli(board, "check", engine)
    assert (done.returncode, done.stdout) == (20, f"FAILED {engine}: TensorRT cannot load the engine\n")


def test_what_cannot_be_checked_is_said_in_one_line(board: Board) -> None:
    engine = board.tree.engine("a")
    board.runs()
    here = dict(board.tree.environment)
    del board.tree.environment["LD_LIBRARY_PATH"]
    done = cli(board, "check", engine)
    assert (done.returncode, done.stdout) == (21, f"NOT RUN {engine}: no NVIDIA GPU found\n")
    board.tree.environment.update(here)
    done = cli(board, "check", engine, PLAY_GPUS="2", CUDA_VISIBLE_DEVICES="1")
    assert (done.returncode, done.stdout.startswith(f"REFUSED {engine}: host: it is for sm87")) == (11, True)
    assert board.runs() == 0
    board.site.joinpath("numpy.py").write_text("raise ImportError('none here')")
    done = cli(board, "check", engine)
    assert (done.returncode, done.stdout.count("\n")) == (21, 1)
    assert done.stdout == f"NOT RUN {engine}: numpy cannot be imported by {sys.executable}: none here\n"
    board.runs()
    data = bytearray(engine.read_bytes())
    data[-1] ^= 1
    engine.write_bytes(data)
    done = cli(board, "check", engine)
    assert (done.returncode, done.stdout) == (
        13,
        f"REFUSED {engine}: sidecar hash: its sha256 does not match its sidecar\n",
    )
    assert board.runs() == 0


@pytest.mark.slow
def test_the_figures_are_json_too(board: Board) -> None:
    engine = board.tree.engine("a")
    done = cli(board, "check", engine, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["status"], found["outcome"], found["gpu"]) == (0, "ok", "Orin")
    assert found["samples"] == f"{engine}{RECORDED}"
    (output,) = found["outputs"]
    assert (output["output"], output["ok"], output["error"], output["bound"]) == ("y", True, 0.0, 0.01)
    board.play("off", "nan")
    done = cli(board, "check", engine, "--json")
    (output,) = json.loads(done.stdout, parse_constant=pytest.fail)["outputs"]
    assert (done.returncode, output["ok"], output["error"], output["converted"]) == (20, False, None, None)
    assert set(output) == FIGURES


@pytest.mark.slow
def test_a_recorded_file_that_is_missing_or_damaged_is_named(board: Board) -> None:
    engine = board.tree.engine("a")
    recorded = engine.with_name(engine.name + RECORDED)
    recorded.write_bytes(recorded.read_bytes()[:-30])
    done = cli(board, "check", engine)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"HandoffError: {recorded}: damaged: File is not a zip file\n"
    recorded.unlink()
    done = cli(board, "check", engine)
    assert done.stderr == (
        f"HandoffError: {recorded}: no such file; make it with accuracy=dict(..., record=N), or name one\n"
    )


def test_the_recorded_file_is_handed_on_with_its_engine(board: Board, tmp_path) -> None:
    declare(board, handoff=HANDOFF)
    image = tmp_path / "image"
    run = board.scons("install", f"DESTDIR={image}")
    assert (run.status, run.reused) == (0, ["a"]), run.out
    engine = image / "opt/engines" / board.tree.engine("a").name
    recorded = engine.with_name(engine.name + RECORDED)
    sums = (engine.parent / "SHA256SUMS").read_text().splitlines()
    assert f"{sha256(recorded)}  {recorded.name}" in sums
    (entry,) = json.loads((engine.parent / "manifest.json").read_text())["engines"]
    assert entry["recorded"] == {
        "name": recorded.name,
        "sha256": sha256(recorded),
        "size": recorded.stat().st_size,
    }
    with np.load(recorded) as arrays:
        assert sorted(arrays)[:4] == ["0000/inputs/x", "0000/outputs/y", "0001/inputs/x", "0001/outputs/y"]
        assert np.array_equal(arrays["0001/outputs/y"], 2 * arrays["0001/inputs/x"])
    verify = "verify", "--manifest", engine.parent / "manifest.json"
    done = cli(board, *verify)
    assert done.stdout.endswith("lists 1 engine and 1 recorded file; signature not checked\n"), done.stdout
    recorded.write_bytes(recorded.read_bytes() + b"x")
    done = cli(board, *verify)
    assert (done.returncode, f"REFUSED {recorded}: manifest hash: " in done.stdout) == (15, True)
    assert board.scons("install", f"DESTDIR={image}").lines("INSTALLED") == [f"INSTALLED {recorded}"]
    recorded.unlink()
    done = cli(board, *verify)
    assert (done.returncode, done.stdout.count(f"REFUSED {recorded}: missing: missing\n")) == (18, 1)


def test_a_prune_removes_the_file_of_an_engine_that_records_no_longer(board: Board) -> None:
    recorded = board.tree.engine("a").with_name(board.tree.engine("a").name + RECORDED)
    foreign = recorded.with_name(recorded.name.replace("a__", "b__"))
    foreign.write_bytes(b"of somebody else")
    board.scons("engines-prune", "PRUNE=yes")
    assert recorded.exists()
    declare(board, "")
    run = board.scons("engines-prune", "PRUNE=yes")
    assert f"PRUNED engines/{recorded.name}" in run.out, run.out
    assert (recorded.exists(), foreign.exists()) == (False, True)
    assert board.tree.engine("a").exists()


@pytest.mark.slow
def test_clones_record_the_same_bytes_and_a_changed_count_builds_no_engine(board: Board, tmp_path) -> None:
    recorded = board.tree.engine("a").with_name(board.tree.engine("a").name + RECORDED)
    before = sha256(recorded)
    clone = Board(board.tree.copy(tmp_path / "clone", "SConstruct", "models"), board.site)
    assert clone.scons().built == ["a"]
    assert sha256(clone.tree.path(f"engines/{recorded.name}")) == before
    recorded.unlink()
    run = board.scons()
    assert (run.reused, len(run.lines("RECORDED"))) == (["a"], 1)
    assert sha256(recorded) == before
    declare(board, "record=1")
    run = board.scons()
    assert (run.reused, "option" not in run.lines("RECORDED")[0]) == (["a"], True), run.out
    assert sha256(recorded) != before
    board.tree.write('env.Engine("b", "models/a.onnx")')
    run = board.scons("engines-prune", "PRUNE=yes", "OLDER=0")
    assert not recorded.exists(), run.out
