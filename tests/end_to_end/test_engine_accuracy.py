"""The engine itself against its original: whole builds by the real workers, with an API surface for
TensorRT and a C library for the driver. What the engine computes is played, all else is real."""

import json
import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from conftest import Run, Tree, hardware

TESTS = Path(__file__).parents[1]
PLAYED = """
import array, os, sys
sys.path.insert(0, {compile!r})
from surface import Plays, Surface
here = os.path.dirname(__file__)
def compute(given):
    off = float(open(here + "/off").read()) if os.path.exists(here + "/off") else 0.0
    shape, data = given["x"]
    y = array.array("f", data)
    for index in range(len(y)):
        y[index] *= 2
    y[1] += off
    if shape[0] == 4 and os.path.exists(here + "/mixes"):
        y[24] += 0.005 * y[8]  # the last row, by the second
    with open(here + "/runs", "a") as out:
        out.write("run ")
    return {{"y": (shape, y.tobytes())}}
played = sys.modules[__name__] = Surface("tensorrt-10.3.0")
played.shape = (1, 8)
played.engine = Plays(compute, {{"x": "FLOAT"}}, {{"y": "FLOAT"}}, [{{"x": ((1, 8), (4, 8))}}])
if os.path.exists(here + "/loads-not"):
    played.engine = None
"""


class Board:
    """A tree with an engine of y = x + x, in fp16 by TensorRT's own flag, on a host that is played."""

    def __init__(self, tree: Tree, site: Path) -> None:
        self.tree, self.site = tree, site

    def declare(self, bounds: str = "atol=0.01", precision: str = "fp16", more: str = "") -> None:
        self.tree.write(
            f"""
            env.Engine("a", "models/a.onnx", precision="{precision}",
                       accuracy=dict(inputs="models/a.npz", rtol=0, {bounds}){more})
            """
        )

    def scons(self, *arguments: str, **environment: str) -> Run:
        path = f"{self.site}:{self.tree.env()['PYTHONPATH']}"
        return self.tree.scons(*(arguments or ("engines",)), PYTHONPATH=path, **environment)

    def play(self, name: str, text: str = "") -> None:
        (self.site / "tensorrt" / name).write_text(text)

    def runs(self) -> int:
        """How many samples the engine was asked for since the last look."""
        file = self.site / "tensorrt" / "runs"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return len(text.split()) // 2  # a shape is asked for, and then the output

    def told(self) -> dict:
        return self.tree.receipt("a")["accuracy"]


@pytest.fixture
def board(tree: Tree, driver: Path, tmp_path: Path) -> Board:
    return make_board(tree, driver, tmp_path / "site")


def make_board(tree: Tree, driver: Path, site: Path) -> Board:
    (site / "tensorrt").mkdir(parents=True)
    (site / "tensorrt" / "__init__.py").write_text(PLAYED.format(compile=str(TESTS / "build")))
    (site / "tensorrt_cu12-10.3.0.30.dist-info").mkdir()
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", tensors[:1], tensors[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tree.path("models/a.onnx"))
    samples(tree, 3)
    hardware(tree.path("hardware/nx.json"), machine=platform.machine())
    tree.environment.update(TRT_HARDWARE="nx", LD_LIBRARY_PATH=str(driver))
    made = Board(tree, site)
    made.declare()
    return made


def samples(tree: Tree, count: int) -> None:
    x = np.random.default_rng(count).standard_normal((count, 1, 8)).astype(np.float32)
    np.savez(tree.path("models/a.npz"), x=x)


def test_an_engine_is_run_before_it_is_published_and_its_receipt_tells(board: Board) -> None:
    run = board.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    line = run.lines("CHECKED")[0]
    assert "_fp16.engine on Orin (" in line
    assert "output `y` elemwise error 0 of 0.01, cosine 1.000000" in line
    told = board.told()
    assert told["onnx"] == "the ONNX is compiled as it is: nothing to compare"
    assert (told["engine"]["samples"], told["engine"]["gpu"], told["engine"]["atol"]) == (
        3,
        "Orin",
        0.01,
    )
    assert told["engine"]["outputs"]["y"]["max_abs"] == 0.0
    assert board.runs() == 3
    assert not list(board.tree.path(".trt/partial").rglob("*"))
    assert board.scons().reused == ["a"]
    assert board.runs() == 0


