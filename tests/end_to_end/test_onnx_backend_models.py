"""A fixed sample of ONNX's own backend test models, ours beside the raw API; benchmarks/sweep.py does
all 1,764."""

import sys
from pathlib import Path

import onnx
import pytest

from conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))
import sweep

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
MODELS = sweep.models_of(DATA) if DATA.is_dir() else {}
EVERY = 12  # of those that this onnx still ships


@pytest.mark.slow
@pytest.mark.skipif(len(MODELS) < EVERY, reason="this onnx ships no test models")
def test_our_outcome_is_the_raw_apis(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    chosen = dict(sorted(MODELS.items())[::EVERY])
    shapes = {name: sweep.shapes_of(path) for name, path in chosen.items()}
    raws = {name: [shapes[name], *sweep.raw(path, shapes[name])] for name, path in chosen.items()}
    mine = sweep.ours(tmp_path, chosen, shapes, 2)
    status = sweep.report(chosen, raws, mine, None)
    kinds = {kind for _, kind, _ in raws.values()}
    assert {"built", "parser"} <= kinds  # the sample shows both
    assert set(mine["outcomes"]) == set(chosen)
    assert status == 0, capsys.readouterr().out
