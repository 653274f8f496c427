"""16-bit models, computed in float32 with roundings, against onnx's reference evaluator: equal where the
order of a sum does not matter, else within the last place."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from scons_tensorrt.worker.onnx import rounded_on_cpu

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
KIND = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPE = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
BOTH = pytest.mark.parametrize("to", ["fp16", "bf16"])
node, info = helper.make_node, helper.make_tensor_value_info


def array(name, values, dtype=np.int64):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(nodes, inputs, outputs, initializers=(), functions=()):
    """inputs, outputs: {name: element type}."""
    ends = [[info(name, kind, None) for name, kind in each.items()] for each in (inputs, outputs)]
    opsets = [helper.make_opsetid("", 22), *(helper.make_opsetid("own", 1) for _ in functions)]
    graph = helper.make_graph(nodes, "g", *ends, initializers)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def rounded(proto, feeds, folder: Path):
    """The outputs of the model as the accuracy gate computes them."""
    path = str(folder / "m.onnx")
    onnx.save(proto, path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    made = rounded_on_cpu.with_rounding(path)
    assert made != path
    session = ort.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    widened = {
        name: each.astype(np.float32) if each.dtype.itemsize == 2 else each for name, each in feeds.items()
    }
    return session.run(None, widened)


def expected(proto, feeds):
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(proto).run(None, feeds)


def assert_equal(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == np.float32 or one.dtype == other.dtype
        np.testing.assert_array_equal(one, other.astype(one.dtype))


def steps_apart(got, wanted, dtype):
    """How many 16-bit numbers the two are apart, at most. NaN equals NaN."""
    number = []
    for values in (got, wanted):
        with np.errstate(all="ignore"):
            narrow = np.asarray(values, np.float32).astype(dtype)
        bits = narrow.view(np.int16).astype(np.int32)
        number.append(np.where(bits < 0, -(bits & 0x7FFF), bits))
    both_nan = np.isnan(np.asarray(got, np.float32)) & np.isnan(np.asarray(wanted, np.float32))
    return int(np.where(both_nan, 0, np.abs(number[0] - number[1])).max(initial=0))


def drawn(random, to, shape=(3, 8), low=-9, high=16):
    """16-bit numbers of all magnitudes from 2**low to 2**high."""
    sizes = np.exp2(random.uniform(low, high, shape)) * random.choice([-1, 1], shape)
    return sizes.astype(np.float32).astype(DTYPE[to])


# One operator.

EXACT = {
    "Add": 2, "Sub": 2, "Mul": 2, "Div": 2, "Max": 2, "Min": 2, "Sqrt": 1, "Reciprocal": 1, "Neg": 1,
    "Abs": 1, "Relu": 1, "Floor": 1, "Ceil": 1, "Sign": 1, "Identity": 1, "Round": 1,
}  # fmt: skip
MOVING = {
    "Transpose": ([], {"perm": [1, 0]}),
    "Reshape": ([[8, 3]], {}),
    "Flatten": ([], {}),
    "Slice": ([[1], [7], [1]], {}),
    "Gather": ([[2, 0, 1]], {}),
    "Tile": ([[2, 1]], {}),
    "Expand": ([[2, 3, 8]], {}),
    "Unsqueeze": ([[0]], {}),
    "Pad": ([[0, 1, 0, 2]], {"mode": "reflect"}),
    "Trilu": ([], {}),
    "ReduceMax": ([[1]], {}),
    "ReduceMin": ([[0]], {}),
    "GatherND": ([[[0, 1], [2, 5]]], {}),
}
SUMS = {
    "MatMul": ((3, 8), (8, 4), {}),
    "Gemm": ((3, 8), (8, 4), {"alpha": 0.5}),
    "Conv": ((1, 2, 6, 6), (3, 2, 3, 3), {"pads": [1] * 4}),
    "ReduceSum": ((3, 8), None, {}),
    "ReduceMean": ((3, 8), None, {}),
    "ReduceL2": ((3, 8), None, {}),
    "GlobalAveragePool": ((1, 2, 4, 4), None, {}),
    "Softmax": ((3, 8), None, {}),
    "Exp": ((3, 8), None, {}),
    "Tanh": ((3, 8), None, {}),
    "Sigmoid": ((3, 8), None, {}),
    "Erf": ((3, 8), None, {}),
    "Softplus": ((3, 8), None, {}),
    "Gelu": ((3, 8), None, {"approximate": "tanh"}),
    "HardSwish": ((3, 8), None, {}),
    "Mish": ((3, 8), None, {}),
    "Pow": ((3, 8), (1, 8), {}),
}


@BOTH
@pytest.mark.parametrize("op_type", EXACT)
def test_an_operator_of_one_rounding_gives_equal_bits(tmp_path, op_type, to):
    random = np.random.default_rng(1)
    feeds = {name: drawn(random, to) for name in "ab"[: EXACT[op_type]]}
    proto = model([node(op_type, list(feeds), ["y"])], dict.fromkeys(feeds, KIND[to]), {"y": KIND[to]})
    assert_equal(rounded(proto, feeds, tmp_path), expected(proto, feeds))


@BOTH
@pytest.mark.parametrize("op_type", MOVING)
def test_an_operator_that_moves_values_rounds_nothing(tmp_path, op_type, to):
    more, attributes = MOVING[op_type]
    given = [array(f"i{number}", values) for number, values in enumerate(more)]
    nodes = [node(op_type, ["a", *(each.name for each in given)], ["y"], **attributes)]
    proto = model(nodes, {"a": KIND[to]}, {"y": KIND[to]}, given)
    feeds = {"a": drawn(np.random.default_rng(2), to)}
    assert_equal(rounded(proto, feeds, tmp_path), expected(proto, feeds))
    assert len(rounded_on_cpu.float32_model(str(tmp_path / "m.onnx"))[1]) == 1  # of the input


@BOTH
@pytest.mark.parametrize("op_type", SUMS)
def test_an_operator_with_sums_is_within_the_last_place(tmp_path, op_type, to):
    """Of the reference evaluator in float32, rounded: in 16 bit that rounds each step of a sum."""
    one, two, attributes = SUMS[op_type]
    random = np.random.default_rng(3)
    feeds = {"a": drawn(random, to, one, -4, 3)}
    if two:
        feeds["b"] = drawn(random, to, two, -4, 3)
    if op_type == "Pow":
        feeds["a"] = np.abs(feeds["a"])
    nodes = [node(op_type, list(feeds), ["y"], **attributes)]
    narrow = model(nodes, dict.fromkeys(feeds, KIND[to]), {"y": KIND[to]})
    wide = model(nodes, dict.fromkeys(feeds, FLOAT), {"y": FLOAT})
    wanted = expected(wide, {name: each.astype(np.float32) for name, each in feeds.items()})[0]
    got = rounded(narrow, feeds, tmp_path)[0]
    assert steps_apart(got, wanted, DTYPE[to]) <= 1
    np.testing.assert_array_equal(got, got.astype(DTYPE[to]).astype(np.float32))  # they are 16-bit numbers


# Networks of many operators.


def network(random, to):
    """A random graph of operators that give equal bits, with constants, and values near overflow and zero."""
    nodes, made, initializers = [], ["a", "b"], []
    for number in range(int(random.integers(4, 14))):
        op_type = str(random.choice(list(EXACT)))
        read = [str(random.choice(made)) for _ in range(EXACT[op_type])]
        if EXACT[op_type] == 2 and random.random() < 0.3:
            read[1] = f"w{number}"
            initializers.append(numpy_helper.from_array(drawn(random, to, (1, 8)), read[1]))
        nodes.append(node(op_type, read, [f"t{number}"]))
        made.append(f"t{number}")
    outputs = dict.fromkeys(made[2:], KIND[to])
    return model(nodes, {"a": KIND[to], "b": KIND[to]}, outputs, initializers)


@BOTH
def test_every_tensor_of_random_networks_has_equal_bits(tmp_path, to, request):
    infinite = 0
    for seed in range(200 if request.config.getoption("--all-cases") else 20):
        random = np.random.default_rng(seed)
        proto = network(random, to)
        feeds = {"a": drawn(random, to), "b": drawn(random, to)}
        wanted = expected(proto, feeds)
        assert_equal(rounded(proto, feeds, tmp_path), wanted)
        infinite += any(np.isinf(each.astype(np.float32)).any() for each in wanted)
    assert infinite > 2 or to == "bf16"


@BOTH
def test_subgraphs_functions_and_sequences_are_rounded_too(tmp_path, to):
    kind = KIND[to]
    thrice = helper.make_function(
        *("own", "thrice", ["p"], ["q"], [node("Add", ["p", "p"], ["s"]), node("Add", ["s", "p"], ["q"])]),
        [helper.make_opsetid("", 22)],
    )
    # Both branches define a tensor `t`, of different types.
    then = helper.make_graph([node("Mul", ["a", "a"], ["t"])], "then", [], [info("t", kind, None)])
    wide = [
        node("Cast", ["a"], ["t"], to=FLOAT),
        node("Sub", ["t", "t"], ["z"]),
        node("Cast", ["z"], ["e"], to=kind),
    ]
    other = helper.make_graph(wide, "else", [], [info("e", kind, None)])
    body = helper.make_graph(
        [
            node("Mul", ["v", "third"], ["w"]),
            node("Identity", ["c"], ["go"]),
            node("Identity", ["w"], ["scan"]),
        ],
        "body",
        [info("i", INT64, []), info("c", TensorProto.BOOL, []), info("v", kind, [3, 8])],
        [info("go", TensorProto.BOOL, []), info("w", kind, [3, 8]), info("scan", kind, [3, 8])],
        [numpy_helper.from_array(np.float32([1 / 3]).astype(DTYPE[to]), "third")],
    )
    nodes = [
        node("thrice", ["a"], ["f"], domain="own"),
        node("If", ["c"], ["g"], then_branch=then, else_branch=other),
        node("Loop", ["n", "yes", "f"], ["l", "scans"], body=body),
        node("SequenceConstruct", ["f", "g"], ["both"]),
        node("SequenceAt", ["both", "one"], ["h"]),
        node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32([0.1]).astype(DTYPE[to]), "")),
        node("ConstantOfShape", ["eight"], ["o"], value=numpy_helper.from_array(np.ones(1, DTYPE[to]), "")),
        node("Mul", ["h", "k"], ["hk"]),
        node("Add", ["hk", "o"], ["y"]),
        node("Cast", ["y"], ["integers"], to=TensorProto.INT32),
    ]
    there = [array("yes", True, bool), array("n", 3), array("one", 1), array("eight", [8])]
    outputs = {"y": kind, "l": kind, "scans": kind, "integers": TensorProto.INT32}
    proto = model(nodes, {"a": kind, "c": TensorProto.BOOL}, outputs, there, [thrice])
    for condition in (True, False):
        feeds = {"a": drawn(np.random.default_rng(4), to, high=10), "c": np.array(condition)}
        wanted = expected(proto, feeds)
        wanted[2] = wanted[2].reshape(3, 3, 8)  # onnx 1.23's evaluator joins the scans, which ONNX stacks
        assert_equal(rounded(proto, feeds, tmp_path), wanted)


def test_quantization_in_half_rounds_scales_and_results(tmp_path):
    """The division is in float32: the evaluator's, in half, may be a step aside where two are as near."""
    half, kind = np.float16, TensorProto.FLOAT16
    there = [array("s", 0.05, half), array("z", 0, np.int8), array("k", [0.1], half)]
    nodes = [
        node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Mul", ["d", "k"], ["y"]),
    ]
    proto = model(nodes, {"a": kind}, {"y": kind, "d": kind}, there)
    given, scale = np.linspace(-7, 7, 400).astype(half), np.float32(half(0.05))
    steps = np.rint(given.astype(np.float32) / scale).clip(-128, 127)
    dequantized = (steps * scale).astype(half)
    assert_equal(rounded(proto, {"a": given}, tmp_path), [dequantized * half(0.1), dequantized])


