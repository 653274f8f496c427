"""Quantization: what is quantized and how, run by ONNX Runtime and compiled by TensorRT for RTX."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import scons_tensorrt
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import quantize_ranges
from scons_tensorrt.worker.onnx.quantize import quantize

trt = pytest.importorskip("tensorrt_rtx")
SITE = Path(scons_tensorrt.__file__).parent.parent
RANDOM = np.random.default_rng(7)


def weight(*shape):
    return (RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("f4")


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), output.split(), name=f"{op}_{output}", **attributes)


def model(nodes, constants, shape, output="y", opset=17, dtype=TensorProto.FLOAT, more_outputs=()):
    outputs = [helper.make_empty_tensor_value_info(name) for name in (output, *more_outputs)]
    for value in outputs:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


class Made:
    """A model that was quantized: its files, facts and samples."""

    def __init__(self, folder, proto, samples=None, **options):
        self.source, self.target = folder / "source.onnx", folder / "made.onnx"
        if isinstance(proto, onnx.ModelProto):
            onnx.save(proto, self.source)
        else:
            self.source = Path(proto)
        if samples is None:
            dims = proto.graph.input[0].type.tensor_type.shape.dim
            samples = {"x": RANDOM.standard_normal((8, *(d.dim_value or 2 for d in dims))).astype("f4")}
        self.samples = samples
        np.savez(folder / "set.npz", **samples)
        self.options = {
            "to": "int8",
            "method": "minmax",
            "percentile": 99.99,
            "per_channel": True,
            "ops": [],
            "keep_nodes": [],
            "keep_ops": [],
            "samples": {
                "kind": "npz",
                "path": str(folder / "set.npz"),
                "function": None,
                "most": None,
                "at_least": 1,
            },
            "temporary": str(folder),
        } | options
        self.facts = quantize(str(self.source), str(self.target), self.options)
        self.proto = onnx.load(self.target)

    def run(self, path):
        session = onnxruntime.InferenceSession(path, plain(), providers=["CPUExecutionProvider"])
        count = len(next(iter(self.samples.values())))
        feeds = [{name: np.asarray(a[i]) for name, a in self.samples.items()} for i in range(count)]
        return [session.run(None, feed)[0] for feed in feeds]

    def error(self):
        """The error of the first output, relative to what the float32 model gives."""
        wanted, got = np.stack(self.run(self.source)), np.stack(self.run(self.target))
        return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))

    def quantized_inputs(self):
        """{(node name, input number): its DequantizeLinear}."""
        makers = {name: n for n in self.proto.graph.node for name in n.output}
        return {
            (n.name, index): makers[name]
            for n in self.proto.graph.node
            for index, name in enumerate(n.input)
            if n.op_type != "DequantizeLinear"
            and name in makers
            and makers[name].op_type == "DequantizeLinear"
        }

    def constant(self, name):
        return next(t for t in self.proto.graph.initializer if t.name == name)

    def scale(self, dequantize):
        return numpy_helper.to_array(self.constant(dequantize.input[1]))


def plain():
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def check(made, kind=TensorProto.INT8):
    """What TensorRT and the standard want of every Q/DQ node."""
    onnx.checker.check_model(made.proto, full_check=True)
    assert {o.domain for o in made.proto.opset_import} <= {"", "ai.onnx", "ai.onnx.ml"}
    makers = {name: n for n in made.proto.graph.node for name in n.output}
    names = [n.name for n in made.proto.graph.node if n.op_type.endswith("quantizeLinear")]
    assert len(set(names)) == len(names)
    for n in made.proto.graph.node:
        assert n.domain in ("", "ai.onnx", "ai.onnx.ml")
        assert not n.op_type.startswith("QLinear")
        if n.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = made.constant(n.input[2])
        assert zero.data_type == kind
        assert not np.any(numpy_helper.to_array(zero).astype("f4"))
        scale = made.scale(n)
        assert scale.dtype == np.float32
        assert np.isfinite(scale).all()
        assert (scale > 0).all()
        if n.op_type == "DequantizeLinear":
            before = makers[n.input[0]]
            assert before.op_type == "QuantizeLinear"
            assert before.input[1:] == n.input[1:]
    for n in made.proto.graph.node:
        if n.op_type in ("Conv", "ConvTranspose", "Gemm") and len(n.input) > 2:
            assert n.input[2] not in makers or makers[n.input[2]].op_type != "DequantizeLinear"


def compiles(path, profile=None, sm=86):
    """'' when TensorRT for RTX makes an engine of it, else what it says."""

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, message):
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        return "; ".join(log.errors) or "not parsed"
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), 0)
    if profile:
        shapes = builder.create_optimization_profile()
        for name, bounds in profile.items():
            shapes.set_shape(name, *bounds)
        config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    return "" if plan is not None else "; ".join(log.errors) or "no engine"


# Small networks of every kind.


def conv_relu():
    return model(
        [node("Conv", "x w b", "c", pads=[1] * 4), node("Relu", "c", "y")],
        {"w": weight(16, 8, 3, 3), "b": weight(16, 1).ravel()},
        [1, 8, 12, 12],
    )


def conv_bn():
    ones = np.linspace(0.5, 2, 16, dtype="f4")
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c s b m v", "n"),
        node("Relu", "n", "y"),
    ]
    constants = {"w": weight(16, 8, 3, 3), "s": ones, "b": ones - 1, "m": ones / 9, "v": ones}
    return model(nodes, constants, [1, 8, 12, 12])


def matmul_chain():
    nodes = [node("MatMul", "x a", "p"), node("Relu", "p", "q"), node("MatMul", "q b", "y")]
    return model(nodes, {"a": weight(32, 48), "b": weight(48, 16)}, [4, 32])


def gemm():
    """Of every attribute, because a quantizer is tempted to reset beta."""
    nodes = [
        node("Gemm", "x a c", "p", transB=1, alpha=2.0, beta=0.5),
        node("Gemm", "p b", "q", transA=1),
        node("MatMul", "q d", "y"),
    ]
    constants = {
        "a": weight(16, 32),
        "b": weight(4, 8),
        "c": 3 * weight(16, 1).ravel(),
        "d": weight(8, 8),
    }
    return model(nodes, constants, [4, 32])


def conv_transpose(groups=1):
    nodes = [node("ConvTranspose", "x w b", "y", strides=[2, 2], group=groups)]
    constants = {"w": weight(8, 16 // groups, 2, 2), "b": weight(16, 1).ravel()}
    return model(nodes, constants, [1, 8, 6, 6])


def depthwise():
    nodes = [node("Conv", "x w", "c", group=16, pads=[1] * 4), node("Conv", "c p", "y")]
    return model(nodes, {"w": weight(16, 1, 3, 3), "p": weight(24, 16, 1, 1)}, [1, 16, 8, 8])


def residual():
    nodes = [
        node("Conv", "x a", "s"),
        node("Relu", "s", "t"),
        node("Conv", "t b", "u", pads=[1] * 4),
        node("Relu", "u", "v"),
        node("Conv", "v c", "m", pads=[1] * 4),
        node("Add", "m t", "r"),
        node("Relu", "r", "y"),
    ]
    constants = {"a": weight(16, 8, 1, 1), "b": weight(16, 16, 3, 3), "c": weight(16, 16, 3, 3)}
    return model(nodes, constants, [1, 8, 8, 8])


def concat_and_resize():
    nodes = [
        node("Conv", "x a", "p"),
        node("Conv", "x b", "q"),
        node("Concat", "p q", "r", axis=1),
        helper.make_node("Resize", ["r", "", "k"], ["s"], mode="nearest"),
        node("Conv", "s c", "y"),
    ]
    constants = {"a": weight(8, 8, 1, 1), "b": weight(8, 8, 1, 1), "c": weight(8, 16, 3, 3)}
    constants["k"] = np.array([1, 1, 2, 2], "f4")
    return model(nodes, constants, [1, 8, 6, 6])


def attention():
    """With layer normalization, three projections and two products of activations."""
    nodes = [node("LayerNormalization", "x g h", "n")]
    nodes += [node("MatMul", f"n {w}", w + "p") for w in ("q", "k", "v")]
    nodes += [
        node("Transpose", "kp", "kt", perm=[0, 2, 1]),
        node("MatMul", "qp kt", "s"),
        node("Softmax", "s", "a", axis=-1),
        node("MatMul", "a vp", "o"),
        node("MatMul", "o w", "m"),
        node("Add", "m x", "y"),
    ]
    constants = {name: weight(32, 32) for name in "qkvw"}
    constants |= {"g": np.ones(32, "f4"), "h": np.zeros(32, "f4")}
    return model(nodes, constants, [2, 10, 32])


def embedding():
    """Its input is int64 alone, and its table is also the weight of a MatMul."""
    nodes = [
        node("Gather", "t x", "e"),
        node("Transpose", "t", "u", perm=[1, 0]),
        node("MatMul", "e w", "p"),
        node("MatMul", "p u", "y"),
    ]
    constants = {"t": weight(20, 16), "w": weight(16, 16)}
    return model(nodes, constants, [2, 5], dtype=TensorProto.INT64)


def branches():
    """An If whose graphs take a tensor that is also quantized outside, and a shared weight."""

    def branch(name, op):
        value = helper.make_tensor_value_info(name, 1, None)
        return helper.make_graph([helper.make_node(op, ["c", "w"], [name])], name, [], [value])

    nodes = [
        node("MatMul", "x w", "c"),
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s z", "cond"),
        node("If", "cond", "i", then_branch=branch("th", "MatMul"), else_branch=branch("el", "Add")),
        node("MatMul", "c w", "d"),
        node("Add", "i d", "y"),
    ]
    return model(nodes, {"w": weight(16, 16), "z": np.zeros((), "f4")}, [16, 16])


def constants_by_nodes():
    """Weights behind Constant, Identity and Transpose; no node has a name."""
    stored = numpy_helper.from_array(weight(8, 8, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=stored),
        helper.make_node("Identity", ["k"], ["kk"]),
        helper.make_node("Conv", ["x", "kk"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["f", "wt"], ["y"]),
    ]
    return model(nodes, {"w": weight(6, 8 * 16)}, [1, 8, 4, 4])


def names_in_the_way():
    """Names that the quantizer would take itself, and a quantized tensor that is an output too."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Mul", "c c_scale", "m"),
        node("Conv", "c w", "d"),
        node("Sub", "m d", "y"),
    ]
    constants = {"w": weight(8, 8, 1, 1), "c_scale": np.full(1, 3, "f4"), "x_input": weight(1, 1)}
    constants |= {"w_scale": weight(1, 1), "c_QuantizeLinear": weight(1, 1)}
    return model(nodes, constants, [1, 8, 4, 4], more_outputs=["c"])


