"""Models whose layers are local functions, as exporters write them that keep modules."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Tree

FLOAT = TensorProto.FLOAT
BLOCKS = 3


def blocks(path: Path, function_opset: int = 18, with_data: bool = False) -> None:
    """A Conv, then `BLOCKS` calls of a function that has a Conv and a Relu."""
    random = np.random.default_rng(0)
    weights = [(random.standard_normal((8, 8, 3, 3)) * 0.1).astype(np.float32) for _ in range(BLOCKS + 1)]
    body = [
        helper.make_node("Conv", ["a", "b"], ["d"], pads=[1] * 4),
        helper.make_node("Relu", ["d"], ["c"]),
    ]
    opset = helper.make_opsetid("", function_opset)
    block = helper.make_function("pkg", "Block", ["a", "b"], ["c"], body, [opset])
    nodes = [helper.make_node("Conv", ["x", "w0"], ["h0"], "stem", pads=[1] * 4)]
    for index in range(BLOCKS):
        inputs = [f"h{index}", f"w{index + 1}"]
        nodes.append(helper.make_node("Block", inputs, [f"h{index + 1}"], f"block{index}", domain="pkg"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 8, 8, 8])],
        [helper.make_tensor_value_info(f"h{BLOCKS}", FLOAT, [1, 8, 8, 8])],
        [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pkg", 1)]
    made = helper.make_model(graph, opset_imports=opsets, functions=[block], ir_version=9)
    external = {"save_as_external_data": True, "location": "m.bin", "size_threshold": 0}
    onnx.save(made, path, **(external if with_data else {}))


@pytest.fixture
def functions(tree: Tree) -> Tree:
    blocks(tree.path("models/m.onnx"))
    random = np.random.default_rng(1)
    np.savez(tree.path("s.npz"), x=random.standard_normal((8, 8, 8, 8)).astype(np.float32))
    tree.write(
        """
        env.Engine("m", "models/m.onnx", precision="int8", calibration="s.npz",
                   accuracy=dict(inputs="s.npz", atol=0.1))
        """
    )
    return tree


def facts(tree: Tree) -> dict:
    found = [json.loads(path.read_text()) for path in tree.path(".trt/receipts").glob("*/*.json")]
    return next(each["facts"] for each in found if each.get("kind") == "quantize")


@pytest.mark.parametrize("with_data", [False, True], ids=["weights inside", "external data"])
def test_int8_quantizes_the_nodes_of_local_functions(functions: Tree, with_data: bool) -> None:
    blocks(functions.path("models/m.onnx"), with_data=with_data)
    run = functions.scons()
    assert (run.status, run.built) == (0, ["m"]), run.out
    assert facts(functions)["quantized"] == {"Conv": BLOCKS + 1}
    assert facts(functions)["skipped"] == []
    assert functions.path(".trt/onnx/m.int8.onnx.data").exists() == with_data
    assert functions.scons().reused == ["m"]


def test_a_function_that_cannot_be_inlined_is_among_what_was_skipped(functions: Tree) -> None:
    blocks(functions.path("models/m.onnx"), function_opset=17)
    run = functions.scons()
    assert (run.status, run.built) == (0, ["m"]), run.out
    assert facts(functions)["quantized"] == {"Conv": 1}
    why = "it is a function of another opset than the model's, so it was not inlined"
    assert facts(functions)["skipped"] == [f"block{index}: {why}" for index in range(BLOCKS)]


def test_fp16_and_bf16_convert_what_is_inside_local_functions(functions: Tree) -> None:
    functions.write(
        """
        for precision in ("fp16", "bf16"):
            env.Engine("m", "models/m.onnx", precision=precision)
        """
    )
    run = functions.scons()
    assert (run.status, run.built) == (0, ["m", "m"]), run.out
    for precision, kind in (("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)):
        made = onnx.load(functions.path(f".trt/onnx/m.{precision}.onnx"))
        assert not made.functions
        assert {tensor.data_type for tensor in made.graph.initializer} == {kind}
