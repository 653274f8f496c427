"""Conversions to fp16 and bf16: what comes out is run (ONNX Runtime, onnx's reference evaluator)
and compiled (TensorRT for RTX, strongly typed: types that do not fit are its errors)."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from scons_tensorrt.build.child_process import run_program  # noqa: E402
from scons_tensorrt.build.run_onnx_step import CONVERTER  # noqa: E402
from scons_tensorrt.errors import PublishError  # noqa: E402
from scons_tensorrt.worker.common.errors import WorkerError  # noqa: E402
from scons_tensorrt.worker.onnx import graph_walk, model_file, precision, tensor_values  # noqa: E402

F32, F16, BF16, F64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
I64 = TensorProto.INT64
KIND = {"fp16": F16, "bf16": BF16}
RNG = np.random.default_rng(7)
SITE = Path(precision.__file__).parents[3]

node = helper.make_node
info = helper.make_tensor_value_info


def array(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def weights(name, *shape, scale=0.3):
    return array(name, RNG.normal(size=shape) * scale)


def model(nodes, inputs, outputs, initializers=(), opset=17, functions=(), domains=(), infos=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers, value_info=infos)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    ir = 10 if opset > 20 else 8
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=ir)


def conv(proto, folder, to="fp16", keep_io=True, ops=(), nodes=(), external=False):
    """Convert; (facts, path of the result)."""
    source, target = folder / "source.onnx", folder / "target.onnx"
    if not source.exists():
        more = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
        onnx.save(proto, source, **(more if external else {}))
    options = {"to": to, "keep_ops": list(ops), "keep_nodes": list(nodes), "keep_io": keep_io}
    return precision.convert(str(source), str(target), options), target


def checked(path, opset=None):
    """The model, which the checker passes with its types."""
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(path)


def values(proto, name):
    return next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)


def run(path_or_proto, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    given = path_or_proto.SerializeToString() if hasattr(path_or_proto, "graph") else str(path_or_proto)
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def kind_of(proto, name):
    """The element type of a tensor, inferred."""
    return graph_walk.types(onnx.shape_inference.infer_shapes(proto))[name]


def reads(proto, op_type):
    """[[element types of the inputs of each node of this type]], in all graphs."""
    types = graph_walk.types(onnx.shape_inference.infer_shapes(proto))
    return [
        [types.get(name) for name in n.input if name]
        for n in graph_walk.all_nodes(proto)
        if n.op_type == op_type
    ]


def compile_it(path):
    """Compile with TensorRT for RTX; returns the types of its tensors."""
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(network, config) is not None
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    made = [layer.get_output(0) for layer in layers]
    return {tensor.dtype.name for tensor in made if tensor is not None}


def plain(opset=17):
    """Two convolutions, a pooling, a dense layer; names for the first convolution and the Gemm."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"]),
        node("GlobalAveragePool", ["c2"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["l"], name="dense"),
        node("Softmax", ["l"], ["y"]),
    ]
    there = [weights("w1", 16, 3, 3, 3), weights("b1", 16), weights("w2", 8, 16, 3, 3)]
    there += [weights("w3", 8, 5), weights("b3", 5)]
    return model(nodes, [info("x", F32, [2, 3, 8, 8])], [info("y", F32, [2, 5])], there, opset)


IMAGE = {"x": np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)}


# What a conversion is.


@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("keep_io", [True, False])
def test_a_network_becomes_16_bit_and_its_ends_as_asked(tmp_path, to, keep_io):
    facts, path = conv(plain(), tmp_path, to, keep_io)
    result = checked(path)
    ends = F32 if keep_io else KIND[to]
    assert [i.type.tensor_type.elem_type for i in [*result.graph.input, *result.graph.output]] == [ends] * 2
    assert {t.data_type for t in result.graph.initializer} == {KIND[to]}
    assert reads(result, "Conv") == [[KIND[to]] * 3, [KIND[to]] * 2]
    assert facts["kept"] == []
    assert (facts["kept_nodes"], facts["clamped"], facts["raised"]) == (0, 0, 0)
    assert facts["converter"] == {"onnxruntime": ort.__version__, "onnx": onnx.__version__}
    assert facts.get("opset") == ([17, 22] if to == "bf16" else None)
    assert json.loads(json.dumps(facts)) == facts


def test_fp16_gives_what_float32_gives_but_for_rounding(tmp_path):
    _, path = conv(plain(), tmp_path)
    np.testing.assert_allclose(run(path, IMAGE)[0], run(plain_source(tmp_path), IMAGE)[0], atol=2e-3)


def plain_source(folder):
    return folder / "source.onnx"


