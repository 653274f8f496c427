"""Outputs that are empty in some samples, in the figures of an accuracy gate."""

import numpy as np
import pytest

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx.judge_outputs import Figures

OPTIONS = {"rtol": 0.0, "atol": 0.1, "metric": "elemwise"}
EMPTY = np.zeros((1, 0), np.float32)


def judged(tmp_path, *pairs):
    figures = Figures(["y"], OPTIONS)
    for number, pair in enumerate(pairs):
        figures.add(number, {"y": pair})
    return figures.judged(str(tmp_path / "figures.json"))["outputs"]["y"]


def test_an_empty_output_does_not_hide_the_error_of_another_sample(tmp_path):
    close = np.float32([[1.0]]), np.float32([[1.05]])
    for pairs in [(close, (EMPTY, EMPTY)), ((EMPTY, EMPTY), close)]:
        assert judged(tmp_path, *pairs)["error"] == pytest.approx(0.05)


def test_a_gate_that_compared_nothing_fails(tmp_path):
    with pytest.raises(WorkerError, match="every output is empty in every sample"):
        judged(tmp_path, (EMPTY, EMPTY), (EMPTY, EMPTY))
