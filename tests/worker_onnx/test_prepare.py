"""The prepare step's rewrites: each on a model that TensorRT for RTX refuses, or nearly one."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from scons_tensorrt.recipe.onnx.read_onnx import read_onnx  # noqa: E402
from scons_tensorrt.worker.common.errors import WorkerError  # noqa: E402
from scons_tensorrt.worker.onnx import graph_walk, prepare, prepare_proof, proof_inputs  # noqa: E402

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
node, info = helper.make_node, helper.make_tensor_value_info


def array(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(nodes, inputs, outputs=("y",), initializers=(), opset=17, functions=()):
    """inputs: {name: shape, or (type, shape)}; outputs of type float32, or (name, type)."""
    values = [info(n, *(s if isinstance(s, tuple) else (F32, s))) for n, s in inputs.items()]
    made = [info(*(o if isinstance(o, tuple) else (o, F32)), None) for o in outputs]
    graph = helper.make_graph(nodes, "g", values, made, initializers)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def prepared(folder, proto, *profiles, freeze=None, samples=None):
    """(result, the prepared model). profiles: {input: (min, opt, max)}."""
    source, target = folder / "source.onnx", folder / "target.onnx"
    onnx.save(proto, source)
    request = prepare.PrepareRequest(str(folder), profiles, freeze or {}, samples)
    result = prepare.prepare(str(source), str(target), request)
    return result, onnx.load(target)


def shapes(made):
    return {
        i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in made.graph.input
    }


def test_a_name_of_sizes_that_contradict_is_split_by_size(tmp_path):
    inputs = {"x": ["?", 3, "?", "?"], "z": ["n", 3, "n", 2]}
    add = [node("ReduceMax", ["x"], ["a"]), node("ReduceMax", ["z"], ["b"]), node("Add", ["a", "b"], ["y"])]
    profile = {"x": ((1, 3, 8, 8), (1, 3, 16, 16), (4, 3, 32, 32))}
    profile["z"] = (1, 3, 8, 2), (2, 3, 16, 2), (4, 3, 32, 2)
    result, made = prepared(tmp_path, model(add, inputs), profile)
    assert result.changes == ("names of 5 dimensions",)
    names = shapes(made)
    # `?` says nothing, so height and width may differ; `n` did.
    assert len({*names["x"]} - {3}) == 3
    assert names["z"][0] != names["z"][2]


def test_a_dimension_of_one_size_is_fixed_where_something_else_is_refused(tmp_path):
    same, other = ((1, 4), (1, 4), (2, 4)), ((1, 4), (1, 4), (3, 4))
    relu = model([node("Relu", ["x"], ["y"])], {"x": ["n", "n"]})
    result, made = prepared(tmp_path, relu, {"x": same}, {"x": other})
    assert result.changes == ("names of 2 dimensions", "1 dimension fixed")
    assert shapes(made) == {"x": ["x_0_2", 4]}
    assert (
        prepared(tmp_path, model([node("Relu", ["x"], ["y"])], {"x": ["n", "c"]}), {"x": same})[0].changes
        == ()
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5, r"freeze: 2.5 does not fit input `sr`, which is int64"),
        ("high", r"freeze: 'high' (is no value|does not fit)"),
        ([1, 2], r"freeze: the value for input `sr` has shape \[2\]; the model takes \[\]"),
        ([[1], 2], r"freeze: \[\[1\], 2\] is no value"),
    ],
)
def test_a_value_to_freeze_must_fit(tmp_path, value, message):
    gather = model([node("Gather", ["x", "sr"], ["y"])], {"x": [4, 2], "sr": (I64, [])})
    with pytest.raises(WorkerError, match=message):
        prepared(tmp_path, gather, freeze={"sr": value})


def test_a_frozen_input_is_a_constant(tmp_path):
    gather = model([node("Gather", ["x", "sr"], ["y"])], {"x": [4, 2], "sr": (I64, [])})
    result, made = prepared(tmp_path, gather, freeze={"sr": 2})
    assert (result.changes, list(shapes(made))) == (("1 input frozen",), ["x"])
    given = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = ort.InferenceSession(made.SerializeToString()).run(None, {"x": given})[0]
    assert found.tolist() == given[2].tolist()
    with pytest.raises(WorkerError, match="freeze: the model has no input `rate`"):
        prepared(tmp_path, gather, freeze={"rate": 2})


def test_a_model_without_troubles_keeps_its_bytes(tmp_path):
    relu = model([node("Relu", ["x"], ["y"])], {"x": ["n", 4]})
    result, _ = prepared(tmp_path, relu, {"x": ((1, 4), (1, 4), (2, 4))})
    assert result.changes == ()
    assert (tmp_path / "source.onnx").read_bytes() == (tmp_path / "target.onnx").read_bytes()


def run(model, **inputs):
    """The outputs of a model, given as a proto or a path."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    given = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def ops(made):
    return [n.op_type for n in graph_walk.all_nodes(made)]


