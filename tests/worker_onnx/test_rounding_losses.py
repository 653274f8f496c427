"""Networks that fp16 or bf16 harm: the message names the tensor, and the nodes that it names keep it."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import converted_accuracy, precision

FLOAT = TensorProto.FLOAT
node, info = helper.make_node, helper.make_tensor_value_info


def array(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def saved(folder, nodes, shape, initializers, samples):
    """The gate's job for a network of input `x` and output `y`."""
    ends = [info("x", FLOAT, shape)], [info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", *ends, initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "source.onnx")
    np.savez(folder / "s.npz", x=np.asarray(samples, np.float32))


def gate(folder, to="fp16", nodes=(), rtol=0.01, atol=0.01):
    """Convert, and compare as the accuracy gate does."""
    source, target = str(folder / "source.onnx"), str(folder / "target.onnx")
    options = {"to": to, "keep_ops": [], "keep_nodes": list(nodes), "keep_io": True}
    precision.convert(source, target, options)
    spec = {"kind": "npz", "path": str(folder / "s.npz"), "function": None, "most": None, "at_least": 1}
    bounds = {"metric": "elemwise", "rtol": rtol, "atol": atol}
    return converted_accuracy.compare(source, target, str(folder / "figures.json"), spec, bounds)


def refused(folder, **how):
    with pytest.raises(WorkerError) as error:
        gate(folder, **how)
    return str(error.value)


def nodes_in(message):
    """The nodes that a message says to keep."""
    return re.findall("'([^']+)'", re.search(r"keep_nodes=\[(.*?)\]", message)[1])


def norm(folder, name=""):
    """A LayerNorm written out: squares pass 65504 from 256 on."""
    random = np.random.default_rng(0)
    nodes = [
        node("MatMul", ["x", "k"], ["b"]),
        node("ReduceMean", ["b"], ["mu"], axes=[-1]),
        node("Sub", ["b", "mu"], ["c"]),
        node("Pow", ["c", "two"], ["p"], name=name),
        node("ReduceMean", ["p"], ["v"], axes=[-1]),
        node("Sqrt", ["v"], ["s"]),
        node("Div", ["c", "s"], ["d"]),
        node("MatMul", ["d", "k2"], ["y"]),
    ]
    weights = random.standard_normal((64, 64)) * 60, random.standard_normal((64, 8)) * 0.2
    there = [array("k", weights[0]), array("two", 2), array("k2", weights[1])]
    saved(folder, nodes, [1, 16, 64], there, random.standard_normal((2, 1, 16, 64)))


@pytest.mark.parametrize("name", ["", "Pow_12"])
def test_what_overflows_is_named_and_keeping_what_is_named_passes(tmp_path, name):
    norm(tmp_path, name)
    message = refused(tmp_path)
    assert f"; `{name or 'p'}`" in message
    assert re.search(r" overflows fp16 \(max 2,\d{3},\d{3} > 65,504\), like 1 more tensor; ", message)
    kept = nodes_in(message)
    assert kept == [name or "p", "v", "s"]
    assert gate(tmp_path, nodes=kept)["outputs"]["y"]["error"] < 0.01
    assert gate(tmp_path, to="bf16", rtol=0.1, atol=0.1)


def test_a_node_with_the_name_of_an_output_is_no_obstacle(tmp_path):
    """The conversion adds a cast of that name."""
    nodes = [node("Mul", ["x", "big"], ["m"], name="scale"), node("Div", ["m", "big"], ["y"], name="y")]
    saved(tmp_path, nodes, [4], [array("big", 4e4)], np.ones((2, 4)) * 3)
    assert "`scale` (Mul) overflows fp16 (max 120,000 > 65,504)" in refused(tmp_path)
    saved(tmp_path, nodes, [4], [array("big", 4)], np.ones((2, 4)) * 3)
    assert gate(tmp_path)["outputs"]["y"]["error"] == 0


def test_an_input_that_overflows_is_named_with_what_reads_it(tmp_path):
    nodes = [node("Mul", ["x", "scale"], ["m"]), node("MatMul", ["m", "k"], ["y"])]
    random = np.random.default_rng(0)
    there = [array("scale", 1e-3), array("k", random.standard_normal((64, 8)) * 0.1)]
    saved(tmp_path, nodes, [1, 4, 64], there, random.random((2, 1, 4, 64)) * 2e5)
    message = refused(tmp_path, atol=0.1)
    assert re.search(
        r"; input `x` overflows fp16 \(max 199,\d{3} > 65,504\); keep_nodes=\['m'\] keeps it", message
    )
    assert gate(tmp_path, nodes=["m"], atol=0.1)


def test_what_becomes_zero_and_divides_is_named(tmp_path):
    nodes = [
        node("Mul", ["x", "x"], ["squares"]),
        node("Div", ["x", "squares"], ["d"], name="inverse"),
        node("Mul", ["d", "small"], ["y"]),
    ]
    saved(tmp_path, nodes, [1, 8], [array("small", 1e-4)], [np.full((1, 8), 1e-4)])
    message = refused(tmp_path)
    assert "; `squares` (Mul) loses most" in message or "; `inverse` (Div) is not finite in fp16" in message
    assert gate(tmp_path, nodes=["squares", "inverse"])


def test_the_node_that_loses_most_is_named(tmp_path):
    """A difference of large numbers, among harmless nodes."""
    nodes = [
        node("Add", ["x", "large"], ["a"], name="raise"),
        node("Sub", ["a", "large"], ["b"], name="lower"),
        node("Relu", ["b"], ["r"]),
        node("Mul", ["r", "half"], ["y"]),
    ]
    given = np.random.default_rng(1).random((2, 1, 64))
    saved(tmp_path, nodes, [1, 64], [array("large", 2000), array("half", 0.5)], given)
    message = refused(tmp_path)
    assert "; `lower` (Sub) loses most in fp16 (relative error 0." in message
    assert gate(tmp_path, nodes=["raise", "lower"])


def test_a_weight_that_is_cut_is_named(tmp_path):
    nodes = [node("MatMul", ["x", "k"], ["t"]), node("Mul", ["t", "s"], ["y"])]
    saved(tmp_path, nodes, [1, 4], [array("k", np.eye(4) * 2e5), array("s", 1e-3)], np.full((1, 1, 4), 0.01))
    assert "; weight `k` was cut to fp16's 65,504 (max 200,000); " in refused(tmp_path)


def test_a_tensor_inside_a_branch_counts_as_the_output_of_its_if(tmp_path):
    then = helper.make_graph([node("Mul", ["x", "x"], ["t"])], "then", [], [info("t", FLOAT, None)])
    other = helper.make_graph([node("Neg", ["x"], ["e"])], "else", [], [info("e", FLOAT, None)])
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["c"]),
        node("If", ["c"], ["big"], name="branch", then_branch=then, else_branch=other),
        node("Mul", ["big", "small"], ["y"]),
    ]
    saved(tmp_path, nodes, [1, 8], [array("zero", 0), array("small", 1e-4)], np.full((1, 1, 8), 1000))
    message = refused(tmp_path)
    assert "; `branch` (If) overflows fp16 (max 1,000,000 > 65,504); keep_nodes=['branch', 'y']" in message
    assert gate(tmp_path, nodes=["branch", "y"])
