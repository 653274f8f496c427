"""The worked examples under hardware/ are read as they are, and say where their figures come from."""

import json
from pathlib import Path

import pytest

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.hardware.resolve import load
from scons_tensorrt.hardware.runtime import Runtime

EXAMPLES = sorted((Path(__file__).parents[2] / "hardware").glob("*.json"))


def installed(product):
    return Runtime(product, "1.7.1.116" if product == "tensorrt_rtx" else "11.4.0.106", "13.0", "/x", "/y")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_gives_a_filename_and_its_source(path):
    signature = load(path, installed)
    assert EngineFilename.of(signature, "model", "fp32").build().startswith(f"model__sm{signature.sm}")
    assert "ead off" in json.loads(path.read_text())["source"]


def test_the_boards_that_share_a_filename_differ_in_their_class():
    names = [load(path, installed) for path in EXAMPLES if path.stem in ("orin_nx", "agx_orin")]
    assert len({EngineFilename.of(s, "m", "fp16").build() for s in names}) == 1
    assert len({json.dumps(s.key_fields()) for s in names}) == 2