def branch(*nodes):
    return helper.make_graph(nodes, "b", [], [info(nodes[-1].output[0], F32, None)])


CONSTANTS = [array("zero", 0, np.int64), array("one", 1, np.int64), array("axes", [1], np.int64)]


def choose(condition, then, other, output="y"):
    return node("If", [condition], [output], then_branch=then, else_branch=other)


def test_an_if_is_resolved_by_the_sizes_of_the_recipe(tmp_path):
    """Whether x has one column is known from the recipe's shapes; the rank of y depends on it."""
    squeeze = branch(node("Squeeze", ["x", "axes"], ["a"]))
    nodes = [
        *(
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "one"], ["d"]),
            node("Equal", ["d", "one"], ["c"]),
        ),
        choose("c", squeeze, branch(node("Identity", ["x"], ["b"]))),
    ]
    original = model(nodes, {"x": ["n", "m", 4]}, initializers=CONSTANTS)
    result, made = prepared(tmp_path, original, {"x": ((1, 1, 4), (2, 1, 4), (4, 1, 4))})
    assert result.changes == ("1 dimension fixed", "2 nodes folded", "1 If resolved")
    assert ops(made) == ["Squeeze", "Identity"]
    assert result.outputs == {"y": {"error": 0.0, "bound": 0.0}}


def test_an_if_inside_a_loop_is_resolved_by_a_frozen_input(tmp_path):
    body = helper.make_graph(
        [
            node("Equal", ["rate", "one"], ["is_one"]),
            choose("is_one", branch(node("Neg", ["x"], ["t"])), branch(node("Exp", ["x"], ["e"])), "out"),
            node("Identity", ["go_on"], ["still"]),
        ],
        "body",
        [info("i", I64, []), info("go_on", TensorProto.BOOL, [])],
        [info("still", TensorProto.BOOL, []), info("out", F32, None)],
    )
    loop = model([node("Loop", ["three", ""], ["y"], body=body)], {"x": [2], "rate": (I64, [])},
                 initializers=[*CONSTANTS, array("three", 3, np.int64)])  # fmt: skip
    result, made = prepared(tmp_path, loop, freeze={"rate": 1})
    assert result.changes == ("1 input frozen", "1 node folded", "1 If resolved")
    assert "If" not in ops(made)
    assert "Neg" in ops(made)
    assert run(made, x=np.ones(2, np.float32))[0].tolist() == [[-1.0, -1.0]] * 3


