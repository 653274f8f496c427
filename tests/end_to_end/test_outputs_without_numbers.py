"""Outputs that are no tensors of numbers, and what an accuracy gate says of them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from conftest import Tree

FLOAT = TensorProto.FLOAT
FLOATS = helper.make_tensor_type_proto(FLOAT, None)
OUTPUTS = {
    "SequenceConstruct": (
        helper.make_node("SequenceConstruct", ["x", "y"], ["s"]),
        helper.make_sequence_type_proto(FLOATS),
        "seq(tensor(float))",
    ),
    "SplitToSequence": (
        helper.make_node("SplitToSequence", ["y"], ["s"], axis=1),
        helper.make_sequence_type_proto(FLOATS),
        "seq(tensor(float))",
    ),
    "SequenceEmpty": (
        helper.make_node("SequenceEmpty", [], ["s"], dtype=FLOAT),
        helper.make_sequence_type_proto(FLOATS),
        "seq(tensor(float))",
    ),
    "strings": (
        helper.make_node("Constant", [], ["s"], value_strings=["a"]),
        helper.make_tensor_type_proto(TensorProto.STRING, [1]),
        "tensor(string)",
    ),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_gate_names_an_output_that_cannot_be_compared(tree: Tree, kind: str) -> None:
    node, type_proto, told = OUTPUTS[kind]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 4])],
        [
            helper.make_tensor_value_info("y", FLOAT, [1, 4]),
            helper.make_value_info("s", type_proto),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tree.path("models/m.onnx"))
    np.savez(tree.path("s.npz"), x=np.ones((2, 1, 4), np.float32))
    tree.write('env.Engine("m", "models/m.onnx", precision="fp16", accuracy="s.npz")')
    run = tree.scons()
    assert run.status == 2
    [line] = [each for each in run.lines("FAILED") if ".accuracy.json:" in each]
    assert line.endswith(
        f"RecipeError: models/m.onnx: output `s` is {told}, which accuracy= cannot compare: make it a "
        "tensor of numbers in the ONNX, or leave out accuracy="
    )
