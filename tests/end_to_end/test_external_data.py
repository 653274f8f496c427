"""External data that is a git-lfs pointer, cut, overlong or linked, in every precision."""

import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run, Tree, make_model
from onnx import TensorProto, helper

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 16384\n"
)
WEIGHTS = np.full((64, 64), 0.5, np.float32).tobytes()
SAMPLES = np.random.default_rng(0).standard_normal((8, 1, 8, 16, 16)).astype(np.float32)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def matmul(path: Path, data: bytes, **entries: int) -> None:
    """y = x · w, whose w lies in `path`.w. entries: of its external data, beside the location."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": path.stem + ".w", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 64]) for n in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    path.with_suffix(".w").write_bytes(data)


def in_every_precision(tree: Tree, onnx: str) -> Run:
    np.savez(tree.path("models/s.npz"), x=np.ones((8, 2, 64), np.float32))
    tree.write(
        f"""
        for precision in {PRECISIONS}:
            more = dict(calibration="models/s.npz") if precision == "int8" else {{}}
            env.Engine("m", {onnx!r}, precision=precision, **more)
        """
    )
    return tree.scons("-k", "engines")


WRONG = {
    "a pointer": (POINTER, {}, "external data 'm.w' of models/m.onnx is a git-lfs pointer"),
    "a pointer, length told": (POINTER, {"length": 16384}, "is a git-lfs pointer, not the data; run"),
    "cut": (WEIGHTS[:16000], {}, "has 16000 bytes and the model needs 16384: it is cut short"),
    "cut, length told": (WEIGHTS[:16000], {"offset": 0, "length": 16384}, "it is cut short"),
    "empty": (b"", {}, "has 0 bytes and the model needs 16384"),
    "more than the tensor": (WEIGHTS + b"x" * 100, {}, "the data must end with the file"),
    "length too small": (WEIGHTS, {"length": 160}, "tensor `w` has 160 bytes of external data 'm.w'"),
    "length too large": (WEIGHTS * 2, {"length": 32768}, "and its type and shape take 16384"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_external_data_is_named_in_one_line(tree: Tree, wrong: str) -> None:
    data, entries, reason = WRONG[wrong]
    matmul(tree.path("models/m.onnx"), data, **entries)
    run = in_every_precision(tree, "models/m.onnx")
    assert run.status == 2
    told = [line for line in run.lines("FAILED") if reason in line]
    assert len(told) == len(PRECISIONS), run.out
    assert all("RecipeError: " in line and "models/m.onnx" in line for line in told)


@pytest.mark.parametrize(
    "entries", [{}, {"offset": 4096}, {"offset": 4096, "length": 16384}, {"length": 16384}], ids=str
)
def test_right_external_data_is_taken(tree: Tree, entries: dict) -> None:
    before = b"p" * entries.get("offset", 0)
    matmul(tree.path("models/m.onnx"), before + WEIGHTS + b"p" * 9 * ("length" in entries), **entries)
    run = in_every_precision(tree, "models/m.onnx")
    assert (run.status, len(run.built)) == (0, len(PRECISIONS)), run.out


def test_a_pointer_of_exactly_the_tensors_size_is_no_data(tree: Tree) -> None:
    matmul(tree.path("models/m.onnx"), POINTER.ljust(512, b"\n"), length=512)
    made = onnx.load(tree.path("models/m.onnx"), load_external_data=False)
    made.graph.initializer[0].dims[:] = [64, 2]
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    tree.path("models/m.onnx").write_bytes(made.SerializeToString())
    run = in_every_precision(tree, "models/m.onnx")
    told = [line for line in run.lines("FAILED") if "is a git-lfs pointer, not the data" in line]
    assert len(told) == len(PRECISIONS), run.out


def test_an_onnx_that_is_a_pointer_is_told(tree: Tree) -> None:
    tree.path("models/m.onnx").write_bytes(POINTER)
    run = in_every_precision(tree, "models/m.onnx")
    told = [
        line
        for line in run.lines("FAILED")
        if "models/m.onnx: it is a git-lfs pointer, not the model; run `git lfs pull`" in line
    ]
    assert len(told) == len(PRECISIONS), run.out