def dead_channels():
    w = weight(8, 8, 3, 3)
    w[2] = 0
    w[3] = 1e-40
    return model([node("Conv", "x w", "y")], {"w": w}, [1, 8, 6, 6])


NETWORKS = {
    "conv_relu": (conv_relu, {"Conv": 1}),
    "conv_bn": (conv_bn, {"Conv": 1}),
    "matmul_chain": (matmul_chain, {"MatMul": 2}),
    "gemm": (gemm, {"Gemm": 2, "MatMul": 1}),
    "conv_transpose": (conv_transpose, {"ConvTranspose": 1}),
    "conv_transpose_grouped": (lambda: conv_transpose(2), {"ConvTranspose": 1}),
    "depthwise": (depthwise, {"Conv": 2}),
    "residual": (residual, {"Add": 1, "Conv": 3}),
    "concat_and_resize": (concat_and_resize, {"Conv": 3}),
    "attention": (attention, {"MatMul": 4}),
    "embedding": (embedding, {"MatMul": 2}),
    "branches": (branches, {"MatMul": 2}),
    "constants_by_nodes": (constants_by_nodes, {"Conv": 1, "MatMul": 1}),
    "names_in_the_way": (names_in_the_way, {"Conv": 2}),
    "dead_channels": (dead_channels, {"Conv": 1}),
}
IDS = {"x": np.arange(80).reshape(8, 2, 5) % 20}


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_quantized_runs_and_compiles(tmp_path, name, per_channel):
    make, quantized = NETWORKS[name]
    made = Made(tmp_path, make(), IDS if name == "embedding" else None, per_channel=per_channel)
    assert made.facts["quantized"] == quantized
    assert made.facts["samples"] == 8
    check(made)
    assert 0 < made.error() < 0.03
    assert compiles(made.target) == ""