def test_bf16_gives_what_float32_gives_but_for_rounding(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Add", ["m", "b"], ["a"]),
        node("Tanh", ["a"], ["t"]),
        node("Mul", ["t", "c"], ["y"]),
    ]
    there = [weights("w", 6, 4), weights("b", 4), array("c", 1e6)]  # 1e6 is beyond fp16
    proto = model(nodes, [info("x", F32, [3, 6])], [info("y", F32, [3, 4])], there)
    facts, path = conv(proto, tmp_path, "bf16")
    feeds = {"x": RNG.normal(size=(3, 6)).astype(np.float32)}
    got = ReferenceEvaluator(checked(path)).run(None, feeds)[0]
    np.testing.assert_allclose(got.astype("f8"), run(proto, feeds)[0], atol=2e4)
    assert facts["clamped"] == 0


@pytest.mark.parametrize("to", ["fp16", "bf16"])
def test_rtx_compiles_it_in_16_bit(tmp_path, to):
    _, path = conv(plain(), tmp_path, to, keep_io=False)
    assert compile_it(path) == {{"fp16": "HALF", "bf16": "BF16"}[to]}


def test_the_same_bytes_in_every_process(tmp_path):
    onnx.save(plain(), tmp_path / "source.onnx")
    program = (
        "import sys; from scons_tensorrt.worker.onnx.precision import convert\n"
        "convert(sys.argv[1], sys.argv[2], dict(to=sys.argv[3], keep_ops=['Relu', 'Softmax'],"
        " keep_nodes=['first'], keep_io=True))"
    )
    digests = set()
    for number, to in enumerate(["fp16", "bf16"] * 2):
        target = tmp_path / f"{number}.onnx"
        env = {**os.environ, "PYTHONPATH": str(SITE), "PYTHONHASHSEED": str(number)}
        arguments = [str(tmp_path / "source.onnx"), str(target), to]
        subprocess.run([sys.executable, "-c", program, *arguments], env=env, check=True)
        digests.add((to, hashlib.sha256(target.read_bytes()).hexdigest()))
    assert len(digests) == 2


def test_the_source_is_left_alone(tmp_path):
    proto = plain()
    conv(proto, tmp_path)
    assert onnx.load(tmp_path / "source.onnx") == proto
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.onnx", "target.onnx"]


def test_nodes_are_called_as_before(tmp_path):
    _, path = conv(plain(), tmp_path, ops=["Softmax"])
    names = [n.name for n in onnx.load(path).graph.node if n.op_type not in ("Cast", "Identity")]
    assert names == ["first", "", "", "", "", "dense", ""]


@pytest.mark.parametrize(
    ("to", "op"),
    [
        ("fp16", "Celu"),
        *(("bf16", op) for op in ("Celu", "ConvTranspose", "GRU", "HardSwish", "LpPool", "Mish", "Shrink")),
    ],
)
def test_what_rtx_lacks_in_16_bit_is_kept_for_it(tmp_path, to, op):
    more = {
        "ConvTranspose": (["w"], {}, [weights("w", 4, 4, 2, 2)]),
        "LpPool": ([], {"kernel_shape": [2, 2]}, []),
        # RTX 1.7.1 takes no float32 GRU right after a cast from 16 bit either: only the types here.
        "GRU": (["w", "r"], {"hidden_size": 4}, [weights("w", 1, 12, 8), weights("r", 1, 12, 4)]),
    }
    inputs, attributes, there = more.get(op, ([], {}, []))
    nodes = [node("Relu", ["x"], ["a"]), node(op, ["a", *inputs], ["b"], **attributes)]
    nodes.append(node("Sigmoid", ["b"], ["y"]))
    shape = [5, 2, 8] if op == "GRU" else [1, 4, 8, 8]
    proto = model(nodes, [info("x", F32, shape)], [info("y", F32, None)], there, opset=22)
    facts, path = conv(proto, tmp_path, to, keep_io=False)
    assert facts["kept"] == [op]
    assert set(reads(checked(path), op)[0]) == {F32}
    if op != "GRU":
        assert "FLOAT" in compile_it(path)


# What stays float32.


@pytest.mark.parametrize("to", ["fp16", "bf16"])
def test_nodes_to_keep_compute_in_float32_with_their_own_weights(tmp_path, to):
    facts, path = conv(plain(), tmp_path, to, ops=["Softmax"], nodes=["first", "dense"])
    result = checked(path)
    assert reads(result, "Conv") == [[F32] * 3, [KIND[to]] * 2]
    assert reads(result, "Gemm") == [[F32] * 3]
    assert reads(result, "Softmax") == [[F32]]
    assert (facts["kept"], facts["kept_nodes"]) == ([], 3)
    assert compile_it(path) == {{"fp16": "HALF", "bf16": "BF16"}[to], "FLOAT"}


