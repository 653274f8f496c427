"""INT8 by TensorRT 10's calibrators: the graph with a stand-in for the compiler, and whole builds by
the real worker, with an API surface for TensorRT and a C library for the driver."""

import json
import platform
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import Tree, fake_compiler, hardware, make_model

TESTS = Path(__file__).parents[1]
ENGINE = """
env.Engine("a", "models/a.onnx", precision="int8",
           calibration=dict(data="models/cal.npz", by="calibrator"{more}){options})
"""


def samples(path: Path, count: int = 8, seed: int = 0, **arrays) -> np.ndarray:
    random = np.random.default_rng(seed)
    arrays = arrays or {"x": random.standard_normal((count, 1, 8, 16, 16)).astype(np.float32)}
    np.savez(path, **arrays)
    return next(iter(arrays.values()))


def declare(tree: Tree, more: str = "", options: str = "") -> None:
    tree.write(ENGINE.format(more=more and f", {more}", options=options and f", {options}"))


def caches(tree: Tree) -> list[Path]:
    return sorted(tree.path(".trt/calibration").glob("*.cache"))


@pytest.fixture
def board(tree: Tree) -> Tree:
    """An int8 engine for an Orin, whose compiler is a stand-in."""
    make_model(tree.path("models/a.onnx"), seed=1)
    samples(tree.path("models/cal.npz"))
    declare(tree)
    hardware(tree.path("hardware/nx.json"))
    tree.environment.update(TRT_HARDWARE="nx", TRT_PYTHON=str(fake_compiler(tree.path("fake"))))
    return tree


def test_the_samples_are_a_target_beside_an_onnx_that_stays_as_it_is(board: Tree) -> None:
    run = board.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert len(run.lines("CONVERTED .trt/onnx/a.int8.samples")) == 1
    declared = json.loads(board.path(".trt/declared.json").read_text())["engines"]
    assert declared[0]["samples"] == ".trt/onnx/a.int8.samples"
    receipt = board.receipt("a")
    roles = {item["role"]: item["name"] for item in receipt["inputs"]}
    assert roles == {"onnx": "models/a.onnx", "samples": ".trt/onnx/a.int8.samples"}
    assert receipt["recipe"]["calibrator"] == "entropy"
    assert receipt["ingredients"]["option calibrator"] == "entropy"
    assert receipt["made_by"][0]["facts"]["samples"] == 8
    tree = board.scons("--tree=prune", "-n", "engines")
    assert "+-.trt/onnx/a.int8.samples" in tree.out
    assert "models/cal.npz" in tree.out
    assert board.scons().reused == ["a"]


@pytest.mark.slow
def test_other_calibration_data_are_the_reason(board: Tree) -> None:
    board.scons()
    samples(board.path("models/cal.npz"), seed=1)
    run = board.scons("-n", "engines")
    assert run.reason("a") == ".trt/onnx/a.int8.samples would be built first"
    run = board.scons()
    assert "because samples cal.npz changed: " in run.lines("CONVERTED")[0]
    assert run.reason("a").startswith("samples a.int8.samples changed: ")


@pytest.mark.slow
def test_another_method_is_the_reason(board: Tree) -> None:
    board.scons()
    declare(board, 'method="minmax"')
    run = board.scons()
    assert run.lines("CONVERTED") == []
    assert run.reason("a") == "calibrator changed: entropy → minmax"


@pytest.mark.slow
def test_how_many_there_must_be_and_a_rewritten_set_compile_nothing(board: Tree) -> None:
    board.scons()
    declare(board, "at_least=4")
    run = board.scons()
    assert (run.reused, run.lines("CONVERTED")) == (["a"], [])
    x = samples(board.path("models/cal.npz"))
    np.savez_compressed(board.path("models/cal.npz"), x=x)
    run = board.scons()
    assert (run.reused, len(run.lines("CONVERTED"))) == (["a"], 1)


@pytest.mark.slow
def test_samples_that_were_harmed_are_made_again(board: Tree) -> None:
    board.scons()
    board.path(".trt/onnx/a.int8.samples").write_bytes(b"x")
    run = board.scons()
    assert (run.status, run.reused, len(run.lines("CONVERTED"))) == (0, ["a"], 1)