@pytest.mark.parametrize("name", ["conv_relu", "gemm", "residual", "attention", "depthwise"])
def test_fp8_runs_and_compiles(tmp_path, name):
    make, quantized = NETWORKS[name]
    made = Made(tmp_path, make(), to="fp8")
    assert made.facts["quantized"] == quantized
    check(made, TensorProto.FLOAT8E4M3FN)
    assert 0 < made.error() < 0.08
    for sm in (89, 120):
        assert compiles(made.target, sm=sm) == ""


def test_an_fp8_scale_takes_the_largest_magnitude_to_448(tmp_path):
    made = Made(tmp_path, conv_relu(), to="fp8")
    pairs = made.quantized_inputs()
    largest = np.abs(made.samples["x"]).max()
    np.testing.assert_allclose(made.scale(pairs["Conv_c", 0]), largest / 448, rtol=1e-6)
    weights = numpy_helper.to_array(onnx.load(made.source).graph.initializer[0])
    wanted = np.abs(weights).max((1, 2, 3)) / 448
    np.testing.assert_allclose(made.scale(pairs["Conv_c", 1]), wanted, rtol=1e-6)


# What is quantized, and by how much.


@pytest.mark.parametrize(
    ("name", "path_id", "axis", "size"),
    [
        ("Conv_c", conv_relu, 0, 16),
        ("ConvTranspose_y", conv_transpose, 1, 16),
        ("Gemm_p", gemm, 0, 16),
        ("Gemm_q", gemm, 1, 8),
        ("MatMul_y", matmul_chain, 1, 16),
    ],
)
def test_a_weight_has_one_scale_for_each_output_channel(tmp_path, name, path_id, axis, size):
    made = Made(tmp_path, path_id())
    pair = made.quantized_inputs()[name, 1]
    assert next(a.i for a in pair.attribute if a.name == "axis") == axis
    value = next(t for t in made.proto.graph.initializer if t.name == source_of(made, pair))
    rest = tuple(i for i in range(len(value.dims)) if i != axis)
    scale = made.scale(pair)
    assert scale.shape == (size,)
    np.testing.assert_allclose(scale, np.abs(numpy_helper.to_array(value)).max(rest) / 127, rtol=1e-6)
    assert made.scale(made.quantized_inputs()[name, 0]).shape == ()