def test_unused_outputs_of_branches_are_removed(tmp_path):
    two = [info("p", F32, None), info("q", F32, None)]
    then = helper.make_graph([node("Neg", ["x"], ["p"]), node("Exp", ["x"], ["q"])], "t", [], two)
    other = helper.make_graph([node("Abs", ["x"], ["p"]), node("Relu", ["x"], ["q"])], "e", [], two)
    nodes = [
        *(node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Cast", ["sum"], ["c"], to=TensorProto.BOOL)),
        node("If", ["c"], ["unused", "y"], then_branch=then, else_branch=other),
        node("Add", ["x", "k"], ["z"]),
    ]
    outputs = ("y", "z")
    original = model(nodes, {"x": [2], "k": [2]}, outputs, CONSTANTS)
    result, made = prepared(tmp_path, original, freeze={"k": [1.0, 2.0]})
    assert result.changes == ("1 input frozen", "1 unused output of branches removed")
    assert sorted(ops(made)) == ["Add", "Cast", "Exp", "If", "ReduceSum", "Relu"]


@pytest.mark.parametrize("opset", [11, 17])
def test_a_squeeze_gets_the_axes_that_are_always_1(tmp_path, opset):
    nodes = [node("MaxPool", ["x"], ["a"], kernel_shape=[4, 4]), node("Squeeze", ["a"], ["y"])]
    original = model(nodes, {"x": ["n", 3, "h", "w"]}, opset=opset)
    low, high = (1, 3, 4, 4), (4, 3, 4, 4)
    result, made = prepared(tmp_path, original, {"x": (low, low, high)})
    # At batch 1 the original drops that axis too, which an engine cannot.
    assert result.changes == ("2 dimensions fixed", "axes of 1 Squeeze (1 keep a size that may be 1)")
    given = np.arange(48, dtype=np.float32).reshape(low)
    assert run(made, x=given)[0].shape == (1, 3)
    assert run(original, x=given)[0].shape == (3,)


def test_a_squeeze_whose_open_sizes_are_never_1_stays(tmp_path):
    original = model([node("Squeeze", ["x"], ["y"])], {"x": ["n", 1, 3]})
    result, _ = prepared(tmp_path, original, {"x": ((2, 1, 3), (2, 1, 3), (4, 1, 3))})
    assert result.changes == ()


def test_a_squeeze_that_fixed_dimensions_decide_needs_no_axes(tmp_path):
    original = model([node("Squeeze", ["x"], ["y"])], {"x": [1, "n", 3]})
    result, made = prepared(tmp_path, original, {"x": ((1, 1, 3), (1, 1, 3), (1, 1, 3))})
    assert result.changes == ("1 dimension fixed",)
    given = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    assert run(made, x=given)[0].shape == run(original, x=given)[0].shape == (3,)


RNG = np.random.default_rng(3)


def uint8(name, *shape, low=0, high=256):
    return array(name, RNG.integers(low, high, shape), np.uint8)


def int8(name, *shape):
    return array(name, RNG.integers(-128, 128, shape), np.int8)


def scalar(name, value, dtype=np.float32):
    return array(name, value, dtype)


def dynamic(*after):
    return [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), *after]


