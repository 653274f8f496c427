"""Engines that are compared at the corners of their profiles, without samples, by scons."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from conftest import Tree

SHAPES = '{"x": ((1, 8), (2, 8), (4, 8))}'


def write_model(path: Path, *nodes: tuple[str, ...]) -> None:
    """A network of x [n, 8] to y. nodes: (operator, inputs…) in a chain."""
    made, last = [], "x"
    for number, (kind, *more) in enumerate(nodes):
        made.append(helper.make_node(kind, [last, *more], [f"t{number}"]))
        last = f"t{number}"
    made.append(helper.make_node("Identity", [last], ["y"]))
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8]) for n in "xy"]
    big = helper.make_tensor("big", TensorProto.FLOAT, [1], [300.0])
    graph = helper.make_graph(made, "g", tensors[:1], tensors[1:], [big])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("corners") / "tree")
    write_model(tree.path("models/a.onnx"), ("Add", "x"))
    tree.write(f'env.Engine("a", "models/a.onnx", shapes={SHAPES})')
    assert tree.scons().built == ["a"]
    return tree


@pytest.fixture
def plain(tmp_path: Path, once: Tree) -> Tree:
    """An engine without a gate, built."""
    return once.twin(tmp_path / "tree")


def test_a_gate_that_is_added_runs_once_and_compiles_nothing(plain: Tree) -> None:
    plain.path("engines.toml").write_text(
        '[engine.a]\nonnx = "models/a.onnx"\nshapes = { x = "1x8:2x8:4x8" }\naccuracy = {}\n'
    )
    plain.write("env.EnginesFromFile()")
    run = plain.scons("engines-report")
    assert (run.status, run.reused) == (0, ["a"]), run.out
    (line,) = run.lines("CHECKED")
    assert "nothing to compare: the ONNX is compiled as it is; 3 corners in " in line
    told = plain.receipt("a")["accuracy"]["onnx"]
    assert [row["corner"] for row in told["corners"]["table"]] == ["min", "opt", "max"]
    report = json.loads(plain.path(".trt/report/report.json").read_text())
    assert [row["rows"] for row in report["engines"][0]["accuracy"]["corners"]][1:] == ["kept apart"] * 2
    assert not plain.scons().lines("CHECKED")


def test_a_wrong_conversion_fails_without_samples(plain: Tree) -> None:
    """x * 300 * 300 / 300 / 300 is infinite in fp16, and within the bound in float32."""
    write_model(plain.path("models/a.onnx"), *[("Mul", "big")] * 2, *[("Div", "big")] * 2)
    plain.write(f'env.Engine("a", "models/a.onnx", precision="fp16", shapes={SHAPES}, accuracy={{}})')
    run = plain.scons()
    line = run.lines("FAILED")[0]
    assert "AccuracyError: models/a.onnx: corner min (`x` [1, 8]): output `y` is " in line
    assert "overflows fp16 (max " in line
    assert run.failed == ["a"]


@pytest.mark.slow
def test_another_reference_is_compared_at_the_corners(plain: Tree) -> None:
    write_model(plain.path("models/b.onnx"), ("Mul", "x"))
    plain.write(
        f'env.Engine("a", "models/a.onnx", shapes={SHAPES}, accuracy=dict(reference="models/b.onnx"))'
    )
    run = plain.scons()
    assert "models/b.onnx: corner min (`x` [1, 8]): output `y`: elemwise error " in run.lines("FAILED")[0]
    assert "give inputs= of real use, widen rtol= or atol=, or correct the model" in run.lines("FAILED")[0]


def test_one_model_with_other_shapes_for_other_hardware(plain: Tree) -> None:
    plain.write(
        f"""
        env.Engine("a", "models/a.onnx", hardware="rtx_portable", shapes={SHAPES}, accuracy={{}})
        env.Engine("a", "models/a.onnx", hardware="rtx_sm89", shapes={{"x": ((1, 8), (3, 8), (9, 8))}},
                   accuracy={{}})
        """
    )
    run = plain.scons("-n", "engines")
    assert run.status == 0, run.out
    names = {line.split()[2] for line in run.lines("WOULD CHECK")}
    assert len(names) == 2
    assert ".trt/onnx/a.fp32.accuracy.json" in names
