"""The corners of profiles, the inputs that are drawn there, and the rows of their batches."""

from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from networks import I64, F, Net, Pair
from onnx import helper

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import converted_accuracy, draw_inputs, precision, profile_corners
from scons_tensorrt.worker.onnx.sample_set import ModelInput

X = ModelInput("x", np.dtype("float32"), (-1, 16))
PROFILE = {"x": ((1, 16), (4, 16), (8, 16))}


def compared(pair: Pair, folder: Path, precision: str = "fp32", samples: Path | None = None, **more) -> dict:
    paths = [str(folder / "original.onnx"), str(folder / "made.onnx")]
    onnx.save(pair.original, paths[0])
    onnx.save(pair.made, paths[1])
    options = {"rtol": 0.01, "atol": 0.01, "metric": "elemwise", **more}
    options["corners"] = {"profiles": [pair.profile] if pair.profile else [], "precision": precision}
    spec = samples and {"kind": "npz", "path": str(samples), "most": None, "at_least": 1}
    return converted_accuracy.compare(*paths, str(folder / "figures.json"), spec, options)


# Shapes.


def test_every_profile_has_three_corners_and_equal_ones_are_one():
    second = {"x": ((4, 16), (4, 16), (32, 16))}
    found = profile_corners.corners_of([PROFILE, second], [X])
    assert [each.label for each in found] == [
        "corner profile 0, min (`x` [1, 16])",
        "corner profile 0, opt (`x` [4, 16])",
        "corner profile 0, max (`x` [8, 16])",
        "corner profile 1, max (`x` [32, 16])",
    ]
    assert [each.rows for each in found] == [1, 4, 8, 32]


def test_values_of_a_shape_tensor_are_not_sizes():
    size = ModelInput("size", np.dtype("int64"), (2,))
    found = profile_corners.corners_of([{**PROFILE, "size": ((1, 2), (3, 4), (5, 6))}], [X, size])
    assert [each.values["size"].tolist() for each in found] == [[1, 2], [3, 4], [5, 6]]
    drawn = next(profile_corners.runs_at(found[2], draw_inputs.Drawer([X, size], {})))
    assert drawn.inputs["size"].tolist() == [5, 6]


def test_a_large_corner_is_run_once_and_rows_are_tried_at_a_small_one():
    image = ModelInput("x", np.dtype("float32"), (-1, 3, 224, 224))
    shape = (3, 224, 224)
    found = profile_corners.corners_of([{"x": ((1, *shape), (4, *shape), (8, *shape))}], [image])
    kinds = {
        each.name: [run.kind for run in profile_corners.runs_at(each, draw_inputs.Drawer([image], {}))]
        for each in found
    }
    assert kinds == {
        "min": ["draw"],
        "opt": ["draw"],
        "max": ["draw"],
        "2 rows of min": ["draw", "others", "alone"],
    }


def test_rows_with_the_same_input_are_in_each_run():
    corner = profile_corners.corners_of([PROFILE], [X])[2]
    draw, others, alone = (
        run.inputs["x"] for run in profile_corners.runs_at(corner, draw_inputs.Drawer([X], {}))
    )
    assert np.array_equal(draw[0], draw[7])
    assert np.array_equal(draw[0], others[0])
    assert not np.array_equal(draw[1], others[1])
    assert np.array_equal(alone, draw[:1])


# Draws.


def test_draws_are_the_same_each_time_and_differ_by_corner():
    drawer = draw_inputs.Drawer([X], {})
    first, again = drawer.draw({"x": (4, 16)}, "min"), drawer.draw({"x": (4, 16)}, "min")
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], drawer.draw({"x": (4, 16)}, "max")["x"])


def test_indices_stay_in_their_table():
    assert draw_inputs.spreads_of(networks.text()) == {"ids": draw_inputs.Spread(0, 49)}
    assert draw_inputs.spreads_of(networks.text("one hot"))["ids"] == draw_inputs.Spread(0, 49)


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127), ("bool", 0, 1)])
def test_types_are_drawn_over_their_range(dtype: str, low: int, high: int):
    item = ModelInput("x", np.dtype(dtype), (-1,))
    drawn = draw_inputs.Drawer([item], {}).draw({"x": (5000,)}, "opt")["x"]
    assert (drawn.dtype, int(drawn.min()), int(drawn.max())) == (np.dtype(dtype), low, high)


def test_given_samples_say_the_range():
    spreads = draw_inputs.SampleSpreads()
    spreads.add({"x": np.float32([[10, 20, 30, 40]]), "n": np.int64([3, 9]), "s": np.float32(5)})
    items = [ModelInput("x", np.dtype("float32"), (-1, 4)), ModelInput("n", np.dtype("int64"), (-1,))]
    items.append(ModelInput("s", np.dtype("float32"), ()))
    drawn = draw_inputs.Drawer(items, spreads.spreads()).draw({"x": (500, 4), "n": (500,), "s": ()}, "opt")
    assert drawn["x"].min() >= 10
    assert drawn["x"].max() <= 40
    assert set(drawn["n"].tolist()) == set(range(3, 10))
    assert float(drawn["s"]) == 5


def test_an_original_that_needs_positive_numbers_gets_them(tmp_path: Path):
    table = compared(networks.special("negative root", "otherwise"), tmp_path)["corners"]["table"]
    assert {row["note"] for row in table} == {""}


