"""What find_refused finds: what TensorRT for RTX refuses, and nothing of what it compiles."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from scons_tensorrt.recipe.onnx.needs_preparation import find_refused  # noqa: E402
from scons_tensorrt.recipe.onnx.read_onnx import read_onnx  # noqa: E402

F32 = TensorProto.FLOAT
node = helper.make_node


def array(name, values, dtype):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def branch(*nodes):
    return helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info(nodes[-1].output[0], F32, None)])


def choose(then, other, axis):
    """`then` where a size of x is 1, which TensorRT knows at the build only if the model states it."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", axis], ["d"]),
        node("Equal", ["d", "one"], ["c"]),
    ]
    return [*nodes, node("If", ["c"], ["y"], then_branch=then, else_branch=other)]


CONSTANTS = [array("zero", 0, np.int64), array("one", 1, np.int64), array("axes", [1], np.int64)]
WEIGHTS = [array("w", np.ones((1, 16, 4)), np.float32), array("r", np.ones((1, 16, 4)), np.float32)]
SQUEEZE = branch(node("Squeeze", ["x", "axes"], ["t"]))
SAME = branch(node("Identity", ["x"], ["e"]))
RELU = branch(node("Relu", ["x"], ["e"]))
LSTM = "LSTM inside an If, whose sequence output is unused"
RANKS = "an If with branches of different rank"


def found_in(folder, nodes, inputs, profiles=(), initializers=(), opset=17):
    values = [helper.make_tensor_value_info(name, F32, shape) for name, shape in inputs.items()]
    outputs = [helper.make_tensor_value_info("y", F32, None)]
    graph = helper.make_graph(nodes, "g", values, outputs, initializers)
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return find_refused(read_onnx(path), profiles)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ((1, 2, 4), (1, 2, 8), False),  # ranges that meet, and one opt: TensorRT compiles these
        ((1, 2, 4), (2, 2, 2), False),
        ((1, 2, 4), (1, 3, 4), True),
        ((1, 2, 4), (5, 6, 8), True),
        ((48, 48, 48), (192, 192, 192), True),
    ],
)
def test_one_name_of_two_dimensions(tmp_path, first, second, refused):
    profile = {"x": tuple((size, 3) for size in first), "z": tuple((3, size) for size in second)}
    add = [helper.make_node("MatMul", ["z", "x"], ["y"])]
    found = found_in(tmp_path, add, {"x": ["?", 3], "z": [3, "?"]}, [profile])
    assert found == (("dimensions named `?` that differ in size",) if refused else ())
    assert found_in(tmp_path, add, {"x": ["n", 3], "z": [3, "m"]}, [profile]) == ()


def recurrent(*outputs):
    """A branch that returns the last output of an LSTM."""
    made = [name for name in outputs if name]
    nodes = [node("LSTM", ["x", "w", "r"], [*outputs], hidden_size=4)]
    reading = node("Identity", [made[-1]], ["t"]) if len(made) == 1 else node("Max", made, ["t"])
    return branch(*nodes, reading)


@pytest.mark.parametrize(
    ("nodes", "shape", "found"),
    [
        (choose(recurrent("", "h"), RELU, "one"), [2, 1, 4], (LSTM,)),
        (choose(recurrent("", "", "c"), RELU, "one"), [2, 1, 4], (LSTM,)),
        (choose(recurrent("all"), RELU, "one"), [2, 1, 4], ()),
        (choose(recurrent("all", "h"), RELU, "one"), [2, 1, 4], ()),
        (choose(SQUEEZE, SAME, "one"), ["n", "m", 4], (RANKS,)),
        (choose(SQUEEZE, SAME, "one"), ["n", 1, 4], ()),
        (choose(branch(node("Neg", ["x"], ["t"])), RELU, "zero"), ["n", 1, 4], ()),
    ],
    ids="hidden cell sequence both open-rank known-rank same-rank".split(),
)
def test_if(tmp_path, nodes, shape, found):
    assert found_in(tmp_path, nodes, {"x": shape}, initializers=CONSTANTS + WEIGHTS) == found


@pytest.mark.parametrize(
    ("nodes", "opt", "found"),
    [
        ([node("Squeeze", ["x"], ["y"])], (1, 1, 3), ("Squeeze without axes",)),
        ([node("Squeeze", ["x"], ["y"])], (2, 1, 3), ()),
        ([node("Squeeze", ["x", "axes"], ["y"])], (1, 1, 3), ()),
        ([node("Shape", ["x"], ["s"], end=1), node("Squeeze", ["s"], ["y"])], (1, 1, 3), ()),
    ],
    ids="one-at-opt more-at-opt axes of-a-shape".split(),
)
def test_squeeze(tmp_path, nodes, opt, found):
    profile = {"x": ((1, 1, 3), opt, (4, 1, 3))}
    assert found_in(tmp_path, nodes, {"x": ["n", 1, 3]}, [profile], CONSTANTS) == found


QDQ = "QuantizeLinear of unsigned, shifted or 32-bit integers"


@pytest.mark.parametrize(
    ("zero", "weights", "found"),
    [
        (array("z", 0, np.int8), np.int8, ()),
        (array("z", 3, np.int8), np.int8, (QDQ, f"De{QDQ[0].lower()}{QDQ[1:]}")),
        (helper.make_tensor("z", TensorProto.INT8, [], [3]), np.int8, (QDQ, f"De{QDQ[0].lower()}{QDQ[1:]}")),
        (array("z", 0, np.uint8), np.uint8, (QDQ, f"De{QDQ[0].lower()}{QDQ[1:]}")),
    ],
    ids="symmetric shifted shifted-in-int32_data unsigned".split(),
)
def test_quantized(tmp_path, zero, weights, found):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        node("DequantizeLinear", ["w", "s", "z"], ["b"]),
        node("MatMul", ["a", "b"], ["y"]),
    ]
    inits = [zero, array("s", 0.1, np.float32), array("w", np.ones((3, 3)), weights)]
    assert found_in(tmp_path, nodes, {"x": [1, 3]}, initializers=inits) == found


def test_operators_that_tensorrt_lacks_are_counted(tmp_path):
    nodes = [node("DynamicQuantizeLinear", ["x"], ["a", "s", "z"]), node("Cast", ["a"], ["y"], to=F32)]
    assert found_in(tmp_path, nodes, {"x": [1, 3]}) == ("1 DynamicQuantizeLinear",)