REAL = [
    node("Cast", ["i"], ["f"], to=F32),
    node("Mul", ["s", "ws"], ["both"]),
    node("Mul", ["f", "both"], ["y"]),
]
SCALES = [scalar("xs", 0.02), scalar("ws", 0.01), scalar("ys", 0.05)]
POINTS = [scalar("xz", 120, np.uint8), scalar("wz", 3, np.int8), scalar("yz", 110, np.uint8)]
QUANTIZE = node("QuantizeLinear", ["x", "xs", "xz"], ["q"])
QUANTIZE_FROM_0 = node("QuantizeLinear", ["x", "xs", "z0"], ["q"])
DEQUANTIZE = node("DequantizeLinear", ["p", "ys", "yz"], ["y"])
BY_CHANNEL = [array("wc", [0.01, 0.02, 0.03], np.float32), array("wcz", [0, 0, 0], np.int8)]
CASES = {
    "MatMulInteger": (
        dynamic(node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]), *REAL),
        [2, 8],
        [int8("w", 8, 3), *SCALES, *POINTS],
    ),
    "MatMulInteger, integers out": (
        dynamic(node("MatMulInteger", ["q", "w", "z"], ["i"]), node("Abs", ["i"], ["y"])),
        [2, 8],
        [int8("w", 8, 3)],
    ),
    "ConvInteger": (
        dynamic(node("ConvInteger", ["q", "w", "z", "wz"], ["i"], pads=[1, 1, 1, 1]), *REAL),
        [1, 4, 6, 6],
        [uint8("w", 3, 4, 3, 3), *SCALES, scalar("wz", 130, np.uint8)],
    ),
    "moved before it is read": (
        dynamic(node("Transpose", ["q"], ["t"]), node("MatMulInteger", ["t", "w", "z", "wz"], ["i"]), *REAL),
        [8, 2],
        [int8("w", 8, 3), *SCALES, *POINTS],
    ),
    "padded and resized before it is read": (
        [
            QUANTIZE,
            node("Pad", ["q", "pads", "xz"], ["padded"]),
            node("Resize", ["padded", "", "twice"], ["resized"], mode="nearest"),
            node("DequantizeLinear", ["resized", "xs", "xz"], ["y"]),
        ],
        [1, 2, 4, 4],
        [
            array("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64),
            *(array("twice", [1, 1, 2, 2], np.float32), *SCALES, *POINTS),
        ],
    ),
    "QLinearConv": (
        [
            QUANTIZE,
            node("QLinearConv", ["q", "xs", "xz", "w", "wc", "wcz", "ys", "yz", "b"], ["p"]),
            DEQUANTIZE,
        ],
        [1, 4, 6, 6],
        [int8("w", 3, 4, 3, 3), array("b", [5, -7, 900], np.int32), *SCALES, *POINTS, *BY_CHANNEL],
    ),
    "QLinearMatMul": (
        [QUANTIZE, node("QLinearMatMul", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["p"]), DEQUANTIZE],
        [2, 8],
        [int8("w", 8, 3), *SCALES, *POINTS],
    ),
    "Q/DQ of unsigned integers with zero point 0": (
        [
            QUANTIZE_FROM_0,
            node("DequantizeLinear", ["q", "xs", "z0"], ["a"]),
            node("MatMul", ["a", "w"], ["y"]),
        ],
        [2, 8],
        [array("w", RNG.normal(size=(8, 3))), scalar("z0", 0, np.uint8), *SCALES],
    ),
    "the same, the zero point by a Constant": (
        [
            node("Constant", [], ["z0"], value=scalar("z0", 0, np.uint8)),
            QUANTIZE_FROM_0,
            node("DequantizeLinear", ["q", "xs", "z0"], ["a"]),
            node("MatMul", ["a", "w"], ["y"]),
        ],
        [2, 8],
        [array("w", RNG.normal(size=(8, 3))), *SCALES],
    ),
    "Q/DQ of unsigned integers": (
        [
            QUANTIZE,
            node("DequantizeLinear", ["q", "xs", "xz"], ["a"]),
            node("DequantizeLinear", ["w", "wc", "wcz"], ["b"], axis=0),
            node("DequantizeLinear", ["whole", "wc"], ["bias"], axis=0),
            node("Conv", ["a", "b", "bias"], ["y"]),
        ],
        [1, 4, 6, 6],
        [
            uint8("w", 3, 4, 3, 3),
            *SCALES,
            *POINTS,
            BY_CHANNEL[0],
            array("wcz", [10, 0, 128], np.uint8),
            array("whole", [70, 0, -900], np.int32),
        ],
    ),
}
MICROSOFT = {
    "DynamicQuantizeMatMul": (["x", "w", "ws", "wz"], [2, 8]),
    "MatMulIntegerToFloat": (["q", "w", "xs", "ws", "xz", "wz"], [2, 8]),
    "QGemm": (["q", "xs", "xz", "w", "wc", "wcz", "b", "ys", "yz"], [2, 8]),
    "QLinearWhere": (["c", "q", "xs", "xz", "q", "ys", "yz", "ys", "yz"], [2, 8]),
    "QLinearAdd": (["q", "xs", "xz", "q", "xs", "xz", "ys", "yz"], [2, 8]),
    "QLinearMul": (["q", "xs", "xz", "q", "xs", "xz", "ys", "yz"], [2, 8]),
    "QLinearSigmoid": (["q", "xs", "xz", "ys", "yz"], [2, 8]),
    "QLinearLeakyRelu": (["q", "xs", "xz", "ys", "yz"], [2, 8]),
    "QLinearGlobalAveragePool": (["q", "xs", "xz", "ys", "yz"], [1, 4, 6, 6]),
    "QLinearConcat": (["ys", "yz", "q", "xs", "xz", "q", "xs", "xz"], [2, 8]),
}


def microsoft(op):
    inputs, shape = MICROSOFT[op]
    attributes = {"QLinearConcat": {"axis": 1}, "QGemm": {"alpha": 0.5}}.get(op, {})
    output = "p" if op.startswith("Q") else "y"
    nodes = [QUANTIZE, node(op, inputs, [output], domain="com.microsoft", **attributes)]
    nodes += [DEQUANTIZE] * (output == "p")
    if op == "DynamicQuantizeMatMul":
        nodes = nodes[1:]
    more = [array("b", [500, -700, 900], np.int32), array("c", [True, False] * 4, bool), *BY_CHANNEL]
    return nodes, shape, [int8("w", 8, 3), *SCALES, *POINTS, *more]