@pytest.mark.slow
def test_explain_compares_the_samples_too(board: Tree) -> None:
    board.scons()

    def explain() -> str:
        return board.cli("explain", board.engine("a")).out

    assert "changes\n  none" in explain()
    board.path(".trt/onnx/a.int8.samples").write_bytes(b"x")
    assert "changes\n  samples a.int8.samples changed: " in explain()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 1, 8, 16, 16), "f4")}, "has 2 samples, fewer than at_least=8"),
        ({"y": np.zeros((8, 1, 8, 16, 16), "f4")}, "`y` is not an input of the model"),
        ({"x": np.full((8, 1, 8, 16, 16), np.nan, "f4")}, "sample 0, input `x` has NaN at [0, 0, 0, 0]"),
    ],
    ids=["too few", "a wrong name", "NaN"],
)
def test_samples_that_cannot_be_are_one_line_before_any_compile(board: Tree, arrays, message) -> None:
    samples(board.path("models/cal.npz"), **arrays)
    run = board.scons()
    assert run.status == 2
    line = run.lines("FAILED")[0]
    assert line.startswith("FAILED .trt/onnx/a.int8.samples: SConstruct:5: RecipeError: models/a.onnx: ")
    assert message in line
    assert not board.path("fake/compiled").exists()


@pytest.mark.parametrize(
    ("hard", "more", "options", "message"),
    [
        (
            {"runtime_version": "11.4.0.106", "jetpack": "7.2"},
            "",
            "",
            "not supported by a strongly typed runtime",
        ),
        ({}, "", "strongly_typed=True", "not supported by a strongly typed runtime"),
        ({}, 'method="minmax"', "dla_core=0", "a DLA supports only calibration method='entropy'"),
    ],
)
def test_where_no_calibrator_is_the_engine_fails(board: Tree, hard, more, options, message) -> None:
    hardware(board.path("hardware/nx.json"), **hard)
    declare(board, more, options)
    run = board.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert message in run.reason("a")


def test_an_option_that_a_calibrator_has_not_stops_the_reading(board: Tree) -> None:
    declare(board, "per_channel=False")
    run = board.scons()
    assert run.status == 2
    assert "calibration per_channel=: only with by='qdq'; leave it out" in run.out


# The real worker, over a surface and a driver that are played.

PLAYED = """
import os, signal, sys, time
sys.path.insert(0, {compile!r})
from surface import Calibrates, Surface
here = os.path.dirname(__file__)
def then(calibrator, profiles):
    tensorrt = Calibrates(sizes=[8192])
    tensorrt(calibrator, profiles)
    with open(here + "/seen", "ab") as out:
        out.write(b"".join(data for batch in tensorrt.seen for data in batch))
    what = open(here + "/then").read() if os.path.exists(here + "/then") else ""
    played.fails = what == "fail"
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        open(here + "/sleeps", "w").close()
        time.sleep(60)
played = sys.modules[__name__] = Surface("tensorrt-10.3.0")
played.shape, played.calibrate = (1, 8, 16, 16), then
"""


class Host:
    """A tree on a host with a GPU and TensorRT 10.3, all played."""

    def __init__(self, tree: Tree, site: Path) -> None:
        self.tree, self.site = tree, site

    def scons(self, *arguments: str):
        return self.tree.scons(*arguments, PYTHONPATH=self.path)

    @property
    def path(self) -> str:
        return f"{self.site}:{self.tree.env()['PYTHONPATH']}"

    def seen(self) -> bytes:
        """What was read at the addresses of the batches since the last look."""
        file = self.site / "tensorrt" / "seen"
        data = file.read_bytes() if file.exists() else b""
        file.unlink(missing_ok=True)
        return data

    def then(self, what: str) -> None:
        (self.site / "tensorrt" / "then").write_text(what)


@pytest.fixture
def host(board: Tree, driver: Path, tmp_path: Path) -> Host:
    site = tmp_path / "site"
    (site / "tensorrt").mkdir(parents=True)
    (site / "tensorrt" / "__init__.py").write_text(PLAYED.format(compile=str(TESTS / "build")))
    (site / "tensorrt_cu12-10.3.0.30.dist-info").mkdir()
    hardware(board.path("hardware/nx.json"), machine=platform.machine())
    del board.environment["TRT_PYTHON"]
    board.environment["LD_LIBRARY_PATH"] = str(driver)
    return Host(board, site)


def test_an_engine_is_calibrated_and_its_receipt_says_with_what(host: Host) -> None:
    x = samples(host.tree.path("models/cal.npz"))
    run = host.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert host.seen() == x.tobytes()
    (cache,) = caches(host.tree)
    stated = Path(f"{cache}.sha256").read_text()
    told = host.tree.receipt("a")["calibration"]
    assert told == {"cache": cache.name, "sha256": stated, "samples": 8}


