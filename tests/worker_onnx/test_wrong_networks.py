"""Wrong networks, and right ones that are written otherwise: what the default accuracy gate says of them,
without samples."""

from pathlib import Path

import networks
import onnx
import pytest

from scons_tensorrt.worker.common.errors import WorkerError
from scons_tensorrt.worker.onnx import converted_accuracy, precision


def judged(pair: networks.Pair, folder: Path) -> dict:
    """The figures of `accuracy=dict(reference=…)` with its default bounds. Raises WorkerError."""
    original, made = str(folder / "original.onnx"), str(folder / "made.onnx")
    onnx.save(pair.original, original)
    onnx.save(pair.made, made)
    if pair.converts:
        options = {"to": pair.converts, "keep_ops": [], "keep_nodes": [], "keep_io": True}
        precision.convert(made, str(folder / "converted.onnx"), options)
        made = str(folder / "converted.onnx")
    corners = {"profiles": [pair.profile] if pair.profile else [], "precision": pair.converts or "fp32"}
    options = {"rtol": 0.01, "atol": 0.01, "metric": "elemwise", "corners": corners}
    return converted_accuracy.compare(original, made, str(folder / "figures.json"), None, options)


def sampled(names: dict) -> list:
    """Every tenth in a plain run, all with --all-cases."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if at % 10 == 0 else slow) for at, name in enumerate(names)]


@pytest.mark.parametrize("name", sampled(networks.WRONG))
def test_a_wrong_network_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as caught:
        judged(networks.WRONG[name](), tmp_path)
    assert caught.value.error_class == "AccuracyError"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sampled(networks.RIGHT))
def test_a_right_network_passes(name: str, tmp_path: Path) -> None:
    figures = judged(networks.RIGHT[name](), tmp_path)
    assert figures["corners"]["table"]


def test_there_are_sixty_of_each() -> None:
    assert min(len(networks.WRONG), len(networks.RIGHT)) >= 60