# Rows. The bound of int8 is not judged on draws, so that the rows decide alone.


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (
            "offset by the row",
            "corner max (`x` [8, 16]): output `logits`: rows 0 and 7 with the same input differ",
        ),
        ("leak between rows", "output `logits`: row 0 beside other rows differ"),
        ("off in a batch of 4", "output `logits`: row 0 alone and in a batch of 4 differ"),
        ("nan alone", "corner min (`x` [1, 16]): output `logits` is nan at [0, 0], and "),
    ],
)
def test_a_network_that_mixes_rows_is_refused(way: str, message: str, tmp_path: Path):
    pair = networks.made("mlp", way)
    with pytest.raises(WorkerError) as caught:
        compared(pair, tmp_path, "int8")
    assert message in str(caught.value)


def test_only_what_the_original_keeps_apart_is_asked_of_the_other(tmp_path: Path):
    table = compared(networks.special("mixing", "otherwise"), tmp_path, "int8")["corners"]["table"]
    assert "not by the original: row 0 beside other rows" in table[1]["rows"]


def test_a_quantized_network_that_is_off_passes_without_samples(tmp_path: Path):
    found = compared(networks.made("mlp", "stale weights"), tmp_path, "int8")
    assert (found["outputs"], found["corners"]["judged"]) == ({}, "finite values and rows")


# The bound.


def test_a_small_output_is_held_to_its_own_size(tmp_path: Path):
    pair = Pair(networks.tiny(""), networks.tiny("turned"), networks.ROWS)
    with pytest.raises(WorkerError, match="output `y`: relative error"):
        compared(pair, tmp_path)


def test_a_bound_that_16_bit_cannot_keep_is_refused(tmp_path: Path):
    source, made = tmp_path / "source.onnx", tmp_path / "fp16.onnx"
    onnx.save(networks.mlp(), source)
    options = {"to": "fp16", "keep_ops": [], "keep_nodes": [], "keep_io": True}
    precision.convert(str(source), str(made), options)
    pair = Pair(networks.mlp(), onnx.load(made), PROFILE)
    assert compared(pair, tmp_path, "fp16")["outputs"]
    with pytest.raises(WorkerError, match=r"corner min .* beyond 1e-06"):
        compared(pair, tmp_path, "fp16", rtol=0.0, atol=1e-6)


def test_samples_judge_first_and_their_figures_stay(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 16), np.float32))
    pair = networks.made("mlp", "matmul and add")
    found = compared(pair, tmp_path, samples=tmp_path / "x.npz")
    assert (found["samples"], found["outputs"]["logits"]["sample"]) == (2, 0)
    assert [row["corner"] for row in found["corners"]["table"]] == ["min", "opt", "max"]
    with pytest.raises(WorkerError, match=r"output `logits`.*sample 0"):
        compared(networks.made("mlp", "stale norm"), tmp_path, samples=tmp_path / "x.npz")


def test_what_the_original_itself_cannot_do_is_said_and_not_refused(tmp_path: Path):
    broken = networks.mlp("batch of 1 folded")
    table = compared(Pair(broken, broken, PROFILE), tmp_path)["corners"]["table"]
    assert [row["note"].split(":")[0] for row in table] == ["", *["the original itself fails"] * 2]
    nan = networks.mlp("nan at the largest batch")
    table = compared(Pair(nan, networks.mlp(), PROFILE), tmp_path)["corners"]["table"]
    assert [row["note"] for row in table] == ["", "", "the original itself is not finite in output `logits`"]


def test_a_gate_that_can_compare_nothing_says_so(tmp_path: Path):
    g = Net()
    model = g.model({"x": (F, ["n", 4])}, {"y": (g("Log", g("Neg", g("Abs", "x"))), F, 2)})
    pair = Pair(model, model, {"x": ((1, 4), (2, 4), (3, 4))})
    with pytest.raises(WorkerError, match=r"no output could be judged, at min: .*; give inputs= of real use"):
        compared(pair, tmp_path)
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 1, 4), np.float32))
    assert compared(pair, tmp_path, samples=tmp_path / "x.npz")["outputs"]  # judged by the samples alone


def test_an_original_alone_is_never_refused(tmp_path: Path):
    """TensorRT may run what ONNX Runtime cannot, such as the operators of a plugin."""
    g = Net()
    model = g.model({"x": (F, ["n", 4])}, {"y": (g("Unknown", "x", domain="own"), F, 2)})
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, tmp_path / "m.onnx")
    corners = {"profiles": [{"x": ((1, 4), (2, 4), (3, 4))}], "precision": "fp32"}
    options = {"rtol": 0.01, "atol": 0.01, "metric": "elemwise", "corners": corners}
    found = converted_accuracy.compare(
        str(tmp_path / "m.onnx"), None, str(tmp_path / "f.json"), None, options
    )
    assert "ONNX Runtime cannot load the original" in found["corners"]["note"]


def test_figures_have_no_times_so_that_equal_ones_are_equal_bytes(tmp_path: Path):
    pair = networks.made("mlp", "matmul and add")
    first = compared(pair, tmp_path)
    assert first["corners"]["seconds"] > 0
    bytes_of = (tmp_path / "figures.json").read_bytes()
    compared(pair, tmp_path)
    assert (tmp_path / "figures.json").read_bytes() == bytes_of
    assert b"seconds" not in bytes_of


def test_the_index_of_the_largest_value_may_jump(tmp_path: Path):
    """In fp32 a tenth of the elements, and what the original itself moves."""
    g = Net()
    scores = g("MatMul", "x", g.w("w", 16, 2))
    one = g.model({"x": (F, ["n", 16])}, {"y": (g("ArgMax", scores, axis=1), I64, 2)})
    two = onnx.ModelProto.FromString(one.SerializeToString())
    two.graph.node.insert(0, helper.make_node("Mul", ["x", "near"], ["x2"]))
    two.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1 + 1e-6]), "near"))
    two.graph.node[1].input[0] = "x2"
    assert compared(Pair(one, two, {"x": ((1, 16), (50, 16), (500, 16))}), tmp_path)["outputs"]["y"]
