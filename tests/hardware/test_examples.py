"""The worked examples under hardware/ are read as they are, and say where their figures come from."""

import json
from pathlib import Path

import pytest

from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.hardware.choose_hardware import load
from scons_tensorrt.hardware.runtime import Runtime

EXAMPLES = sorted((Path(__file__).parents[2] / "hardware").glob("*.json"))


def installed(product):
    return Runtime(product, "1.7.1.116" if product == "tensorrt_rtx" else "11.4.0.106", "13.0", "/x", "/y")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_gives_a_filename_and_its_source(path):
    signature = load(path, installed)
    assert EngineFilename.of(signature, "model", "fp32").build().startswith(f"model__sm{signature.sm}")
    assert "ead off" in json.loads(path.read_text())["source"]


OLD = {
    "xavier_nx": "sm72_jp5.1_trt8.5",
    "agx_xavier": "sm72_jp5.1_trt8.5",
    "agx_orin_jp5.1": "sm87_jp5.1_trt8.5",
    "orin_nx_jp5.1": "sm87_jp5.1_trt8.5",
    "agx_orin_jp6.0": "sm87_jp6.0_trt8.6",
    "agx_orin_jp7.2": "sm87_jp7.2_trt11.4",
}


@pytest.mark.parametrize("name", OLD)
def test_the_files_of_other_jetpacks_say_it_in_the_filename(name):
    path = next(path for path in EXAMPLES if path.stem == name)
    assert EngineFilename.of(load(path, installed), "a", "fp16").build() == f"a__{OLD[name]}_fp16.engine"


def test_the_boards_that_share_a_filename_differ_in_their_class():
    names = [load(path, installed) for path in EXAMPLES if path.stem in ("orin_nx", "agx_orin")]
    assert len({EngineFilename.of(s, "m", "fp16").build() for s in names}) == 1
    assert len({json.dumps(s.key_fields()) for s in names}) == 2
