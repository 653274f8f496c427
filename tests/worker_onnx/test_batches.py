"""Samples as one file for a calibrator: what is written, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx.calibration_batches import write


def model(path, *inputs):
    """An ONNX with inputs (name, type, shape)."""
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    outputs = [helper.make_tensor_value_info(f"{n}_out", t, s) for n, t, s in inputs]
    graph = helper.make_graph(nodes, "net", values, outputs)
    onnx.save(helper.make_model(graph), path)
    return str(path)


def made(folder, spec, *inputs):
    """(facts, header, bytes) of the file."""
    target = folder / "samples"
    facts = write(model(folder / "a.onnx", *inputs), str(target), spec)
    header, _, data = target.read_bytes().partition(b"\n")
    return facts, json.loads(header), data


def spec(path, kind="npz", **more):
    return {"kind": kind, "path": str(path), "function": None, "most": None, "at_least": 1, **more}


IMAGE = ("x", TensorProto.FLOAT, ["n", 3])


def test_the_bytes_are_those_of_the_samples_in_their_order(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    ids = np.arange(4, dtype=np.int32).reshape(4, 1)
    np.savez(tmp_path / "c.npz", x=x, ids=ids)
    facts, header, data = made(tmp_path, spec(tmp_path / "c.npz"), IMAGE, ("ids", TensorProto.INT64, [1]))
    assert header == {"inputs": [["x", "float32", [2, 3]], ["ids", "int64", [1]]], "samples": 4}
    assert data == b"".join(x[n].tobytes() + ids[n].astype("<i8").tobytes() for n in range(4))
    assert facts == {"samples": 4, "inputs": {"x": ["float32", [2, 3]], "ids": ["int64", [1]]}}


def test_a_half_precision_input_has_two_bytes(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.ones((1, 2, 3), np.float16))
    for kind, name in ((TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16")):
        _, header, data = made(tmp_path, spec(tmp_path / "c.npz"), ("x", kind, ["n", 3]))
        assert (header["inputs"][0][1], len(data)) == (name, 12)


def test_the_same_samples_give_the_same_bytes_whatever_holds_them(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    np.savez(tmp_path / "c.npz", x=x)
    np.savez_compressed(tmp_path / "d.npz", x=np.asfortranarray(x))
    (tmp_path / "folder").mkdir()
    for number, each in enumerate(x):
        np.save(tmp_path / "folder" / f"{number}.npy", each)
    (tmp_path / "r.py").write_text(
        "import numpy as np\n"
        "def read():\n"
        "    yield from ({'x': a} for a in np.arange(12, dtype='f4').reshape(2, 2, 3))\n"
    )
    kinds = [
        spec(tmp_path / "c.npz"),
        spec(tmp_path / "d.npz"),
        spec(tmp_path / "folder", "npy"),
        spec(tmp_path / "r.py", "reader", function="read"),
    ]
    found = []
    for each in kinds:
        made(tmp_path, each, IMAGE)
        found.append((tmp_path / "samples").read_bytes())
    assert len(set(found)) == 1


def test_samples_of_two_shapes_are_refused_with_number_and_shapes(tmp_path):
    (tmp_path / "folder").mkdir()
    for number, rows in enumerate((2, 2, 5)):
        np.save(tmp_path / "folder" / f"{number}.npy", np.zeros((rows, 3), np.float32))
    with pytest.raises(WorkerError) as caught:
        made(tmp_path, spec(tmp_path / "folder", "npy"), IMAGE)
    assert caught.value.error_class == "RecipeError"
    assert str(caught.value).endswith(
        "folder, sample 2, input `x` has shape [5, 3], and [2, 3] in sample 0: a calibrator needs one "
        "shape; make them equal, or use by='qdq'"
    )


@pytest.mark.parametrize(
    ("arrays", "more", "message"),
    [
        ({"x": np.zeros((2, 1, 3), "f4")}, {"at_least": 8}, "has 2 samples, fewer than at_least=8"),
        ({"y": np.zeros((2, 1, 3), "f4")}, {}, "`y` is not an input of the model, input `x` is missing"),
        ({"x": np.full((2, 1, 3), np.nan, "f4")}, {}, "has NaN at"),
    ],
    ids=["too few", "a wrong name", "NaN"],
)
def test_what_any_set_of_samples_is_refused_for(tmp_path, arrays, more, message):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(WorkerError, match=message):
        made(tmp_path, spec(tmp_path / "c.npz", **more), IMAGE)


def test_a_model_without_inputs_and_what_is_no_model(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.zeros((1, 1, 3), "f4"))
    with pytest.raises(WorkerError, match="nothing to calibrate on"):
        made(tmp_path, spec(tmp_path / "c.npz"))
    (tmp_path / "b.onnx").write_bytes(b"no model at all")
    with pytest.raises(WorkerError, match="not a readable ONNX model"):
        write(str(tmp_path / "b.onnx"), str(tmp_path / "samples"), spec(tmp_path / "c.npz"))