def test_a_model_without_16_bit_runs_as_it_is(tmp_path, monkeypatch):
    """Also one whose types onnx cannot infer."""
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda model: 1 / 0)
    path = str(tmp_path / "m.onnx")
    onnx.save(model([node("Relu", ["a"], ["y"])], {"a": FLOAT}, {"y": FLOAT}), path)
    assert rounded_on_cpu.with_rounding(path) == rounded_on_cpu.without_bf16(path) == path


@BOTH
def test_external_data_and_defaults_of_inputs_are_read(tmp_path, to):
    random = np.random.default_rng(5)
    weights = numpy_helper.from_array(drawn(random, to, (8, 256), -4, 3), "w")
    proto = model(
        [node("MatMul", ["a", "w"], ["y"])], {"a": KIND[to], "w": KIND[to]}, {"y": KIND[to]}, [weights]
    )
    feeds = {"a": drawn(random, to, (3, 8), -4, 3)}
    inline = rounded(proto, feeds, tmp_path)
    path = str(tmp_path / "m.onnx")
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    session = ort.InferenceSession(rounded_on_cpu.with_rounding(path), providers=["CPUExecutionProvider"])
    assert_equal(session.run(None, {"a": feeds["a"].astype(np.float32)}), inline)


def test_an_original_in_bf16_is_only_computed_in_float32(tmp_path):
    path = str(tmp_path / "m.onnx")
    nodes = [
        node("MatMul", ["a", "w"], ["t"]),
        node("Sub", ["t", "t"], ["z"]),
        node("Add", ["t", "z"], ["y"]),
    ]
    weights = drawn(np.random.default_rng(6), "bf16", (8, 4), -4, 3)
    there = [numpy_helper.from_array(weights, "w")]
    onnx.save(model(nodes, {"a": KIND["bf16"]}, {"y": KIND["bf16"]}, there), path)
    given = np.random.default_rng(7).standard_normal((3, 8)).astype(np.float32)
    session = ort.InferenceSession(rounded_on_cpu.without_bf16(path), providers=["CPUExecutionProvider"])
    wanted = given.astype(DTYPE["bf16"]).astype(np.float32) @ weights.astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"a": given})[0], wanted, rtol=1e-5)