def source_of(made, dequantize):
    makers = {name: n for n in made.proto.graph.node for name in n.output}
    return makers[dequantize.input[0]].input[0]


def test_a_weight_may_have_one_scale_in_all(tmp_path):
    made = Made(tmp_path, conv_relu(), per_channel=False)
    value = numpy_helper.to_array(made.constant("w"))
    assert made.scale(made.quantized_inputs()["Conv_c", 1]) == pytest.approx(np.abs(value).max() / 127)


def test_of_a_residual_add_the_shortcut_alone_is_quantized(tmp_path):
    made = Made(tmp_path, residual())
    pairs = made.quantized_inputs()
    assert ("Add_r", 1) in pairs
    assert ("Add_r", 0) not in pairs
    assert source_of(made, pairs["Add_r", 1]) == "t"
    assert pairs["Add_r", 1] is pairs["Conv_u", 0]  # one pair for one tensor


def test_who_is_not_quantized_takes_the_tensor_itself(tmp_path):
    made = Made(tmp_path, names_in_the_way())
    nodes = {n.name: n for n in made.proto.graph.node}
    assert list(nodes["Mul_m"].input) == ["c", "c_scale"]
    np.testing.assert_array_equal(numpy_helper.to_array(made.constant("c_scale")), [3])
    assert [o.name for o in made.proto.graph.output] == ["y", "c"]


