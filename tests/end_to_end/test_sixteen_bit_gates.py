"""Networks that fp16 harms: the accuracy gate refuses them, says what to keep in float32, or finds it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Tree

node = helper.make_node


def saved(path: Path, nodes: list, ends: list, values: dict) -> None:
    """A network. ends: name and shape of its input and output."""
    described = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, each)] for name, each in ends]
    there = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", *described, there)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), path)


@pytest.fixture
def harmed(tree: Tree) -> Tree:
    random = np.random.default_rng(0)
    norm = [
        node("MatMul", ["x", "k"], ["b"]),
        node("ReduceMean", ["b"], ["mu"], axes=[-1]),
        node("Sub", ["b", "mu"], ["c"]),
        node("Pow", ["c", "two"], ["p"], name="Pow_12"),
        node("ReduceMean", ["p"], ["v"], axes=[-1]),
        node("Sqrt", ["v"], ["s"]),
        node("Div", ["c", "s"], ["d"]),
        node("MatMul", ["d", "k2"], ["y"]),
    ]
    values = {
        "k": random.standard_normal((64, 64)) * 60,
        "two": 2,
        "k2": random.standard_normal((64, 8)) * 0.2,
    }
    saved(tree.path("models/norm.onnx"), norm, [("x", [1, 16, 64]), ("y", [1, 16, 8])], values)
    np.savez(tree.path("norm.npz"), x=random.standard_normal((4, 16, 64)).astype(np.float32))
    depth = [node("Mul", ["x", "scale"], ["m"]), node("MatMul", ["m", "k"], ["y"])]
    values = {"scale": 1e-3, "k": random.standard_normal((64, 8)) * 0.1}
    saved(tree.path("models/depth.onnx"), depth, [("x", [1, 4, 64]), ("y", [1, 4, 8])], values)
    np.savez(tree.path("depth.npz"), x=(random.random((4, 4, 64)) * 2e5).astype(np.float32))
    large = {"k": np.diag([2e5, 1, 1e-9, 1])}
    saved(
        tree.path("models/big.onnx"),
        [node("MatMul", ["x", "k"], ["y"])],
        [("x", [2, 4]), ("y", [2, 4])],
        large,
    )
    return tree


CASES = {
    "norm": (
        'precision="fp16", accuracy=dict(inputs="norm.npz")',
        "FAILED",
        "`Pow_12` overflows fp16 (max 2,",
        "> 65,504), like 1 more tensor; keep_nodes=['Pow_12', 'v', 's'] keeps them in float32",
    ),
    "norm in bf16": (
        'precision="bf16", accuracy=dict(inputs="norm.npz", rtol=0.1, atol=0.1)',
        "CHECKED",
        "error",
    ),
    "norm by itself": (
        'precision="fp16", keep_nodes="auto", accuracy=dict(inputs="norm.npz", atol=0.01)',
        "CONVERTED",
        ": keep_nodes='auto' keeps 3 of 8 nodes in float32: Pow_12, s, v; ",
    ),
    "depth": (
        'precision="fp16", accuracy="depth.npz"',
        "FAILED",
        "input `x` overflows fp16 (max 19",
        "> 65,504); keep_nodes=['m'] keeps it in float32",
    ),
    "big": (
        'precision="fp16"',
        "CONVERTED",
        ": weights cut: 1 too large (the largest 200,000 in `k`), 1 too small",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_fp16_harms_is_told(harmed: Tree, case: str) -> None:
    options, word, *texts = CASES[case]
    name = case.split()[0]
    harmed.write(f'env.Engine("{name}", "models/{name}.onnx", {options})')
    run = harmed.scons()
    line = run.lines(word)[0]
    assert all(text in line for text in texts), line
    assert (run.status, run.built) == ((2, []) if word == "FAILED" else (0, [name])), run.out
    if "auto" in options:
        auto = harmed.receipt(name)["made_by"][0]["facts"]["auto"]
        assert auto["nodes"] == ["Pow_12", "s", "v"]
        gate = harmed.path(".trt/onnx/norm.fp16.accuracy.json")
        (record,) = harmed.path(f".trt/receipts/{gate.name}").iterdir()
        known, figures = json.loads(record.read_text()), gate.read_text()
        assert known["duration_s"] < 0.2  # the search ended with the gate, which is not computed again
        gate.unlink()
        record.unlink()
        assert harmed.scons(".trt/onnx/" + gate.name).lines("CHECKED")
        computed = json.loads(record.read_text())
        assert computed["duration_s"] > known["duration_s"]
        assert (computed["facts"], gate.read_text()) == (known["facts"], figures)
        harmed.write(
            f'env.Engine("{name}", "models/{name}.onnx", {options.replace("atol=0.01", "atol=0.5")})'
        )
        again = harmed.scons()  # the bound is in the key of the conversion, whose bytes stay
        assert "atol changed: 0.01 → 0.5" in again.lines("CONVERTED")[0]
        assert again.status == 0