@pytest.mark.parametrize("case", [*CASES, *MICROSOFT])
def test_quantized_operators_become_float32_ones(tmp_path, case):
    nodes, shape, initializers = CASES[case] if case in CASES else microsoft(case)
    kind = TensorProto.INT32 if case.endswith("integers out") else F32
    original = model(nodes, {"x": ["n", *shape[1:]]}, [("y", kind)], initializers)
    original.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    shapes = tuple((size, *shape[1:]) for size in (1, 2, 3))
    if case == "moved before it is read":
        shapes = ((8, 2),) * 3
    result, made = prepared(tmp_path, original, {"x": shapes})
    assert "quantized node" in "".join(result.changes)
    refused = {*MICROSOFT, "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QuantizeLinear"}
    assert not refused.intersection(ops(made))
    if case == "Q/DQ of unsigned integers":  # its weights are constants, which a calibration may quantize
        weights = {tensor.name for tensor in made.graph.initializer}
        assert weights.issuperset(next(n for n in made.graph.node if n.op_type == "Conv").input[1:])
    if case == "padded and resized before it is read":
        assert all(each.data_type != TensorProto.UINT8 for each in made.graph.initializer)
    assert read_onnx(tmp_path / "source.onnx").refused
    assert not read_onnx(tmp_path / "target.onnx").refused
    steps = result.outputs["y"]["error"] / max(result.outputs["y"]["bound"] / prepare_proof.ROUNDED, 1e-9)
    assert steps < 0.01


def test_an_lstm_with_8_bit_weights_becomes_an_lstm(tmp_path):
    inputs = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    weights = [
        *(int8("w", 1, 5, 16), int8("r", 1, 4, 16), array("b", RNG.normal(size=(1, 32)), np.float32)),
        *(array("ws", [0.01], np.float32), array("rs", [0.02], np.float32)),
        *(array("wz", [2], np.int8), array("rz", [-3], np.int8)),
    ]
    lstm = node("DynamicQuantizeLSTM", inputs, ["y"], hidden_size=4, domain="com.microsoft")
    original = model([lstm], {"x": [3, 1, 5]}, initializers=weights)
    original.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    result, made = prepared(tmp_path, original)
    assert result.changes == ("1 quantized node in float32",)
    assert ops(made)[-1] == "LSTM"


def test_a_difference_is_an_error_with_output_and_place(tmp_path, monkeypatch):
    def wrong(made, profiles):
        made.graph.node[0].op_type = "Abs"
        return "axes of 1 Squeeze"

    monkeypatch.setattr(prepare.rewrite_axes, "write_axes", wrong)
    relu = model([node("Relu", ["x"], ["y"])], {"x": ["n", 4]})
    with pytest.raises(
        WorkerError, match=r"output `y`, at min of profile 0: [\d.]+ at \[0, \d\], and 0 in the"
    ):
        prepared(tmp_path, relu, {"x": ((1, 4), (2, 4), (4, 4))})


@pytest.mark.parametrize("place", ["initializer", "constant node", "function", "loop"])
def test_8_bit_weights_without_a_zero_point_get_their_default_one(tmp_path, place):
    """Without it, ONNX Runtime up to 1.26 at least aborts."""
    product = dynamic(node("MatMulInteger", ["q", "w"], ["i"]), node("Cast", ["i"], ["y"], to=F32))
    constant = node("Constant", [], ["w"], value=int8("", 8, 3))
    domain, functions = helper.make_opsetid("", 17), []
    if place == "function":
        functions = [helper.make_function("own", "F", ["x"], ["y"], [constant, *product], [domain])]
        product = [helper.make_node("F", ["x"], ["y"], domain="own")]
    elif place == "loop":
        more, product[-1].output[0] = [node("Identity", ["go"], ["on"])], "inner"
        given = [info("at", TensorProto.INT64, []), info("go", TensorProto.BOOL, [])]
        made = [info("on", TensorProto.BOOL, []), info("inner", F32, None)]
        body = helper.make_graph([constant, *product, *more], "body", given, made)
        last = node("ReduceSum", ["each"], ["y"])
        product = [node("Loop", ["times", ""], ["each"], body=body), last]
    elif place == "constant node":
        product.insert(0, constant)
    known = [array("w", RNG.integers(-128, 128, (8, 3)), np.int8)] if place == "initializer" else []
    known += [array("times", 2, np.int64)] if place == "loop" else []
    original = model(product, {"x": ["n", 8]}, initializers=known, functions=functions)
    source = tmp_path / "source.onnx"
    onnx.save(original, source)
    adapted = onnx.load_from_string(prepare_proof._as_compared(str(source), precise=True))
    products = [each for each in graph_walk.all_nodes(adapted) if each.op_type == "MatMulInteger"]
    assert [len(each.input) for each in products] == [4]
    assert prepare_proof._as_compared(str(source), precise=False) is None
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    assert np.array_equal(run(adapted, x=x)[0], run(original, x=x)[0])