def test_products_of_activations_and_the_embedding_stay_in_float(tmp_path):
    made = Made(tmp_path, attention())
    assert {name for name, _ in made.quantized_inputs()} == {f"MatMul_{x}" for x in ("qp", "kp", "vp", "m")}
    assert [text for text in made.facts["skipped"] if "MatMul" in text] == [
        "MatMul_s: its second input is not a constant weight",
        "MatMul_o: its second input is not a constant weight",
    ]
    made = Made(tmp_path, embedding(), IDS)
    assert next(n for n in made.proto.graph.node if n.op_type == "Gather").input[0] == "t"


def test_what_is_inside_an_if_is_told_to_stay_in_float(tmp_path):
    made = Made(tmp_path, branches())
    assert made.facts["skipped"] == ["MatMul: it is inside an If, Loop or Scan"]


def test_what_the_recipe_keeps_is_not_quantized(tmp_path):
    made = Made(tmp_path, residual(), keep_nodes=["Conv_u"], keep_ops=["Add"])
    assert {name for name, _ in made.quantized_inputs()} == {"Conv_s", "Conv_m"}
    assert made.facts["skipped"] == ["Conv_u: in keep_nodes"]
    made = Made(tmp_path, gemm(), ops=["Gemm"])
    assert made.facts["quantized"] == {"Gemm": 2}
    assert made.facts["skipped_count"] == 1
    unnamed = Made(tmp_path, constants_by_nodes(), keep_nodes=["Conv_2"])
    assert unnamed.facts["quantized"] == {"MatMul": 1}


def test_constants_that_nobody_takes_any_more_are_dropped(tmp_path):
    made = Made(tmp_path, constants_by_nodes())
    assert [n.op_type for n in made.proto.graph.node if "quantize" not in n.op_type.lower()] == [
        "Constant",
        "Conv",
        "Flatten",
        "MatMul",
    ]
    assert [t.dims for t in made.proto.graph.initializer if len(t.dims) > 1] == [[128, 6]]


# The ranges.


def limit(method, *values, percentile=99.99):
    kept = quantize_ranges.Magnitudes(method != "minmax")
    for value in values:
        assert kept.add(np.asarray(value, "f4"))
    return kept.limit({"method": method, "percentile": percentile})


def test_minmax_represents_every_value(tmp_path):
    assert limit("minmax", [1, -7], [3]) == 7
    assert limit("minmax", [0, 0]) == limit("entropy", [0]) == 0


def test_a_percentile_cuts_what_is_above_it():
    values = np.linspace(0, 100, 100_001)
    for percentile in (50, 90, 99.9):
        assert limit("percentile", values, percentile=percentile) == pytest.approx(percentile, abs=0.05)
    assert limit("percentile", values, percentile=100) == 100


def test_entropy_keeps_what_is_even_and_cuts_an_outlier():
    even = RANDOM.uniform(-1, 1, 200_000)
    assert limit("entropy", even) > 0.97
    normal = RANDOM.standard_normal(200_000)
    cut = limit("entropy", np.append(normal, 400))
    assert 2.5 < cut < 20


def test_the_order_of_samples_and_a_silent_first_one_change_nothing():
    parts = [
        np.zeros(9),
        np.full(9, 1e-30),
        RANDOM.standard_normal(5000),
        RANDOM.uniform(-300, 300, 5000),
    ]
    for method in ("entropy", "percentile"):
        results = {
            limit(method, *parts),
            limit(method, *parts[::-1]),
            limit(method, np.concatenate(parts)),
        }
        assert len(results) == 1


@pytest.mark.parametrize("value", [1e-38, 1e-45, 3e38])
def test_extreme_magnitudes_have_a_range(value):
    for method in ("entropy", "percentile", "minmax"):
        assert limit(method, [value, value / 2]) == pytest.approx(np.float32(value), rel=1e-3)


# Refusals.