def test_a_calibration_is_reused_by_another_build_of_the_same_data(host: Host) -> None:
    host.scons()
    host.seen()
    before = host.tree.snapshot(".trt/calibration")
    declare(host.tree, options="workspace_mb=64")
    run = host.scons()
    assert run.reason("a") == "workspace_mb changed: 4096 → 64"
    assert host.seen() == b""
    receipts = map(json.loads, (p.read_text() for p in host.tree.path(".trt/receipts").glob("a__*/*")))
    told = {each["ingredients"].get("option workspace_mb"): each["calibration"] for each in receipts}
    assert told["64"] == {**told[None], "samples": 0}
    assert host.tree.snapshot(".trt/calibration") == before


@pytest.mark.parametrize("what", ["data", "method", "model", "runtime"])
def test_of_other_things_the_calibration_is_another_and_the_old_one_stays(host: Host, what: str) -> None:
    host.scons()
    host.seen()
    before = host.tree.snapshot(".trt/calibration")
    if what == "data":
        samples(host.tree.path("models/cal.npz"), seed=5)
    elif what == "method":
        declare(host.tree, 'method="minmax"')
    elif what == "model":
        make_model(host.tree.path("models/a.onnx"), seed=5)
    else:
        changes = {"machine": platform.machine(), "runtime_version": "10.3.0.31"}
        hardware(host.tree.path("hardware/nx.json"), **changes)
    run = host.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert len(host.seen()) == 8 * 8192
    after = host.tree.snapshot(".trt/calibration")
    assert len(caches(host.tree)) == 2
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("harm", ["sidecar gone", "sidecar malformed", "sidecar of another", "bytes"])
def test_a_cache_that_its_sidecar_does_not_vouch_for_is_never_used_nor_overwritten(
    host: Host, harm: str
) -> None:
    host.scons()
    host.seen()
    (cache,) = caches(host.tree)
    sidecar = Path(f"{cache}.sha256")
    if harm == "sidecar gone":
        sidecar.unlink()
    elif harm == "bytes":
        cache.write_bytes(cache.read_bytes() + b"y: 3c010a14\n")
    else:
        sidecar.write_text("no digest" if harm == "sidecar malformed" else "0" * 64)
    before = host.tree.snapshot(".trt/calibration")
    assert host.scons().reused == ["a"]  # the engine that is there is right
    declare(host.tree, options="workspace_mb=64")
    for _ in range(2):
        run = host.scons()
        assert (run.status, run.failed) == (2, ["a"])
        place = f"calibration cache .trt/calibration/{cache.name}: "
        assert run.reason("a").startswith(f"CalibrationCacheError: {place}")
        assert run.reason("a").endswith("restore the two files, or remove both to calibrate again")
    assert host.seen() == b""
    assert host.tree.snapshot(".trt/calibration") == before
    cache.unlink()
    sidecar.unlink(missing_ok=True)
    assert host.scons().built == ["a"]
    assert len(host.seen()) == 8 * 8192


@pytest.mark.parametrize("what", ["fail", "die"])
def test_a_build_that_ends_after_the_calibration_has_not_lost_it(host: Host, what: str) -> None:
    host.then(what)
    run = host.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert len(host.seen()) == 8 * 8192
    host.then("")
    assert host.scons().built == ["a"]
    assert host.seen() == b""


@pytest.mark.slow
def test_a_killed_scons_has_not_lost_the_calibration(host: Host) -> None:
    host.then("sleep")
    running = host.tree.start("engines", PYTHONPATH=host.path)
    sleeps, end = host.site / "tensorrt" / "sleeps", time.monotonic() + 60
    while not sleeps.exists() and time.monotonic() < end:
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert len(host.seen()) == 8 * 8192
    host.then("")
    assert host.scons().built == ["a"]
    assert host.seen() == b""


def test_reproduce_calibrates_from_the_receipt(host: Host) -> None:
    host.scons()
    host.seen()
    engine = str(host.tree.engine("a"))
    done = host.tree.cli("reproduce", engine, PYTHONPATH=host.path)
    assert done.out == f"EQUAL {engine}\n", done.err
    assert len(host.seen()) == 8 * 8192
    assert len(caches(host.tree)) == 1