def test_what_flows_between_kept_nodes_is_never_16_bit(tmp_path):
    two = [node("Mul", ["x", "big"], ["m"], name="up"), node("Div", ["m", "big"], ["y"], name="down")]
    proto = model(
        [*two, node("Relu", ["x"], ["z"])],
        [info("x", F32, [3])],
        [info("y", F32, [3]), info("z", F32, [3])],
        [array("big", 3e6)],
    )
    _, path = conv(proto, tmp_path, nodes=["up", "down"])
    x = np.array([1 / 3, 1e-9, 77777], np.float32)
    assert run(path, {"x": x})[0].tolist() == run(proto, {"x": x})[0].tolist()
    checked(path)


def test_a_kept_node_reads_a_shared_initializer_as_it_was(tmp_path):
    nodes = [node("Mul", ["x", "w"], ["a"], name="kept"), node("Mul", ["x", "w"], ["b"])]
    ends = [info("a", F32, [2]), info("b", F32, [2])]
    proto = model(nodes, [info("x", F32, [2])], ends, [array("w", [1 + 2**-20, 1e6])])
    facts, path = conv(proto, tmp_path, nodes=["kept"])
    kept, narrow = run(path, {"x": np.ones(2, np.float32)})
    assert kept.tolist() == np.array([1 + 2**-20, 1e6], np.float32).tolist()
    assert narrow.tolist() == [1, 65504]
    assert facts["clamped"] == 1
    checked(path)


@pytest.mark.parametrize("constant", ["value", "value_float", "initializer"])
def test_a_constant_of_a_kept_node_alone_is_not_rounded(tmp_path, constant):
    number = 1e-9
    nodes, there = [node("Add", ["x", "c"], ["y"], name="kept"), node("Relu", ["x"], ["z"])], []
    if constant == "value":
        nodes.insert(0, node("Constant", [], ["c"], value=array("", number)))
    elif constant == "value_float":
        nodes.insert(0, node("Constant", [], ["c"], value_float=number))
    else:
        there = [array("c", number)]
    ends = [info("y", F32, [1]), info("z", F32, [1])]
    proto = model(nodes, [info("x", F32, [1])], ends, there)
    _, path = conv(proto, tmp_path, nodes=["kept"])
    assert run(path, {"x": np.zeros(1, np.float32)})[0].tolist() == [np.float32(number)]


@pytest.mark.parametrize("raised", [True, False], ids=["raised", "cannot be raised"])
def test_what_onnx_has_in_float32_alone_is_kept_and_told(tmp_path, monkeypatch, raised):
    def refuse(model, opset):
        raise RuntimeError("no adapter")

    if not raised:
        monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    nodes = [
        node("Range", ["zero", "x", "one"], ["r"]),
        node("QuantizeLinear", ["r", "scale"], ["q"]),  # float32 alone before opset 19
        node("DequantizeLinear", ["q", "scale"], ["d"]),
        node("Relu", ["d"], ["y"]),
    ]
    there = [array("zero", 0), array("one", 1), array("scale", 0.5)]
    proto = model(nodes, [info("x", F32, [])], [info("y", F32, ["n"])], there, opset=13)
    facts, path = conv(proto, tmp_path)
    assert facts["kept"] == (["Range"] if raised else ["DequantizeLinear", "QuantizeLinear", "Range"])
    assert facts.get("opset") == ([13, 19] if raised else None)
    assert reads(checked(path), "Relu") == [[F16]]
    x = {"x": np.array(5, np.float32)}
    assert run(path, x)[0].tolist() == run(proto, x)[0].tolist()


def test_the_scales_and_the_roi_of_a_resize_stay_float32(tmp_path):
    nodes = [
        node("Resize", ["x", "roi", "s"], ["r"], mode="linear"),
        node("Mul", ["r", "s2"], ["y"]),
        node("Mul", ["x", "s"], ["z"]),
    ]
    there = [array("roi", np.linspace(0, 1, 8)), array("s", [1, 1, 2.0001, 2.0001]), array("s2", 2)]
    ends = [info("y", F32, None), info("z", F32, None)]
    proto = model(nodes, [info("x", F32, [1, 2, 4, 4])], ends, there, opset=13)
    _, path = conv(proto, tmp_path)
    assert reads(checked(path), "Resize") == [[F16, F32, F32]]
    x = {"x": RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)}
    np.testing.assert_allclose(run(path, x)[0], run(proto, x)[0], atol=1e-2)


