"""Models that have Q/DQ nodes already, and are to be fp16 or bf16 in what is not quantized."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Tree

FLOAT = TensorProto.FLOAT
KIND = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def quantized(path: Path, scale: float = 0.05, weight_scale: float = 0.01, opset: int = 17) -> None:
    """A Conv between Q/DQ nodes with float32 scales, and one in float32."""
    random = np.random.default_rng(0)
    values = {
        "s": np.float32(scale),
        "z": np.int8(0),
        "w": random.integers(-127, 127, (4, 4, 3, 3)).astype(np.int8),
        "ws": np.full(4, weight_scale, np.float32),
        "wz": np.zeros(4, np.int8),
        "k": (random.standard_normal((4, 4, 3, 3)) * 0.1).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "k"], ["y"], pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@pytest.fixture
def half(tree: Tree) -> Tree:
    quantized(tree.path("models/m.onnx"))
    samples = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)
    np.savez(tree.path("s.npz"), x=samples)
    np.savez(tree.path("tiny.npz"), x=samples * np.float32(2e-4))
    return tree


def scales(path: Path) -> dict[str, int]:
    """The element type of each scale of a Q/DQ node."""
    graph = onnx.load(path).graph
    names = {n.input[1] for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return {t.name: t.data_type for t in graph.initializer if t.name in names}


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_the_rest_of_a_quantized_model_becomes_fp16_or_bf16(half: Tree, opset: int) -> None:
    quantized(half.path("models/m.onnx"), opset=opset)
    half.write(
        """
        gate = dict(inputs="s.npz", atol=0.05)
        env.Engine("m", "models/m.onnx", precision="fp16", accuracy=gate)
        env.Engine("m", "models/m.onnx", precision="bf16")
        """
    )
    run = half.scons()
    assert (run.status, run.built, len(run.lines("CHECKED"))) == (0, ["m", "m"], 1), run.out
    for precision, kind in KIND.items():
        made = half.path(f".trt/onnx/m.{precision}.onnx")
        types = {t.name: t.data_type for t in onnx.load(made).graph.initializer}
        assert {types[name] for name in ("s", "ws", "k")} == {kind}
        assert types["w"] == TensorProto.INT8
    assert half.scons().reused == ["m", "m"]


def test_a_quantized_model_is_mixed_and_int8_as_it_is(half: Tree) -> None:
    half.write(
        """
        for precision in ("mixed", "int8"):
            env.Engine("m", "models/m.onnx", precision=precision)
        """
    )
    run = half.scons()
    assert (run.status, run.built) == (0, ["m", "m"]), run.out
    assert not run.lines("CONVERTED")


def test_a_scale_too_small_for_fp16_stays_float32(half: Tree) -> None:
    quantized(half.path("models/m.onnx"), scale=7e-6, weight_scale=0.5)
    half.write(
        """
        gate = dict(inputs="tiny.npz", atol=1e-4)
        env.Engine("m", "models/m.onnx", precision="fp16", accuracy=gate)
        """
    )
    run = half.scons()
    assert (run.status, run.built) == (0, ["m"]), run.out
    assert scales(half.path(".trt/onnx/m.fp16.onnx")) == {"s": FLOAT, "ws": KIND["fp16"]}
    told = json.loads(half.path(".trt/onnx/m.fp16.accuracy.json").read_text())["outputs"]["y"]
    assert told["cosine"] > 0.999