def refusal(folder, proto, samples=None, **options):
    with pytest.raises(WorkerError) as caught:
        Made(folder, proto, samples, **options)
    assert caught.value.error_class == "RecipeError"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_cannot_be_quantized_is_refused(tmp_path):
    said = refusal(tmp_path, model([node("Relu", "x", "y")], {}, [1, 4]))
    assert said.startswith("nothing in it can be quantized: it has no Conv, ConvTranspose, Gemm, MatMul")
    made = Made(tmp_path, conv_relu())
    again = {"samples": made.samples, "proto": str(made.target)}
    assert refusal(tmp_path, **again) == "it has Q/DQ nodes already; leave out calibration"
    half = model([node("MatMul", "x w", "y")], {"w": weight(4, 4).astype("f2")}, [1, 4])

    for value in (half.graph.input[0], half.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16

    assert "MatMul_y: its weight is float16, not float32" in refusal(tmp_path, half)
    (tmp_path / "text.onnx").write_text("text")
    assert "not a readable ONNX model" in refusal(tmp_path, str(tmp_path / "text.onnx"), made.samples)
    assert "the model cannot be read: No such file" in refusal(tmp_path, str(tmp_path / "none"), made.samples)
    foreign = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "y")], {"w": weight(4, 4, 1, 1)}, [1, 4, 4, 4]
    )
    foreign.graph.node[1].domain = "my.plugins"
    foreign.opset_import.append(helper.make_opsetid("my.plugins", 1))
    assert "ONNX Runtime cannot run it" in refusal(tmp_path, foreign)


def test_options_that_fit_nothing_are_refused(tmp_path):
    assert "ops: Softmax cannot be quantized to int8" in refusal(tmp_path, conv_relu(), ops=["Softmax"])
    assert "keep_nodes: the model has no node `c1`" in refusal(tmp_path, conv_relu(), keep_nodes=["c1"])


def test_samples_that_break_the_model_are_refused(tmp_path):
    zeros = {"x": np.zeros((2, 1, 8, 12, 12), "f4")}
    assert "every input to quantize is 0 in every sample" in refusal(tmp_path, conv_relu(), zeros)
    logs = [node("Log", "x", "l"), node("MatMul", "l w", "y")]
    said = refusal(tmp_path, model(logs, {"w": weight(4, 4)}, [1, 4]), {"x": np.zeros((1, 1, 4), "f4")})
    assert "set.npz, sample 0 makes NaN or Inf in tensor `l`" in said
    wrong = {"x": np.full((1, 2, 5), 99)}
    assert "sample 0: ONNX Runtime cannot run the model on it" in refusal(tmp_path, embedding(), wrong)


def test_a_full_disk_is_no_fault_of_the_recipe(tmp_path):
    made = Made(tmp_path, conv_relu())
    with pytest.raises(OSError, match="No space left"):
        quantize(str(made.source), "/dev/full", made.options)


# The file.


def test_an_older_opset_is_raised_as_far_as_it_must(tmp_path):
    def opset(made):
        return made.proto.opset_import[0].version

    for old, options, new in (
        (9, {"per_channel": False}, 10),
        (11, {"per_channel": False}, 11),
        (11, {}, 13),
        (17, {"to": "fp8"}, 19),
    ):
        proto = conv_relu()
        proto.opset_import[0].version = old
        made = Made(tmp_path, proto, **options)
        assert opset(made) == new
        check(made, TensorProto.FLOAT8E4M3FN if "to" in options else TensorProto.INT8)
        assert 0 < made.error() < 0.08


def test_external_data_stays_external_and_the_source_is_not_touched(tmp_path):
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "big.onnx"
    proto = model([node("MatMul", "x w", "y")], {"w": weight(64, 64)}, [1, 64])
    onnx.save_model(proto, source, save_as_external_data=True, location="big.bin")
    before = {p.name: p.read_bytes() for p in source.parent.iterdir()}
    samples = {"x": RANDOM.standard_normal((2, 1, 64)).astype("f4")}
    Made(tmp_path, str(source), samples)
    made = Made(tmp_path, str(source), samples)  # over what the first has left
    assert {p.name: p.read_bytes() for p in source.parent.iterdir()} == before
    assert (tmp_path / "made.onnx.data").stat().st_size == 64 * 64 * 4
    assert made.target.stat().st_size < 4096
    assert 0 < made.error() < 0.03
    assert compiles(made.target) == ""


PROGRAM = """
import json, resource, sys
from scons_tensorrt.worker.onnx.quantize import quantize
facts = quantize(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
sys.stderr.write("%d" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))
"""