def test_an_engine_beyond_its_bound_is_never_published(board: Board) -> None:
    board.play("off", "0.5")
    run = board.scons()
    assert (run.status, run.failed) == (2, ["a"])
    reason = run.reason("a")
    assert reason.startswith("AccuracyError: the engine, run on the GPU: output `y`: elemwise error 0.5,")
    assert "worst at [0, 1]: " in reason
    assert "; log: .trt/logs/" in reason
    assert board.tree.engines() == {}
    assert not list(board.tree.path(".trt/receipts").rglob("*.json"))
    board.play("off", "0")
    assert board.scons().built == ["a"]


@pytest.mark.slow
def test_an_old_pair_stands_when_the_new_engine_is_beyond(board: Board) -> None:
    board.scons()
    before = board.tree.snapshot()
    board.play("off", "0.5")
    board.declare(more=", workspace_mb=64")
    assert board.scons().failed == ["a"]
    assert board.tree.snapshot() == before


@pytest.mark.parametrize("what", ["bound", "samples"])
@pytest.mark.slow
def test_another_bound_or_other_samples_run_it_again_and_compile_nothing(board: Board, what) -> None:
    board.scons()
    board.runs()
    before = board.tree.snapshot()
    if what == "bound":
        board.declare("atol=0.02")
    else:
        samples(board.tree, 2)
    run = board.scons()
    assert (run.status, run.reused) == (0, ["a"]), run.out
    assert board.runs() == (3 if what == "bound" else 2)
    assert board.told()["engine"]["atol"] == (0.02 if what == "bound" else 0.01)
    assert board.tree.snapshot() == before
    assert board.scons().reused == ["a"]
    assert board.runs() == 0


@pytest.mark.slow
def test_a_bound_that_the_engine_does_not_keep_fails_until_it_does(board: Board) -> None:
    board.play("off", "0.015")
    board.declare("atol=0.02")
    assert board.scons().built == ["a"]
    board.declare("atol=0.01")
    for _ in range(2):
        run = board.scons()
        assert (run.status, run.failed) == (2, ["a"])
        assert "elemwise error 0.015, beyond 0.01" in run.reason("a")
    board.declare("atol=0.02")
    assert board.scons().reused == ["a"]


@pytest.mark.slow
def test_without_that_gpu_what_was_measured_is_kept(board: Board, tmp_path: Path) -> None:
    board.scons()
    told = board.told()
    clone = board.tree.copy(tmp_path / "clone", "SConstruct", "models", "hardware", "engines", ".trt")
    del clone.environment["LD_LIBRARY_PATH"]
    assert clone.scons().reused == ["a"]
    assert clone.receipt("a")["accuracy"] == told
    samples(clone, 2)
    assert clone.scons().reused == ["a"]
    said = clone.receipt("a")["accuracy"]["engine"]
    assert said == "not run: no NVIDIA GPU found"


@pytest.mark.slow
def test_on_another_gpu_it_is_not_run(board: Board) -> None:
    board.scons()
    board.runs()
    board.declare("atol=0.02")
    run = board.scons(PLAY_GPUS="2", CUDA_VISIBLE_DEVICES="1")
    assert (run.status, run.reused) == (0, ["a"])
    assert "was not run against its original: the engine is not for this GPU: " in run.out
    assert board.told()["engine"].startswith("not run: the engine is not for this GPU: compute_capability")
    assert board.runs() == 0


@pytest.mark.slow
def test_what_was_not_run_elsewhere_is_run_where_the_gpu_is(board: Board) -> None:
    board.scons()
    driver = board.tree.environment.pop("LD_LIBRARY_PATH")
    board.declare("atol=0.001")
    assert board.scons().reused == ["a"]
    assert board.told()["engine"] == "not run: no NVIDIA GPU found"
    assert board.scons("-q", "engines").status == 0
    board.tree.environment["LD_LIBRARY_PATH"] = driver
    board.tree.path(".sconsign.dblite").unlink()  # as in a clone
    board.play("off", "0.5")
    assert board.scons().failed == ["a"]
    board.play("off", "0")
    board.runs()
    assert board.scons().reused == ["a"]
    assert board.runs() == 3
    assert board.scons().reused == ["a"]
    assert board.runs() == 0


