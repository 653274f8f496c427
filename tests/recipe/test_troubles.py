"""What find_troubles finds: what TensorRT for RTX refuses, and nothing of what it compiles."""

import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from scons_tensorrt.recipe.onnx.troubles import find_troubles  # noqa: E402
from scons_tensorrt.recipe.onnx.walk import read_onnx  # noqa: E402

F32 = TensorProto.FLOAT


def troubles(folder, nodes, inputs, profiles, initializers=(), opset=17):
    values = [helper.make_tensor_value_info(name, F32, shape) for name, shape in inputs.items()]
    outputs = [helper.make_tensor_value_info("y", F32, None)]
    graph = helper.make_graph(nodes, "g", values, outputs, initializers)
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return find_troubles(read_onnx(path), profiles)


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
    found = troubles(tmp_path, add, {"x": ["?", 3], "z": [3, "?"]}, [profile])
    assert found == (("dimensions named `?` that differ in size",) if refused else ())
    assert troubles(tmp_path, add, {"x": ["n", 3], "z": [3, "m"]}, [profile]) == ()