def test_wrong_scores_beside_boxes_in_pixels_are_an_error(tmp_path, monkeypatch):
    """An error of 1 is little beside 1,000 pixels, but not in scores."""
    rewrite = prepare.rewrite_integer.rewrite

    def wrong(made, values):
        made, phrases = rewrite(made, values)
        next(each for each in made.graph.node if each.op_type == "Sigmoid").op_type = "Tanh"
        return made, phrases

    nodes = dynamic(
        *(node("MatMulInteger", ["q", "w", "z"], ["i"]), *REAL[:2], node("Mul", ["f", "both"], ["r"])),
        *(node("Split", ["r", "parts"], ["b", "c"], axis=1), node("Sigmoid", ["c"], ["scores"])),
        *(node("Mul", ["b", "size"], ["boxes"]), node("Concat", ["boxes", "scores"], ["y"], axis=1)),
    )
    constants = [int8("w", 8, 5), scalar("ws", 0.01), array("parts", [4, 1], np.int64), scalar("size", 320)]
    detector = model(nodes, {"x": ["n", 8]}, initializers=constants)
    sizes = {"x": ((1, 8), (4, 8), (16, 8))}
    prepared(tmp_path, detector, sizes)
    monkeypatch.setattr(prepare.rewrite_integer, "rewrite", wrong)
    with pytest.raises(WorkerError, match=r"output `y`, at max of profile 0: .* at \[\d+, 4\]"):
        prepared(tmp_path, detector, sizes)


def test_shapes_without_samples_are_compared_too(tmp_path, monkeypatch):
    def wrong(made, profiles):
        made.graph.node[0].op_type = "Flatten"
        return "axes of 1 Squeeze"

    np.savez(tmp_path / "samples.npz", x=np.ones((2, 1, 1, 4), np.float32))
    path = str(tmp_path / "samples.npz")
    samples = {"kind": "npz", "path": path, "function": None, "most": None, "at_least": 1}
    squeeze = model([node("Identity", ["x"], ["y"])], {"x": ["n", "m", 4]})
    monkeypatch.setattr(prepare.rewrite_axes, "write_axes", wrong)
    with pytest.raises(WorkerError, match=r"output `y`, at max of profile 0: it is float32\[2, 12\]"):
        prepared(tmp_path, squeeze, {"x": ((1, 1, 4), (1, 1, 4), (2, 3, 4))}, samples=samples)


def test_an_original_that_takes_logarithms_is_compared_with_positive_inputs(tmp_path, monkeypatch):
    def wrong(made, profiles):
        made.graph.node[1].op_type = "ReduceMean"
        return "axes of 1 Squeeze"

    logarithm = [node("Log", ["x"], ["l"]), node("ReduceSum", ["l"], ["y"], keepdims=0)]
    monkeypatch.setattr(prepare.rewrite_axes, "write_axes", wrong)
    with pytest.raises(WorkerError, match=r"output `y`, at min of profile 0: -\d\.\d+ at \[\], and -\d"):
        prepared(tmp_path, model(logarithm, {"x": ["n", 4]}), {"x": ((4, 4), (8, 4), (8, 4))})


def test_a_model_that_onnx_runtime_does_not_load_has_a_next_step(tmp_path):
    nodes = [node("NoSuch", ["x"], ["m"], domain="com.microsoft"), node("Squeeze", ["m"], ["y"])]
    unknown = model(nodes, {"x": ["?", "?"]})
    unknown.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(WorkerError, match=r"cannot load the original, so .*; give the ONNX as it was before"):
        prepared(tmp_path, unknown, {"x": ((1, 4), (1, 4), (2, 4))})


def test_a_prepared_model_that_fails_where_the_original_runs_is_an_error(tmp_path, monkeypatch):
    def wrong(made, profiles):
        made.graph.initializer.append(array("two", [2, 4], np.int64))
        made.graph.node[0].CopyFrom(node("Reshape", ["x", "two"], ["y"]))
        return "axes of 1 Squeeze"

    monkeypatch.setattr(prepare.rewrite_axes, "write_axes", wrong)
    relu = model([node("Identity", ["x"], ["y"])], {"x": ["n", 4]})
    with pytest.raises(WorkerError, match=r"fails at max of profile 0, and the original does not: .*Reshape"):
        prepared(tmp_path, relu, {"x": ((2, 4), (2, 4), (4, 4))})


