"""Quantization: what is quantized and how, run by ONNX Runtime and compiled by TensorRT for RTX."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import scons_tensorrt
from scons_tensorrt.convert.worker.quantize import quantize

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