def test_rtx_takes_a_resize_of_an_fp16_tensor(tmp_path):
    nodes = [node("Resize", ["x", "", "s"], ["r"], mode="nearest"), node("Relu", ["r"], ["y"])]
    proto = model(nodes, [info("x", F32, [1, 2, 4, 4])], [info("y", F32, None)], [array("s", [1, 1, 2, 2])])
    _, path = conv(proto, tmp_path, keep_io=False)
    assert "HALF" in compile_it(path)


def test_sizes_computed_from_a_shape_are_computed_in_float32(tmp_path):
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["f"], to=F32),
        node("Mul", ["f", "factor"], ["g"]),
        node("Cast", ["g"], ["n"], to=I64),
        node("Expand", ["one", "n"], ["e"]),
        node("Relu", ["x"], ["r"]),
        node("Div", ["r", "g"], ["z"]),
    ]
    there = [array("factor", 1), array("one", 1, np.int64)]
    ends = [info("e", I64, ["m"]), info("z", F32, ["m"])]
    proto = model(nodes, [info("x", F32, ["k"])], ends, there)
    facts, path = conv(proto, tmp_path)
    x = {"x": np.ones(4099, np.float32)}  # which is no fp16 number
    assert run(path, x)[0].shape == (4099,)
    assert facts["kept"] == ["Cast", "Mul"]
    assert reads(checked(path), "Div") == [[F16, F16]]


def test_an_operator_of_another_domain_stays_float32(tmp_path):
    nodes = [node("Relu", ["x"], ["r"]), node("Special", ["r"], ["s"], domain="my.own")]
    nodes.append(node("Sigmoid", ["s"], ["y"]))
    ends = [info("x", F32, [4])], [info("y", F32, [4])]
    proto = model(nodes, *ends, domains=["my.own"], infos=[info("s", F32, [4])])
    facts, path = conv(proto, tmp_path)
    result = onnx.load(path)
    assert facts["kept"] == ["Special"]
    declared = {i.name: i.type.tensor_type.elem_type for i in result.graph.value_info}
    assert declared == {"s": F16}
    makers = {n.output[0]: n for n in result.graph.node}
    special = next(n for n in result.graph.node if n.op_type == "Special")
    assert helper.get_node_attr_value(makers[special.input[0]], "to") == F32
    after = next(n for n in result.graph.node if special.output[0] in n.input)
    assert helper.get_node_attr_value(after, "to") == F16


def test_an_operator_whose_result_has_no_known_type_is_refused(tmp_path):
    nodes = [node("Special", ["x"], ["s"], domain="my.own"), node("Relu", ["s"], ["y"])]
    proto = model(nodes, [info("x", F32, [4])], [info("y", F32, [4])], domains=["my.own"])
    with pytest.raises(WorkerError, match=r"the type of `s`, an output of my\.own\.Special, is unknown"):
        conv(proto, tmp_path)


# Values.


def test_constants_out_of_range_are_clamped_and_counted(tmp_path):
    values = [1e6, -1e38, 65504, 1e-12, -1e-12, 0, np.inf, -np.inf]
    proto = model([node("Add", ["x", "c"], ["y"])], [info("x", F32, [8])], [info("y", F32, [8])])
    proto.graph.initializer.append(array("c", values))
    facts, path = conv(proto, tmp_path)
    (c,) = onnx.load(path).graph.initializer
    small = 2.0**-24
    expected = [65504, -65504, 65504, small, -small, 0, np.inf, -np.inf]
    assert numpy_helper.to_array(c).tolist() == expected
    assert (facts["clamped"], facts["raised"]) == (2, 2)


