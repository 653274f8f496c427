"""The worst output, sample and element of an accuracy gate: the largest error / bound, everywhere."""

import math

import numpy as np
import pytest

from scons_tensorrt.recipe.gate_options import share_of_bound
from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import judge_outputs as gate

OPTIONS = {"metric": "elemwise", "rtol": 0.1, "atol": 0.001}


def test_the_worst_element_has_the_largest_share_of_its_bound():
    original = np.array([100.0, 0.0])
    converted = np.array([109.0, 0.0005])  # 9 of 10.001, and 0.0005 of 0.001: excess says the second
    figures = gate.measure("y", original, converted, OPTIONS)
    assert figures["at"] == [0]
    assert figures["error"] == pytest.approx(9.0)


def test_the_worst_sample_has_the_largest_share_of_its_bound(tmp_path):
    options = {**OPTIONS, "metric": "max"}
    figures = gate.Figures(["y"], options)
    figures.add(0, {"y": (np.array([100.0]), np.array([109.0]))})
    figures.add(1, {"y": (np.array([0.0]), np.array([0.0005]))})
    assert figures.judged(tmp_path / "figures.json")["outputs"]["y"]["sample"] == 0


def test_a_message_names_the_output_with_the_largest_share(tmp_path):
    figures = gate.Figures(["big", "small"], OPTIONS)
    figures.add(
        0,
        {
            "big": (np.array([100.0]), np.array([120.0])),  # twice its bound, and 10 beyond it
            "small": (np.array([0.0]), np.array([1.0])),  # a thousand times its bound
        },
    )
    with pytest.raises(WorkerError, match="output `small`, and of 1 more: elemwise error 1,"):
        figures.judged(tmp_path / "figures.json")


@pytest.mark.parametrize(
    ("error", "bound", "share"),
    [(0.0, 0.0, 0.0), (1.0, 0.0, math.inf), (1.0, 2.0, 0.5), (math.inf, 2.0, math.inf),
     (math.inf, math.inf, math.inf), (math.nan, 1.0, math.inf)],
)  # fmt: skip
def test_the_worker_and_the_report_agree_on_the_share(error, bound, share):
    assert share_of_bound(error, bound) == share
    assert gate.share({"error": error, "bound": bound}) == share
    with np.errstate(all="ignore"):
        assert gate._shares(np.array([error]), np.array([bound]))[0] == share


@pytest.mark.parametrize("metric", ["elemwise", "cosine", "max", "mean", "median"])
def test_an_output_that_is_one_number_is_measured(metric):
    figures = gate.measure("y", np.float32(4.0), np.array(3.0), {**OPTIONS, "metric": metric})
    assert (figures["at"], figures["original"], figures["converted"]) == ([], 4.0, 3.0)
    assert figures["max_abs"] == figures["mean_abs"] == 1.0
    assert figures["error"] == (0.0 if metric == "cosine" else 1.0)


@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_measuring_leaves_the_outputs_as_they_are(bad):
    original = np.linspace(-3, 4, 50)
    converted = original + 0.01
    if bad is not None:
        original[7] = converted[7] = bad
    before = original.copy(), converted.copy()
    figures = gate.measure("y", original, converted, {**OPTIONS, "metric": "cosine"})
    assert figures["max_abs"] == pytest.approx(0.01)
    assert figures["cosine"] == (0.0 if bad is not None else pytest.approx(0.99999, abs=1e-4))
    np.testing.assert_array_equal(before, (original, converted))
