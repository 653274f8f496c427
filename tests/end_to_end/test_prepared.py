"""ONNX files that TensorRT refuses, and that the prepare step rewrites before the compile."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Tree, sha256, sound

PLACE = ".trt/onnx/a.prepared.onnx"
SHAPES = {"x": ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))}


def model(path: Path, names: tuple[str, str] = ("?", "?"), rate: bool = False) -> Path:
    """A network whose batch and height have these names: TensorRT takes dimensions of one name for equal.
    rate: with a second input, by which the result is scaled."""
    shape = [names[0], 3, names[1], 8]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    nodes = [helper.make_node("Relu", ["x"], ["r" if rate else "y"], name="relu")]
    if rate:
        inputs.append(helper.make_tensor_value_info("rate", TensorProto.FLOAT, []))
        nodes.append(helper.make_node("Mul", ["r", "rate"], ["y"], name="scale"))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    opset = [helper.make_opsetid("", 17)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("prepared") / "tree")
    model(tree.path("models/a.onnx"), rate=True)
    tree.write(f'env.Engine("a", "models/a.onnx", shapes={SHAPES}, freeze={{"rate": 2.0}})')
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a"]), run.out
    line = r"PREPARED \.trt/onnx/a\.prepared\.onnx \([\d.]+ s\) because not built before: .*1 input frozen.*"
    assert [each for each in run.lines("PREPARED") if re.fullmatch(line, each)]
    return tree


@pytest.fixture
def prepared(tmp_path: Path, prepared_once: Tree) -> Tree:
    """One engine of a model that TensorRT refuses, with a frozen input, built."""
    return prepared_once.twin(tmp_path / "tree")


def test_the_receipt_says_what_was_changed_and_nothing_is_made_twice(prepared: Tree) -> None:
    receipt = prepared.receipt("a")
    assert sound(prepared.engine("a"))
    assert receipt["inputs"][0] == {"role": "onnx", "name": PLACE, "sha256": sha256(prepared.path(PLACE))}
    (step,) = receipt["made_by"]
    assert (step["kind"], step["source"]) == ("prepare", "models/a.onnx")
    assert "1 input frozen" in step["facts"]["changes"]
    before = prepared.snapshot("engines", ".trt/onnx")
    run = prepared.scons()
    assert (run.status, run.reused, run.lines("PREPARED")) == (0, ["a"], []), run.out
    assert prepared.snapshot("engines", ".trt/onnx") == before


def test_another_value_prepares_again(prepared: Tree) -> None:
    script = prepared.path("SConstruct")
    script.write_text(script.read_text().replace("2.0", "3.0"))
    run = prepared.scons("-n", "engines")
    (line,) = run.lines("WOULD PREPARE")
    assert line.endswith('because freeze changed: {"rate": 2.0} → {"rate": 3.0}')
    assert run.reason("a") == f"{PLACE} would be built first"


def test_a_restored_clone_needs_no_onnx(prepared: Tree, tmp_path: Path) -> None:
    prepared.path(".trt/digests.json").unlink()
    clone = prepared.copy(tmp_path / "clone", "SConstruct", "models", "engines", ".trt")
    run = clone.scons(TRT_ONNX_PYTHON="/bin/false")
    assert (run.status, run.reused, run.lines("PREPARED")) == (0, ["a"], []), run.out


def test_without_onnx_the_line_says_what_would_be_rewritten(prepared: Tree, tmp_path: Path) -> None:
    prepared.path(PLACE).unlink()
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\nexec /usr/bin/env -i python3 -S "$@"\n')
    bare.chmod(0o755)
    for arguments in (("engines",), ("-n", "engines")):
        run = prepared.scons(*arguments, TRT_ONNX_PYTHON=str(bare))
        (line,) = [
            each for each in run.out.splitlines() if f"FAILED {PLACE}" in each or f"FAIL {PLACE}" in each
        ]
        wanted = "dimensions named `?` that differ in size, input `rate` to freeze"
        assert f"models/a.onnx: it must be rewritten for TensorRT ({wanted})" in line, run.out
        assert "(the extra `convert`)" in line


def test_a_model_that_no_run_has_read_is_prepared_converted_and_compared(tree: Tree) -> None:
    model(tree.path("models/a.onnx"))
    tree.write(f'env.Engine("a", "models/a.onnx", shapes={SHAPES}, precision="fp16", accuracy={{}})')
    run = tree.scons()
    assert (run.status, run.built, len(run.lines("PREPARED"))) == (0, ["a"], 1), run.out


# An ONNX that the build makes.

MADE = """
onnx = env.Command("made.onnx", "models/source.onnx", Copy("$TARGET", "$SOURCE"))
env.Engine("a", onnx, shapes={shapes}, precision={precision!r})
"""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_onnx_that_the_build_makes_is_prepared_when_it_needs_it(tree: Tree, precision: str) -> None:
    tree.write(MADE.format(shapes=SHAPES, precision=precision))
    model(tree.path("models/source.onnx"), ("batch", "height"))
    plain = tree.scons()
    assert (plain.status, plain.built, plain.lines("PREPARED")) == (0, ["a"], []), plain.out
    assert not tree.path(PLACE).exists()
    if precision == "fp32":  # it is compiled as it is
        assert "made.onnx" in [each["name"] for each in tree.receipt("a")["inputs"]]

    model(tree.path("models/source.onnx"))
    refused = tree.scons()
    assert (refused.status, refused.built, len(refused.lines("PREPARED"))) == (0, ["a"], 1), refused.out
    assert tree.scons("-q", "engines").status == 0
    assert tree.scons().reused == ["a"]

    shutil.rmtree(tree.path("engines"))
    model(tree.path("models/source.onnx"), ("batch", "height"))
    again = tree.scons()
    assert (again.status, again.built, again.lines("PREPARED")) == (0, ["a"], []), again.out


def test_engines_with_other_shapes_do_not_share_a_prepared_file(tree: Tree) -> None:
    model(tree.path("models/a.onnx"))
    tree.write(
        f"""
        env.Engine("a", "models/a.onnx", hardware="rtx_sm89", shapes={SHAPES})
        env.Engine("a", "models/a.onnx", hardware="rtx_portable", shapes={SHAPES})
        other = {{"x": (2, 3, 4, 8)}}
        env.Engine("a", "models/a.onnx", precision="fp16", hardware="rtx_portable", shapes=other)
        """
    )
    run = tree.scons("-n", "engines")
    names = re.findall(r"WOULD (?:PREPARE|CONVERT) \.trt/onnx/(\S+) because", run.out)
    assert (run.status, run.names("WOULD BUILD")) == (0, ["a", "a", "a"]), run.out
    assert names[0] == "a.prepared.onnx"
    assert re.fullmatch(r"a\.prepared(-[0-9a-f]{8})\.onnx", names[1])
    assert names[2:] == [f"a.fp16{names[1][10:19]}.onnx"]


def test_a_made_onnx_is_not_converted_from_a_file_prepared_for_other_shapes(tree: Tree) -> None:
    model(tree.path("models/source.onnx"))
    tree.write(
        f"""
        onnx = env.Command("made.onnx", "models/source.onnx", Copy("$TARGET", "$SOURCE"))
        env.Engine("a", onnx, hardware="rtx_sm89", precision="fp16", shapes={SHAPES})
        env.Engine("a", onnx, hardware="rtx_portable", precision="fp16", shapes={{"x": (2, 3, 4, 8)}})
        """
    )
    run = tree.scons("-k", "engines")
    assert (run.status, run.built) == (2, []), run.out
    assert "needs made.onnx prepared for other shapes; give one of the engines another name" in run.out


def test_what_was_quantized_for_another_runtime_may_be_calibrated_again(tree: Tree) -> None:
    """TensorRT takes uint8 for int8, so those Q/DQ nodes become float32 first."""
    weights = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    constants = {"w": weights, "s": np.float32(0.02), "z": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="product"),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", given, made, initializers)
    opset = [helper.make_opsetid("", 17)]
    tree.path("models").mkdir(exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=9), tree.path("models/a.onnx"))
    np.savez(tree.path("s.npz"), x=np.abs(weights)[None].repeat(8, 0)[:, :4])
    tree.write(
        """
        env.Engine("a", "models/a.onnx", precision="int8", calibration="s.npz")
        env.Engine("b", "models/a.onnx", precision="int8")
        """
    )
    run = tree.scons("-k", "engines")
    assert (run.built, run.failed) == (["a"], ["b"]), run.out
    assert "give calibration=, an ONNX with Q/DQ nodes of int8 and zero point 0" in run.reason("b")
    types = {tensor.data_type for tensor in onnx.load(tree.path(".trt/onnx/a.int8.onnx")).graph.initializer}
    assert TensorProto.UINT8 not in types