def in_a_process(made, target, **environment):
    import json
    import os

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(made.source), str(target), json.dumps(made.options)],
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return int(done.stderr.splitlines()[-1])


def test_the_same_inputs_make_the_same_bytes_in_any_process_and_print_nothing(tmp_path):
    made = Made(tmp_path, residual(), method="entropy")
    for seed in ("1", "2"):
        target = tmp_path / f"{seed}.onnx"
        in_a_process(made, target, PYTHONHASHSEED=seed, OMP_NUM_THREADS=seed)
        assert target.read_bytes() == made.target.read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    proto = model([node("Conv", "x w", "y")], {"w": weight(2, 4, 1, 1)}, [1, 4, 256, 256])
    made = Made(tmp_path, proto, {"x": RANDOM.standard_normal((4, 1, 4, 256, 256)).astype("f4")})
    reader = tmp_path / "many.py"
    reader.write_text(
        "import numpy as np\n"
        "def many():\n"
        "    one = np.random.default_rng(1)\n"
        "    for i in range(200):\n"
        "        yield {'x': one.random((1, 4, 256, 256), np.float32)}\n"  # 1 MiB
    )
    few = in_a_process(made, tmp_path / "few.onnx")
    made.options["samples"] |= {"kind": "reader", "path": str(reader), "function": "many"}
    made.options["method"] = "entropy"
    assert in_a_process(made, tmp_path / "many.onnx") < few + 60


# Trained networks.


def packaged(package, *path):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return Path(find_spec(package).submodule_search_locations[0], *path)


def voice():
    """Three seconds of a voice-like tone, in three samples."""
    t = np.arange(3 * 16000) / 16000
    phase = 2 * np.pi * np.cumsum(150 * (1 + 0.2 * np.sin(3 * t))) / 16000
    audio = sum(np.sin(k * phase) / k for k in range(1, 10)) * 0.1 + RANDOM.normal(0, 0.005, t.size)
    fixed = {"fmin": np.full(3, 46.875, "f4"), "fmax": np.full(3, 2093.75, "f4")}
    return {"audio": audio.reshape(3, 1, 16000).astype("f4"), **fixed}


def code():
    """The first and the last kilobyte of files of the standard library, as magika reads them."""
    files = sorted(Path(subprocess.__file__).parent.glob("[a-h]*.py"))
    texts = [data for data in (file.read_bytes() for file in files) if len(data) > 4096][:12]
    return {"bytes": np.array([[list(data[:1024] + data[-1024:])] for data in texts], "i4")}


def test_a_pitch_tracker_keeps_its_pitch(tmp_path):
    made = Made(tmp_path, packaged("swift_f0", "model.onnx"), voice(), method="percentile")
    assert made.facts["quantized"]["Conv"] == 18
    check(made)
    wanted, got = np.stack(made.run(made.source)), np.stack(made.run(made.target))
    assert np.median(np.abs(1200 * np.log2(got / wanted))) < 10  # cents
    assert compiles(made.target, {"audio": ((1, 256), (1, 16000), (1, 160000))}) == ""


@pytest.mark.slow
def test_a_file_type_classifier_keeps_its_answers(tmp_path):
    source = packaged("magika", "models", "standard_v3_3", "model.onnx")
    made = Made(tmp_path, source, code(), method="entropy")
    check(made)
    wanted, got = np.concatenate(made.run(made.source)), np.concatenate(made.run(made.target))
    assert (wanted.argmax(-1) == got.argmax(-1)).mean() > 0.9
    assert compiles(made.target, {"bytes": ((1, 2048), (16, 2048), (64, 2048))}) == ""


@pytest.mark.slow
def test_a_text_recognizer_of_an_old_opset_compiles(tmp_path):
    source = packaged("rapidocr", "models", "PP-OCRv6_rec_small.onnx")
    noise = RANDOM.uniform(-1, 1, (2, 1, 3, 48, 64)).astype("f4")
    made = Made(tmp_path, source, {"x": noise}, method="percentile")
    assert made.facts["quantized"] == {"Conv": 57, "MatMul": 9}
    check(made)
    assert compiles(made.target, {"x": ((1, 3, 48, 32), (6, 3, 48, 320), (8, 3, 48, 1280))}) == ""