def test_bf16_values_are_the_nearest_of_the_float32_ones(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = RNG.integers(0, 1 << 32, 20000, dtype=np.uint64).astype(np.uint32)
    bits[:4] = [0x3F808000, 0x3F818000, 0x3F808001, 0x80000000]  # halfway twice, above halfway, -0
    values = bits.view(np.float32)
    normal = np.isfinite(values) & ((np.abs(values) > 1e-38) | (values == 0)) & (np.abs(values) < 3e38)
    values = values[normal]
    proto = model([node("Add", ["x", "c"], ["y"])], [info("x", F32, [1])], [info("y", F32, None)])
    proto.graph.initializer.append(array("c", values))
    _, path = conv(proto, tmp_path, "bf16")
    (c,) = onnx.load(path).graph.initializer
    assert c.raw_data == values.astype(ml_dtypes.bfloat16).tobytes()


def test_bf16_values_at_the_ends_of_the_range(tmp_path):
    values = [3.4e38, -3.4e38, np.inf, np.nan, 1e-44, -1e-44]
    proto = model([node("Add", ["x", "c"], ["y"])], [info("x", F32, [6])], [info("y", F32, [6])])
    proto.graph.initializer.append(array("c", values))
    facts, path = conv(proto, tmp_path, "bf16")
    (c,) = onnx.load(path).graph.initializer
    bits = np.frombuffer(c.raw_data, np.uint16).tolist()
    assert bits == [0x7F7F, 0xFF7F, 0x7F80, 0x7FC0, 0x0001, 0x8001]
    assert (facts["clamped"], facts["raised"]) == (2, 2)


def test_typed_data_of_an_initializer_is_read_too(tmp_path):
    proto = model([node("Add", ["x", "c"], ["y"])], [info("x", F32, [3])], [info("y", F32, [3])])
    proto.graph.initializer.append(helper.make_tensor("c", F32, [3], [1.5, -2, 1e5]))
    _, path = conv(proto, tmp_path)
    assert run(path, {"x": np.zeros(3, np.float32)})[0].tolist() == [1.5, -2, 65504]


# Graphs that converters stumble over.


def branches():
    """An If whose branches use the same names, a tensor from outside, and return a constant."""

    def branch(op, value):
        nodes = [node(op, ["r", "k"], ["t"]), node("Relu", ["t"], ["u"])]
        outputs = [info("u", F32, None), info("k", F32, None)]
        return helper.make_graph(nodes, "b", [], outputs, [array("k", value)])

    nodes = [
        node("Relu", ["x"], ["r"]),
        node("If", ["flag"], ["a", "k"], then_branch=branch("Mul", 2), else_branch=branch("Add", 3)),
        node("Mul", ["a", "k"], ["y"]),
    ]
    ends = [info("x", F32, [3]), info("flag", TensorProto.BOOL, [])], [info("y", F32, None)]
    return model(nodes, *ends)


@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("ops", [[], ["Relu"], ["If"], ["Mul", "If"], ["Add"]])
def test_the_branches_of_an_if(tmp_path, to, ops):
    _, path = conv(branches(), tmp_path, to, ops=ops)
    result = checked(path)
    for flag, expected in ((True, [0, 4, 8]), (False, [9, 12, 15])):
        feeds = {"x": np.array([-1, 1, 2], np.float32), "flag": np.array(flag)}
        if to == "fp16":
            assert run(path, feeds)[0].tolist() == expected
        assert ReferenceEvaluator(result).run(None, feeds)[0].tolist() == expected
    within = [kind for kinds in reads(result, "Add") for kind in kinds]
    assert set(within) == ({F32} if set(ops) & {"If", "Add"} else {KIND[to]})
    compile_it(path)


@pytest.mark.parametrize("ops", [[], ["Loop"], ["Mul"]])
def test_a_loop_with_a_carried_tensor_and_one_from_outside(tmp_path, ops):
    body = helper.make_graph(
        [
            node("Mul", ["v", "factor"], ["m"]),
            node("Add", ["m", "r"], ["w"]),
            node("Identity", ["c"], ["c2"]),
        ],
        "body",
        [info("i", I64, []), info("c", TensorProto.BOOL, []), info("v", F32, [2])],
        [info("c2", TensorProto.BOOL, []), info("w", F32, [2]), info("m", F32, [2])],
    )
    nodes = [node("Relu", ["x"], ["r"]), node("Loop", ["n", "go", "r"], ["y", "all"], body=body)]
    ends = [info("x", F32, [2])], [info("y", F32, [2]), info("all", F32, None)]
    there = [array("n", 3, np.int64), array("go", True, np.bool_), array("factor", 0.5)]
    proto = model(nodes, *ends, there)
    _, path = conv(proto, tmp_path, ops=ops)
    checked(path)
    x = {"x": np.array([1, -2], np.float32)}
    assert [a.tolist() for a in run(path, x)] == [a.tolist() for a in run(proto, x)]
    compile_it(path)


def test_the_cast_of_an_inner_graph_stands_inside_it(tmp_path):
    _, path = conv(branches(), tmp_path, ops=["Add"])
    other = next(n for n in onnx.load(path).graph.node if n.op_type == "If").attribute
    inner = next(a.g for a in other if a.name == "else_branch")
    assert [n.op_type for n in inner.node] == ["Add", "Identity", "Cast", "Relu"]


def test_casts_of_the_model_itself(tmp_path):
    nodes = [
        node("Cast", ["i"], ["f"], to=F32),
        node("Mul", ["f", "x"], ["m"]),
        node("Cast", ["m"], ["d"], to=F64),
        node("Mul", ["d", "two"], ["dd"]),
        node("Cast", ["dd"], ["y"], to=F32),
    ]
    ends = [info("i", I64, [2]), info("x", F32, [2])], [info("y", F32, [2]), info("dd", F64, [2])]
    proto = model(nodes, *ends, [array("two", 2, np.float64)])
    _, path = conv(proto, tmp_path)
    result = checked(path)
    assert reads(result, "Mul") == [[F16, F16], [F64, F64]]
    feeds = {"i": np.array([3, -4]), "x": np.array([0.5, 1.5], np.float32)}
    assert run(path, feeds)[0].tolist() == [3, -12]


def test_results_that_the_graph_uses_itself_and_inputs_it_returns_in_other_words(tmp_path):
    nodes = [node("Relu", ["x"], ["y"]), node("Sigmoid", ["y"], ["z"]), node("Identity", ["x"], ["x2"])]
    ends = [info(name, F32, [2]) for name in ("y", "z", "x2", "c")]
    proto = model(nodes, [info("x", F32, [2])], ends, [array("c", [1, 70000])])
    for keep_io in (True, False):
        _, path = conv(proto, tmp_path, keep_io=keep_io)
        checked(path)
        x = np.array([1, -2], np.float32 if keep_io else np.float16)
        y, z, x2, c = run(path, {"x": x})
        assert (y.tolist(), x2.tolist(), c.tolist()) == ([1, 0], [1, -2], [1, 65504])
        np.testing.assert_allclose(z, [0.731, 0.5], atol=1e-3)


@pytest.mark.parametrize("to", ["fp16", "bf16"])
def test_functions_of_the_model_are_converted_inside(tmp_path, to):
    function = helper.make_function(
        "my.own",
        "Scaled",
        ["a"],
        ["b"],
        [
            node("Constant", [], ["c"], value_float=3.0),
            node("Cast", ["a"], ["aa"], to=F32),
            node("Mul", ["aa", "c"], ["b"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        node("Scaled", ["x"], ["m"], domain="my.own"),
        node("Scaled", ["m"], ["y"], domain="my.own"),
    ]
    ends = [info("x", F32, [2])], [info("y", F32, [2])]
    proto = model(nodes, *ends, functions=[function], domains=["my.own"])
    _, path = conv(proto, tmp_path, to)
    result = checked(path)
    assert reads(result, "Mul") == [[KIND[to]] * 2] * 2
    x = {"x": np.array([1, -2], np.float32)}
    assert ReferenceEvaluator(result).run(None, x)[0].tolist() == [9, -18]


def test_a_layer_normalization_a_softmax_and_a_normalization_of_old_opsets(tmp_path):
    nodes = [
        node("LayerNormalization", ["x", "g", "b"], ["l"]),
        node("Softmax", ["l"], ["s"]),
        node("BatchNormalization", ["s", "g4", "b4", "mean", "var"], ["y"]),
    ]
    there = [weights("g", 6), weights("b", 6), *(weights(n, 4) for n in ("g4", "b4", "mean"))]
    there.append(array("var", [0.5, 1, 2, 3]))
    proto = model(nodes, [info("x", F32, [2, 4, 6])], [info("y", F32, [2, 4, 6])], there)
    facts, path = conv(proto, tmp_path)
    checked(path)
    x = {"x": RNG.normal(size=(2, 4, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(path, x)[0], run(proto, x)[0], atol=5e-3)
    assert facts["kept"] == []


def test_a_constant_of_shape_with_a_value_and_without(tmp_path):
    nodes = [
        node("ConstantOfShape", ["s"], ["zeros"]),
        node("ConstantOfShape", ["s"], ["tens"], value=array("v", [1e5])),
        node("Add", ["zeros", "tens"], ["t"]),
        node("Add", ["t", "x"], ["y"]),
    ]
    proto = model(nodes, [info("x", F32, [3])], [info("y", F32, [3])], [array("s", [3], np.int64)])
    facts, path = conv(proto, tmp_path)
    checked(path)
    assert facts["clamped"] == 1
    assert run(path, {"x": np.full(3, -4, np.float32)})[0].tolist() == [65500] * 3


def test_inputs_with_default_values_are_constants_as_in_tensorrt(tmp_path):
    proto = model([node("Mul", ["x", "w"], ["y"])], [info("x", F32, [2])], [info("y", F32, [2])])
    proto.graph.initializer.append(array("w", [2, 3]))
    proto.graph.input.append(info("w", F32, [2]))
    proto.ir_version = 3
    _, path = conv(proto, tmp_path, keep_io=False)
    result = checked(path)
    assert [i.name for i in result.graph.input] == ["x"]
    assert run(path, {"x": np.ones(2, np.float16)})[0].tolist() == [2, 3]


def test_a_model_of_integers_and_float32_together(tmp_path):
    nodes = [node("Gather", ["table", "i"], ["g"]), node("Max", ["g", "low"], ["y"])]
    there = [weights("table", 10, 4), array("low", 0)]
    proto = model(nodes, [info("i", I64, [3])], [info("y", F32, [3, 4])], there)
    facts, path = conv(proto, tmp_path)
    checked(path)
    i = {"i": np.array([1, 5, 9])}
    np.testing.assert_allclose(run(path, i)[0], run(proto, i)[0], atol=1e-3)
    assert (facts["kept"], facts["kept_nodes"]) == (["Max"], 1)


# Files.


def test_external_data_goes_to_one_file_beside_the_result(tmp_path):
    proto = plain()
    _, inside = conv(proto, tmp_path)
    inline = run(inside, IMAGE)[0].tolist()
    there = tmp_path / "external"
    there.mkdir()
    _, path = conv(proto, there, external=True)
    assert sorted(p.name for p in there.iterdir()) == [
        "source.onnx", "target.onnx", "target.onnx.data", "w.bin",
    ]  # fmt: skip
    assert run(path, IMAGE)[0].tolist() == inline
    large = [t for t in onnx.load(path, load_external_data=False).graph.initializer if t.external_data]
    assert [t.name for t in large] == ["w2"]
    assert large[0].external_data[0].value == "target.onnx.data"
    assert (there / "target.onnx.data").stat().st_size == 8 * 16 * 9 * 2
    checked(path)


def test_a_result_that_would_not_fit_gets_a_data_file(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "PROTOBUF_BYTES", 100)
    monkeypatch.setattr(tensor_values, "INLINE_BYTES", 100)
    monkeypatch.setattr(model_file, "PIECE_BYTES", 64)
    proto = plain()
    _, path = conv(proto, tmp_path)
    assert (tmp_path / "target.onnx.data").stat().st_size > 500
    np.testing.assert_allclose(run(path, IMAGE)[0], run(proto, IMAGE)[0], atol=2e-3)


def test_external_data_that_ends_early_is_refused(tmp_path):
    conv(plain(), tmp_path, external=True)
    os.truncate(tmp_path / "w.bin", 700)
    with pytest.raises(WorkerError, match=r"external data `w\.bin` ends early"):
        conv(None, tmp_path)


def test_external_data_that_is_missing_is_refused(tmp_path):
    conv(plain(), tmp_path, external=True)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(WorkerError, match=r"external data `w\.bin` cannot be read: No such file"):
        conv(None, tmp_path)


@pytest.mark.parametrize("to", ["fp16", "bf16"])
@pytest.mark.parametrize("keep_io", [True, False])
@pytest.mark.parametrize("external", [True, False])
def test_what_is_16_bit_already_is_copied(tmp_path, to, keep_io, external):
    _, once = conv(plain(), tmp_path, to, keep_io, external=external)
    there = tmp_path / "other"
    options = {"to": to, "keep_ops": [], "keep_nodes": [], "keep_io": keep_io}
    there.mkdir()
    facts = precision.convert(str(once), str(there / "again.onnx"), options)
    assert facts["as_it_is"] is True
    if external:  # in the one data file that the target may have
        assert sorted(path.name for path in there.iterdir()) == ["again.onnx", "again.onnx.data"]
        before, after = onnx.load(once).graph, onnx.load(there / "again.onnx").graph
        values = [[t.raw_data for t in graph.initializer] for graph in (before, after)]
        assert values[0] == values[1]
    else:
        assert (there / "again.onnx").read_bytes() == once.read_bytes()
    checked(there / "again.onnx")


# Refusals.


@pytest.mark.parametrize(
    ("ops", "nodes", "message"),
    [
        (["SoftMax"], [], "keep_ops: the model has no operator `SoftMax`; did you mean `Softmax`"),
        ([], ["fist"], "keep_nodes: the model has no node `fist`; did you mean `first`"),
        ([], ["zzzz"], "keep_nodes: the model has no node `zzzz`; take the name"),
    ],
)
def test_names_to_keep_that_are_not_there(tmp_path, ops, nodes, message):
    with pytest.raises(WorkerError, match=message) as caught:
        conv(plain(), tmp_path, ops=ops, nodes=nodes)
    assert caught.value.error_class == "RecipeError"


def test_a_model_without_float32_has_nothing_to_convert(tmp_path):
    nodes = [node("Add", ["x", "x"], ["y"])]
    for kind in (I64, F64):
        folder = tmp_path / str(kind)
        folder.mkdir()
        with pytest.raises(WorkerError, match="nothing to convert: the model has no float32 tensors"):
            conv(model(nodes, [info("x", kind, [2])], [info("y", kind, [2])]), folder)


def test_a_model_that_only_casts_has_nothing_to_convert(tmp_path):
    nodes = [node("Cast", ["x"], ["d"], to=F64), node("Neg", ["d"], ["y"])]
    with pytest.raises(WorkerError, match="nothing to convert: its float32 tensors are only cast"):
        conv(model(nodes, [info("x", F32, [2])], [info("y", F64, [2])]), tmp_path)


def test_a_model_whose_nodes_must_all_stay_has_nothing_to_convert(tmp_path):
    with pytest.raises(WorkerError, match="nothing to convert: every float32 node must stay"):
        conv(plain(), tmp_path, ops={n.op_type for n in plain().graph.node})


def test_fp16_does_not_become_bf16(tmp_path):
    _, once = conv(plain(), tmp_path)
    options = {"to": "bf16", "keep_ops": [], "keep_nodes": [], "keep_io": True}
    with pytest.raises(WorkerError, match="has fp16 tensors already and cannot become bf16"):
        precision.convert(str(once), str(tmp_path / "o.onnx"), options)


def test_a_node_that_is_16_bit_already_cannot_be_kept(tmp_path):
    _, once = conv(plain(), tmp_path)
    options = {"to": "fp16", "keep_ops": ["Softmax"], "keep_nodes": [], "keep_io": True}
    with pytest.raises(WorkerError, match="`Softmax` is to stay float32, but the model has it in 16 bit"):
        precision.convert(str(once), str(tmp_path / "o.onnx"), options)


def test_the_scale_of_a_dynamic_quantization_stays_float32(tmp_path):
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    proto = model(nodes, [info("x", F32, [2, 4])], [info("y", F32, [2, 4])], [weights("w", 4, 4)])
    facts, made = conv(proto, tmp_path)
    assert facts["kept"] == ["DequantizeLinear", "DynamicQuantizeLinear"]
    assert facts["opset"] == [17, 19]
    x = RNG.normal(size=(2, 4)).astype(np.float32) * 1e-4
    np.testing.assert_allclose(run(made, {"x": x})[0], run(proto, {"x": x})[0], atol=1e-6)


@pytest.mark.parametrize("external", [False, True], ids=["values inside", "external data"])
def test_scales_of_many_channels_are_looked_at(tmp_path, external):
    scales = np.full(400, 1e-2, np.float32)
    scales[399] = 1e-6
    data = [
        array("w", RNG.integers(-127, 127, (8, 400)), np.int8),
        array("s", scales),
        array("z", np.zeros(400), np.int8),
    ]
    nodes = [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("MatMul", ["x", "d"], ["y"])]
    proto = model(nodes, [info("x", F32, [2, 8])], [info("y", F32, [2, 400])], data)
    facts, made = conv(proto, tmp_path, external=external)
    assert facts["kept"] == ["DequantizeLinear"]
    np.testing.assert_array_equal(values(onnx.load(made), "s"), scales)


def test_what_is_no_onnx(tmp_path):
    (tmp_path / "source.onnx").write_bytes(b"no model at all")
    with pytest.raises(WorkerError, match="not a readable ONNX model"):
        conv(None, tmp_path)


def test_a_failure_of_the_converter_is_one_line(tmp_path, monkeypatch):
    from onnxruntime.transformers import float16

    def fail(*arguments, **named):
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(float16, "convert_float_to_float16", fail)
    with pytest.raises(WorkerError, match="failed with ValueError: first line second line; keep_nodes"):
        conv(plain(), tmp_path)


def test_an_inconsistent_result_is_not_written(tmp_path, monkeypatch):
    from onnxruntime.transformers import float16

    convert = float16.convert_float_to_float16

    def forget(*arguments, **named):
        result = convert(*arguments, **named)
        result.graph.initializer[0].data_type = F64
        return result

    monkeypatch.setattr(float16, "convert_float_to_float16", forget)
    with pytest.raises(WorkerError, match="the converted model is not consistent"):
        conv(plain(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["source.onnx"]


def test_a_full_disk_is_told(tmp_path):
    onnx.save(plain(), tmp_path / "source.onnx")
    options = {"to": "fp16", "keep_ops": [], "keep_nodes": [], "keep_io": True}
    places = {"onnx": {"onnx": str(tmp_path / "source.onnx")}, "files": {}, "target": "/dev/full"}
    job = {"kind": "precision", "options": options, "samples": None, **places}
    with pytest.raises(PublishError, match="No space left on device; make room or make the folder writable"):
        run_program(CONVERTER, sys.executable, job, tmp_path / "log", lambda: False, dict(os.environ))