def test_an_output_that_is_never_finite_is_named(tmp_path):
    nodes = [node("Sub", ["x", "x"], ["z"]), node("Div", ["z", "z"], ["n"]), node("Squeeze", ["n"], ["y"])]
    result, _ = prepared(tmp_path, model(nodes, {"x": ["n", 1, 4]}), {"x": ((1, 1, 4), (1, 1, 4), (2, 1, 4))})
    assert result.changes[-1] == "output `y` not compared, as it is never finite"


def test_random_numbers_of_a_local_function_are_the_same_in_both(tmp_path):
    own = [node("RandomNormalLike", ["a"], ["r"]), node("Add", ["a", "r"], ["b"])]
    function = helper.make_function("own", "Noise", ["a"], ["b"], own, [helper.make_opsetid("", 17)])
    nodes = [
        *(node("Noise", ["x"], ["m"], domain="own"), node("Noise", ["m"], ["k"], domain="own")),
        node("Squeeze", ["k"], ["y"]),
    ]
    noise = model(nodes, {"x": ["n", 1, 4]}, functions=[function])
    result, _ = prepared(tmp_path, noise, {"x": ((1, 1, 4), (1, 1, 4), (2, 1, 4))})
    assert result.outputs["y"] == {"error": 0.0, "bound": 0.0}


def test_inputs_are_smaller_where_larger_ones_give_no_finite_output(tmp_path):
    """As a mask does in which only 0 and 1 mean something."""
    big = array("big", 3.4e38)
    nodes = [
        *(node("Cast", ["mask"], ["m"], to=F32), node("Mul", ["m", "big"], ["n"])),
        *(node("Sub", ["x", "n"], ["o"]), node("Sub", ["o", "o"], ["p"]), node("Add", ["p", "x"], ["y"])),
    ]
    masked = model(nodes, {"x": ["?", "?"], "mask": (I64, [4])}, initializers=[big])
    tries = proof_inputs.points(masked, [{"x": ((2, 4),) * 3}], None)
    onnx.save(masked, tmp_path / "m.onnx")
    path = str(tmp_path / "m.onnx")
    session = prepare_proof._Session(path, "it", precise=False)
    assert not np.isfinite(session.run(tries[0][0].inputs)[0]).all()
    point, outputs = session.first_that_runs(tries[0], {})
    assert np.isfinite(outputs[0]).all()
    assert point is tries[0][1]


def test_external_data_and_local_functions(tmp_path):
    """The weights stay in a file beside the model, and the function's nodes are in it."""
    weights = RNG.normal(size=(64, 64)).astype(np.float32)
    square = [node("MatMul", ["a", "a"], ["b"])]
    function = helper.make_function("own", "Square", ["a"], ["b"], square, [helper.make_opsetid("", 17)])
    call = node("Square", ["m"], ["y"], domain="own")
    original = model(
        [node("MatMul", ["x", "w"], ["m"]), call],
        {"x": ["?", "?"]},
        initializers=[numpy_helper.from_array(weights, "w")],
        functions=[function],
    )
    onnx.save(original, tmp_path / "s.onnx", save_as_external_data=True, location="s.data", size_threshold=0)
    target = tmp_path / "t" / "t.onnx"
    target.parent.mkdir()
    request = prepare.PrepareRequest(str(tmp_path), ({"x": ((64, 64),) * 3},))
    assert prepare.prepare(str(tmp_path / "s.onnx"), str(target), request).changes == ()
    assert {path.name for path in target.parent.iterdir()} == {"t.onnx", "t.onnx.data"}
    request = prepare.PrepareRequest(str(tmp_path), ({"x": ((64, 64),) * 3},), {"x": np.eye(64).tolist()})
    result = prepare.prepare(str(tmp_path / "s.onnx"), str(target), request)
    assert result.changes == ("1 input frozen",)
    assert ops(onnx.load(target)) == ["MatMul", "MatMul"]
    assert (tmp_path / "t" / "t.onnx.data").stat().st_size >= weights.nbytes
    assert np.allclose(run(str(target))[0], weights @ weights, atol=1e-3)
