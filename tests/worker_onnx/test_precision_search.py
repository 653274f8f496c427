"""keep_nodes="auto": the fewest nodes in float32 that bring the accuracy gate within its bound."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import converted_accuracy, precision_search

FLOAT = TensorProto.FLOAT
node, info = helper.make_node, helper.make_tensor_value_info


@pytest.fixture
def network(tmp_path):
    """Two branches, each with a norm written out: the first overflows in sample 0, the second in sample 1."""
    random = np.random.default_rng(0)
    nodes, there = [], [numpy_helper.from_array(np.float32(1e-3), "half")]
    for n in "ab":
        weights = (random.standard_normal((16, 16)) * 0.3).astype(np.float32)
        there.append(numpy_helper.from_array(weights, f"k{n}"))
        nodes += [
            node("MatMul", [f"x{n}", f"k{n}"], [f"{n}m"]),
            node("Relu", [f"{n}m"], [f"{n}r"]),
            node("Mul", [f"{n}r", f"{n}r"], [f"{n}squares"]),
            node("ReduceMean", [f"{n}squares"], [f"{n}mean"], axes=[-1]),
            node("Sqrt", [f"{n}mean"], [f"{n}root"]),
            node("Div", [f"{n}r", f"{n}root"], [f"{n}y"]),
        ]
    inputs = [info(f"x{n}", FLOAT, [1, 4, 16]) for n in "ab"]
    outputs = [info(f"{n}y", FLOAT, None) for n in "ab"]
    graph = helper.make_graph(nodes, "g", inputs, outputs, there)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    given = random.standard_normal((2, 1, 4, 16)).astype(np.float32)
    scale = np.float32([2000, 1]).reshape(2, 1, 1, 1)
    np.savez(tmp_path / "s.npz", xa=given * scale, xb=given * scale[::-1])
    return tmp_path


def search(folder, atol, to="fp16"):
    """(facts, bytes of the ONNX)"""
    options = {"to": to, "keep_ops": [], "keep_nodes": "auto", "keep_io": True}
    source, target, spec = str(folder / "m.onnx"), folder / "made.onnx", samples(folder)
    facts = precision_search.convert(
        source, source, str(target), {**options, **bound(atol)}, spec, str(folder)
    )
    return facts, target.read_bytes()


def samples(folder):
    return {"kind": "npz", "path": str(folder / "s.npz"), "function": None, "most": None, "at_least": 1}


def bound(atol):
    return {"rtol": 0.0, "atol": atol, "metric": "elemwise"}


def test_it_keeps_what_overflows_in_any_sample_and_no_more(network):
    facts, made = search(network, atol=0.02)
    assert facts["auto"]["nodes"] == [f"{n}{each}" for n in "ab" for each in ("mean", "root", "squares")]
    assert facts["auto"]["of"] == 12
    assert facts["kept_nodes"] == 6
    assert facts["auto"]["tried"] < 40
    assert search(network, atol=0.02) == (facts, made)  # the same choice again
    source, target, gate = (str(network / name) for name in ("m.onnx", "made.onnx", "alone.json"))
    alone = converted_accuracy.compare(source, target, gate, samples(network), bound(0.02))
    assert facts["gate"] == {"text": (network / "alone.json").read_text(), "facts": alone}


def test_it_keeps_nothing_where_nothing_is_needed(network):
    facts, _ = search(network, atol=0.2, to="bf16")
    assert facts["auto"] == {"nodes": [], "of": 12, "tried": 0}


def test_a_bound_that_only_float32_keeps_is_refused(network):
    with pytest.raises(
        WorkerError, match="keep_nodes='auto': all nodes would have to stay float32; widen rtol="
    ) as error:
        search(network, atol=0)
    assert error.value.error_class == "AccuracyError"
