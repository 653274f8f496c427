"""JetPack 5.1 and 6.0: the compile worker runs under their Python, over the API surfaces of TensorRT 8. A C
library plays the driver."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from old_python import python, with_surface

from conftest import Run, Tree, hardware, make_model

IMAGES = {  # Python, surface, JetPack, and what the filename says
    "5.1": ("3.8", "tensorrt-8.5.2.2", "__sm87_jp5.1_trt8.5_"),
    "6.0": ("3.10", "tensorrt-8.6.1", "__sm87_jp6.0_trt8.6_"),
}


@pytest.fixture(params=IMAGES)
def jetson(request: pytest.FixtureRequest, tree: Tree, driver: Path, tmp_path: Path) -> Tree:
    version, surface, _ = IMAGES[request.param]
    interpreter = python(version)
    if not interpreter:
        pytest.skip(f"no Python {version}")
    tree.environment["LD_LIBRARY_PATH"] = str(driver)
    command = with_surface(tmp_path / "old", interpreter, surface)
    tree.environment["TRT_PYTHON"] = str(command)
    tree.environment["TRT_HARDWARE"] = "board"
    version = surface.partition("-")[2]
    fields = {"runtime_version": version, "jetpack": request.param, "machine": platform.machine()}
    hardware(tree.path("hardware/board.json"), **fields)
    make_model(tree.path("models/a.onnx"), shape=("n", 8, 4, 4))
    tree.jetpack = request.param
    return tree


def declare(tree: Tree, **options: object) -> Run:
    shapes = {"x": ((1, 8, 4, 4), (2, 8, 4, 4), (4, 8, 4, 4))}
    tree.write(f'env.Engine("a", "models/a.onnx", shapes={shapes}, **{options})')
    return tree.scons()


def test_an_engine_is_built_named_and_reused(jetson: Tree) -> None:
    run = declare(jetson, precision="fp16", optimization_level=3)  # 3: TensorRT's own default
    assert (run.status, run.built) == (0, ["a"]), run.out
    assert IMAGES[jetson.jetpack][2] + "fp16.engine" in run.lines("BUILT")[0]
    receipt = json.loads(next(jetson.path(".trt/receipts").glob("*/*.json")).read_text())
    assert receipt["worker"]["python"].startswith(IMAGES[jetson.jetpack][0] + ".")
    assert jetson.scons().reused == ["a"]
    assert list(jetson.path(".trt/timing").glob("*.cache"))


@pytest.mark.slow
def test_what_the_version_lacks_is_refused_in_one_line(jetson: Tree) -> None:
    run = declare(jetson, precision="bf16")
    assert run.failed == ["a"]
    title = f"TensorRT {IMAGES[jetson.jetpack][1][9:]}"
    assert run.reason("a") == f"RecipeError: precision bf16 is not supported by {title}"