def test_samples_that_no_comparison_here_needs_may_be_missing(board: Board, tmp_path: Path) -> None:
    del board.tree.environment["LD_LIBRARY_PATH"]
    board.tree.path("models/a.npz").unlink()
    board.declare(precision="fp32")
    assert board.tree.scons("engines", "HARDWARE=rtx_portable").built == ["a"]
    clone = board.tree.copy(tmp_path / "clone", "SConstruct", "models", "engines", ".trt")
    run = clone.scons("engines", "HARDWARE=rtx_portable")
    assert (run.status, run.reused) == (0, ["a"]), run.out


def test_an_engine_that_does_not_load_fails(board: Board) -> None:
    board.play("loads-not")
    run = board.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "AccuracyError: the engine, run on the GPU: TensorRT cannot load the engine; log: " in run.reason(
        "a"
    )


def test_samples_that_no_profile_takes_are_named(board: Board) -> None:
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, board.tree.path("models/a.onnx"))
    np.savez(board.tree.path("models/a.npz"), x=np.zeros((2, 5, 8), np.float32))
    board.declare(more=', shapes={"x": ((1, 8), (1, 8), (1, 8))}')
    run = board.scons()
    assert "sample 0: no profile of shapes= covers `x` [5, 8]" in run.reason("a")


def dynamic(board: Board, accuracy: str) -> None:
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, board.tree.path("models/a.onnx"))
    shapes = '{"x": ((1, 8), (2, 8), (4, 8))}'
    board.tree.write(f'env.Engine("a", "models/a.onnx", shapes={shapes}, accuracy={accuracy})')


def test_an_engine_is_run_at_every_corner_without_samples(board: Board) -> None:
    """By API surfaces and a C library for the driver: no GPU was there."""
    dynamic(board, "{}")
    run = board.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    onnx_line, engine_line = run.lines("CHECKED")
    assert "nothing to compare: the ONNX is compiled as it is; 3 corners in " in onnx_line
    assert "output `y` elemwise error 0 of " in engine_line
    assert "; 3 corners in " in engine_line
    told = board.told()["engine"]
    assert (told["samples"], told["corners"]["seed"]) == (0, 0)
    rows = [(row["corner"], row["runs"], row["rows"]) for row in told["corners"]["table"]]
    assert rows == [("min", 2, "one row"), ("opt", 3, "kept apart"), ("max", 3, "kept apart")]
    assert board.runs() == 8
    assert board.scons().reused == ["a"]
    assert board.runs() == 0


@pytest.mark.parametrize("what", ["off", "mixes"])
@pytest.mark.slow
def test_an_engine_that_is_wrong_at_a_corner_is_never_published(board: Board, what: str) -> None:
    dynamic(board, "dict(rtol=0.01)")
    board.play(what, "0.5")
    run = board.scons()
    assert (run.status, run.failed) == (2, ["a"])
    beyond = "corner min (`x` [1, 8]): output `y`: elemwise error 0.5, beyond"
    mixed = "corner max (`x` [4, 8]): output `y`: rows 0 and 3 with the same input differ by "
    assert (beyond if what == "off" else mixed) in run.reason("a")
    assert board.tree.engines() == {}


def test_an_engine_without_a_gate_is_never_run(board: Board) -> None:
    board.tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    assert board.scons().built == ["a"]
    assert board.runs() == 0
    assert "accuracy" not in board.tree.receipt("a")


def test_an_rtx_engine_without_a_gpu_says_that_it_was_not_run(board: Board) -> None:
    board.declare()
    del board.tree.environment["LD_LIBRARY_PATH"]
    run = board.tree.scons("engines", "HARDWARE=rtx_portable")
    assert (run.status, run.built) == (0, ["a"]), run.out
    told = json.loads(json.dumps(board.told()))
    assert told["onnx"]["samples"] == 3
    assert told["engine"] == "not run: no NVIDIA GPU found"


@pytest.mark.slow
def test_an_rtx_engine_where_a_gpu_is_of_other_architectures(board: Board) -> None:
    board.declare()
    run = board.tree.scons("engines", "HARDWARE=rtx_sm89")
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert board.told()["engine"] == "not run: the engine is for SM 89, this GPU is SM 87"
