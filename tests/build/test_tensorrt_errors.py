"""What a refusal of TensorRT is told to mean, by messages that were recorded or that others reported."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from scons_tensorrt.build.tensorrt_errors import explain

SCRIPTED = (
    "/usr/lib/python3/site-packages/torch/nn/modules/module.py(1102): _slow_forward\n"
    "C:\\net\\head.py(7): forward\n/srv/net/main.py(90): <module>"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a node in a branch of its second node."""
    value = helper.make_tensor_value_info
    inner = helper.make_node("Squeeze", ["x"], ["t"], name="/head/Squeeze_2")
    inner.doc_string = SCRIPTED
    then = helper.make_graph([inner], "then", [], [value("t", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="/head/Relu"),
        helper.make_node("If", ["c"], ["y"], name="/head/If", then_branch=then, else_branch=then),
    ]
    inputs = [value("x", TensorProto.FLOAT, ["a", 1]), value("c", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "net", inputs, [value("y", TensorProto.FLOAT, None)])
    path = tmp_path_factory.mktemp("refusals") / "a.onnx"
    onnx.save_model(helper.make_model(graph), path)
    return path


SQUEEZE = "!isDynamic(shape): Cannot infer squeeze dimensions from a dynamic shape!"
FOREIGN = (
    "Could not find any implementation for node {ForeignNode[/head/Relu.../head/If + (Unnamed Layer* 3)]}."
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (  # a node of a local function has a number there, so it is found by its name
            f"the parser refused node 0 `/head/Squeeze_2` (Squeeze) in outer > inner: {SQUEEZE}",
            "the parser refused node 0 `/head/Squeeze_2` (Squeeze), made at net/head.py:7, in outer > inner: "
            f"{SQUEEZE}; name the axes: in PyTorch, squeeze(dim)",
        ),
        (  # TensorRT 8
            f"the parser refused node 1: {SQUEEZE}",
            f"the parser refused node 1 `/head/If` (If): {SQUEEZE}; name the axes: in PyTorch, squeeze(dim)",
        ),
        (
            f"the builder refused the network: {FOREIGN}",
            f"the builder refused the network: {FOREIGN}; node 0 `/head/Relu` (Relu); raise workspace_mb=,",
        ),
        (
            "the builder refused the network: IIfConditionalOutputLayer /head/If_OutputLayer: inputs must "
            "have the same shape. In validate at /_src/optimizer/api/network.cpp:4023",
            "the builder refused the network: IIfConditionalOutputLayer /head/If_OutputLayer: inputs must "
            "have the same shape.; node 1 `/head/If` (If); the branches of an If differ in rank: ",
        ),
        ("the parser refused node 7 `gone` (Abs): x", "the parser refused node 7 `gone` (Abs): x"),
        ("the builder refused the network: no reason", "the builder refused the network: no reason"),
        ("the compiler crashed (SIGSEGV)", "the compiler crashed (SIGSEGV)"),
    ],
)
def test_a_message_gets_the_node_its_line_and_advice(model: Path, message: str, told: str) -> None:
    found = explain(message, model)
    assert found.startswith(told)
    assert told.endswith((",", ": ")) or found == told


def test_a_model_that_cannot_be_read_takes_nothing_from_the_message(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    message = "the parser refused node 0 `a` (Abs): K exceeds the maximum value allowed (3840)"
    for data in (None, b"", b"\xff" * 100):
        if data is not None:
            path.write_bytes(data)
        assert explain(message, path).startswith(f"{message}; TopK takes 3840 at most")
