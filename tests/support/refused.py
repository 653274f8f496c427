"""Small ONNX files that TensorRT for RTX refuses: one for each entry of `REFUSALS` that was seen here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

F, I, H, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.BOOL  # noqa: E741
STACK = "pkg.torch.onnx.stack_trace"


def _model(nodes: list, inputs: dict, constants: dict = {}, opset: int = 17, output: int = F) -> ModelProto:  # noqa: B006
    """A model with output `y`, whose nodes carry a stack as PyTorch's exporter leaves it."""
    frames = 'File "/home/u/net/model.py", line 42, in forward\n    return self.step(x)\n'
    library = 'File "/usr/lib/python3/site-packages/torch/nn/functional.py", line 7, in step\n    step()'
    for node in nodes:
        node.metadata_props.add(key=STACK, value=frames + library)
    given = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()]
    made = [helper.make_tensor_value_info("y", output, None)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "net", given, made, weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _node(kind: str, inputs: str = "x", outputs: str = "y", **more: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), name="step", **more)


def _branches() -> ModelProto:
    value = helper.make_tensor_value_info
    then = helper.make_graph([helper.make_node("Squeeze", ["x", "a"], ["t"])], "t", [], [value("t", F, None)])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "e", [], [value("e", F, None)])
    node = _node("If", "c", then_branch=then, else_branch=other)
    return _model([node], {"x": (F, [1, 4]), "c": (B, [])}, {"a": np.array([0])})


IMAGE = {"x": (F, [1, 4, 8, 8])}
ONES = np.ones(4, np.float32)
HALF = np.array([1, 1, 0.5, 0.5], np.float32)
PAIR = {"x": (F, [4, 4]), "i": (I, [2, 1]), "u": (F, [2, 4])}

# By the beginning of the advice: the model, and its shapes.
REFUSED: dict[str, tuple[Callable[[], ModelProto], Any]] = {
    "ONNX Runtime's optimizer": (lambda: _model([_node("FusedGelu", domain="com.microsoft")], IMAGE), None),
    "if it is an operator of ONNX": (lambda: _model([_node("DFT")], {"x": (F, [1, 8, 1])}), None),
    "TensorRT has no sequences": (
        lambda: _model([_node("SplitToSequence", "x", "s"), _node("SequenceAt", "s k")], IMAGE, {"k": 0}),
        None,
    ),
    "TensorRT takes only Q/DQ nodes": (
        lambda: _model([_node("DynamicQuantizeLinear", "x", "y s z")], IMAGE, output=TensorProto.UINT8),
        None,
    ),
    "the branches of an If": (_branches, None),
    "TopK takes 3840": (
        lambda: _model([_node("TopK", "x k", "y i")], {"x": (F, [1, 9000])}, {"k": np.array([5000])}),
        None,
    ),
    "export the resize": (
        lambda: _model([_node("Resize", "x  s".replace("  ", " x "), antialias=1)], IMAGE, {"s": HALF}, 18),
        None,
    ),
    "sizes must be integers": (
        lambda: _model([_node("Resize", "x r s")], {**IMAGE, "s": (F, [4])}, {"r": ONES[:0]}),
        None,
    ),
    "cast one of the inputs": (
        lambda: _model([_node("Add", "x h")], {**IMAGE, "h": (H, [1, 4, 8, 8])}),
        None,
    ),
    "TensorRT quantizes symmetrically": (
        lambda: _model(
            [_node("QuantizeLinear", "x s z", "q"), _node("DequantizeLinear", "q s z")],
            IMAGE,
            {"s": np.float32(0.1), "z": np.int8(3)},
        ),
        None,
    ),
    "TensorRT scatters without adding": (
        lambda: _model([_node("ScatterND", "x i u", reduction="add")], PAIR, opset=18),
        None,
    ),
    "TensorRT has no tensors of this type": (
        lambda: _model([_node("Cast", "x", to=F)], {"x": (TensorProto.UINT16, [4])}),
        None,
    ),
    "cast to float before": (
        lambda: _model([_node("Relu")], {"x": (TensorProto.INT32, [4])}, output=TensorProto.INT32),
        None,
    ),
    "cast the inputs to a type": (lambda: _model([_node("Add", "x x")], {"x": (B, [4])}, output=B), None),
    "only one size of a reshape": (
        lambda: _model([_node("Reshape", "x s")], {"x": (F, ["a", "b"])}, {"s": np.array([-1, -1])}),
        {"x": (1, 2)},
    ),
    "the sizes do not fit": (
        lambda: _model([_node("MatMul", "x w")], {"x": (F, [4, 5])}, {"w": np.ones((6, 7), np.float32)}),
        None,
    ),
    "export the model in evaluation": (
        lambda: _model(
            [_node("BatchNormalization", "x a a a a", "y m v", training_mode=1)], IMAGE, {"a": ONES}
        ),
        None,
    ),
}
