"""The error with one layer back in float is that of a model converted without this layer."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import precision
from scons_tensorrt.worker.onnx.cpu_model import CpuModel
from scons_tensorrt.worker.onnx.judge_outputs import Figures
from scons_tensorrt.worker.onnx.layer_sensitivity import measure_sensitivity
from scons_tensorrt.worker.onnx.quantize import quantize
from scons_tensorrt.worker.onnx.rounded_on_cpu import with_rounding

RANDOM = np.random.default_rng(21)
OPTIONS = {"rtol": 0.0, "atol": 0.01, "metric": "elemwise", "most": 3}
CORNERS = {"profiles": [{"x": [[1, 8], [4, 8], [8, 8]]}], "precision": "int8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of three layers, two of which share their input, and its samples."""
    made = tmp_path_factory.mktemp("sensitivity")
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"], name="first"),
        helper.make_node("Tanh", ["m"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "b"], ["u"], name="second"),
        helper.make_node("MatMul", ["t", "c"], ["v"]),
        helper.make_node("Add", ["u", "v"], ["y"], name="sum"),
    ]
    weights = {name: RANDOM.standard_normal((8, 8)).astype(np.float32) for name in "abc"}
    weights["b"][0, 0] = 60  # so the others in this weight are lost
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8])] for name in "xy"]
    there = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", *ends, there)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, made / "net.onnx")
    np.savez(made / "set.npz", x=RANDOM.standard_normal((5, 8)).astype(np.float32))
    return made


def spec(folder):
    return {"kind": "npz", "path": str(folder / "set.npz"), "function": None, "most": None, "at_least": 1}


def quantized(folder, name, keep=(), to="int8"):
    chosen = {
        "to": to,
        "method": "minmax",
        "percentile": 99.99,
        "per_channel": False,
        "ops": [],
        "keep_ops": [],
    }
    more = {"keep_nodes": list(keep), "samples": spec(folder), "temporary": str(folder)}
    quantize(str(folder / "net.onnx"), str(folder / name), {**chosen, **more})
    return str(folder / name)


def error(folder, converted):
    """Of the first samples, as a gate has it."""
    first = CpuModel(str(folder / "net.onnx"), "the original")
    second = CpuModel(with_rounding(converted), "the converted model")
    figures = Figures(["y"], OPTIONS)
    samples = np.load(folder / "set.npz")["x"][: OPTIONS["most"]]
    for number, sample in enumerate(samples):
        given = {"x": sample[None]}
        figures.add(number, {"y": (first.run("", given, ["y"])[0], second.run("", given, ["y"])[0])})
    return figures.worst()["y"]["error"]


@pytest.mark.parametrize("to", ["int8", "fp8"])
def test_a_layer_back_in_float_is_as_if_it_were_not_quantized(folder, to):
    converted = quantized(folder, "all.onnx", to=to)
    found = measure_sensitivity(str(folder / "net.onnx"), converted, spec(folder), OPTIONS)
    assert (found["kind"], found["of"], found["samples"], found["drawn"]) == ("8 bit", 3, 3, False)
    assert found["all"] == {
        "output": "y",
        "error": pytest.approx(error(folder, converted), rel=1e-4),
        "bound": 0.01,
    }
    assert [each["layer"] for each in found["layers"]] == ["first", "second", "MatMul_3"]
    for each in found["layers"]:
        kept = quantized(folder, "kept.onnx", [each["layer"]], to)
        assert each["error"] == pytest.approx(error(folder, kept), rel=1e-4)
    assert min(found["layers"], key=lambda each: each["error"])["layer"] == "second" or to == "fp8"
    assert 0 < found["noise"]["error"] < found["all"]["error"]


def test_a_tensor_of_16_bit_is_named_with_the_nodes_that_keep_it(folder):
    model = onnx.load(folder / "net.onnx")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2**-23), "h"))
    model.graph.node[-1].output[0] = "w"
    for op, inputs, output in (("Mul", ["w", "h"], "small"), ("Div", ["small", "h"], "y")):
        model.graph.node.append(helper.make_node(op, inputs, [output], name=op))
    onnx.save(model, folder / "half.source.onnx")
    options = {"to": "fp16", "keep_nodes": [], "keep_ops": [], "keep_io": True}
    precision.convert(str(folder / "half.source.onnx"), str(folder / "half.onnx"), options)
    found = measure_sensitivity(
        str(folder / "half.source.onnx"), str(folder / "half.onnx"), spec(folder), OPTIONS
    )
    best = min(found["layers"], key=lambda each: each["error"])
    assert (found["kind"], found["noise"]) == ("16 bit", None)
    assert (best["layer"], best["keep"]) == ("Mul", ["Mul", "Div"])
    assert best["error"] < found["all"]["error"] / 2


def test_without_samples_inputs_are_drawn_at_the_optimum(folder):
    converted = quantized(folder, "all.onnx")
    found = measure_sensitivity(str(folder / "net.onnx"), converted, None, {**OPTIONS, "corners": CORNERS})
    assert (found["drawn"], found["samples"]) == (True, 2)
    assert found["all"]["error"] > 0


def test_a_model_with_nothing_to_put_back_is_one_line(folder):
    with pytest.raises(WorkerError, match="it has neither Q/DQ pairs nor 16-bit tensors that lose anything"):
        measure_sensitivity(str(folder / "net.onnx"), str(folder / "net.onnx"), spec(folder), OPTIONS)
