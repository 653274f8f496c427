"""Which layers of a quantized model run in 8 bit; and that the gate computes Q/DQ pairs as written."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from scons_tensorrt.worker.onnx import converted_accuracy
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.quantized_layers import describe

RANDOM = np.random.default_rng(20)
OPTIONS = {"rtol": 0.0, "atol": 0.5, "metric": "elemwise"}


def node(op, inputs, output, **more):
    return helper.make_node(op, inputs.split(), [output], name=f"{op}_{output}", **more)


def pair(of, made, scale="s"):
    return [
        node("QuantizeLinear", f"{of} {scale} z", made + "_q"),
        node("DequantizeLinear", f"{made}_q {scale} z", made),
    ]


def saved(path, nodes, constants, shapes):
    """A model with the input x and the output y. shapes: of both."""
    constants = {"z": np.int8(0), "s": np.float32(0.5), **constants}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in "xy"]
    there = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], there)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


def drawn(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture
def mixed(tmp_path):
    """A Conv and a MatMul in 8 bit, the latter's weight transposed behind its pair; a MatMul whose input is
    in float; an Add that reads an 8-bit tensor."""
    nodes = [
        *pair("x", "xd"),
        *pair("w", "wd"),
        node("Conv", "xd wd", "c", pads=[1, 1, 1, 1]),  # 1 x 4 x 6 x 6
        *pair("c", "cd"),
        node("Add", "c cd", "sum"),
        *pair("sum", "sd"),
        *pair("k", "kd"),
        node("Transpose", "kd", "kt", perm=[1, 0]),
        node("MatMul", "sd kt", "m"),  # 1 x 4 x 6 x 5
        *pair("l", "ld"),
        node("MatMul", "m ld", "y"),  # 1 x 4 x 6 x 2
    ]
    constants = {"w": drawn(4, 3, 3, 3), "k": drawn(5, 6), "l": drawn(5, 2)}
    return saved(tmp_path / "mixed.onnx", nodes, constants, {"x": ["n", 3, 6, 6], "y": None})


def test_layers_and_multiplications_are_counted(mixed):
    found = describe(mixed, {"x": [2, 3, 6, 6]})
    conv, first, second = 2 * 4 * 6 * 6 * 27, 2 * 4 * 6 * 5 * 6, 2 * 4 * 6 * 2 * 5
    assert found == {
        "layers": 2,
        "of": 3,
        "macs": round((conv + first) / (conv + first + second), 4),
        "in_float": ["MatMul_y (MatMul)"],
        "beside": {"Add": 1},
    }
    assert describe(mixed, {})["macs"] is None  # the batch is not known


def test_the_gate_says_it_of_quantized_models_alone(mixed, tmp_path):
    plain = saved(
        tmp_path / "plain.onnx", [node("Relu", "x", "y")], {}, {"x": ["n", 3, 6, 6], "y": ["n", 3, 6, 6]}
    )
    assert describe(plain, {}) is None
    corners = {"profiles": [{"x": [[2, 3, 6, 6]] * 3}], "precision": "int8"}
    figures = converted_accuracy.compare(
        mixed, mixed, str(tmp_path / "f.json"), None, {**OPTIONS, "corners": corners}
    )
    assert (figures["quantized"]["layers"], figures["quantized"]["of"]) == (2, 3)
    assert figures["quantized"]["macs"] > 0.9
    alone = converted_accuracy.compare(
        mixed, None, str(tmp_path / "f.json"), None, {**OPTIONS, "corners": corners}
    )
    assert alone["quantized"] == figures["quantized"]


def test_the_gate_computes_pairs_as_they_are_written(tmp_path):
    """By itself, ONNX Runtime would round the bias to whole steps of 0.25, to 0."""
    nodes = [*pair("x", "xd"), *pair("w", "wd"), node("Conv", "xd wd b", "c"), *pair("c", "y", "fine")]
    constants = {"w": drawn(2, 3, 1, 1), "b": np.float32([0.1, -0.1]), "fine": np.float32(0.01)}
    path = saved(tmp_path / "m.onnx", nodes, constants, {"x": [1, 3, 4, 4], "y": None})
    inputs = {"x": drawn(1, 3, 4, 4)}
    as_written = onnxruntime.SessionOptions()
    as_written.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, as_written, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, inputs)
    assert abs(wanted - np.round(wanted * 4) / 4).max() > 0.09  # the biases are not whole steps
    np.testing.assert_array_equal(CpuModel(path, "it").run("a sample", inputs, ["y"])[0], wanted)


def test_receipts_get_a_histogram_of_each_output(tmp_path):
    nodes = [node("Mul", "x two", "y")]
    there = {"x": [8], "y": [8]}
    once = saved(tmp_path / "a.onnx", nodes, {"two": np.float32(2)}, there)
    other = saved(tmp_path / "b.onnx", nodes, {"two": np.float32(2.1)}, there)
    np.savez(tmp_path / "s.npz", x=np.arange(16, dtype=np.float32).reshape(2, 8) / 8)
    spec = {"kind": "npz", "path": str(tmp_path / "s.npz"), "function": None, "most": None, "at_least": 1}
    figures = converted_accuracy.compare(once, other, str(tmp_path / "f.json"), spec, OPTIONS)
    found = figures["outputs"]["y"]["histogram"]
    assert figures["outputs"]["y"]["sample"] == 1
    assert (found["low"], found["high"]) == (2.0, pytest.approx(2.1 * 15 / 8))
    assert len(found["original"]) == len(found["converted"]) == 32
    assert sum(found["original"]) == sum(found["converted"]) == 8
    assert found["original"][-1] == 0
    assert found["converted"][-1] == 1
