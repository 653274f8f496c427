"""The prepare step's rewrites: each on a model that TensorRT for RTX refuses, or nearly one."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from scons_tensorrt.worker.common.errors import WorkerError  # noqa: E402
from scons_tensorrt.worker.onnx import prepare  # noqa: E402

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
