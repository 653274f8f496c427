"""Which conversions have another key than before, because another result is made of them."""

from pathlib import Path

import pytest

from scons_tensorrt.build.onnx_spec import Onnx, onnx_spec_of
from scons_tensorrt.recipe.onnx.summary import OnnxSummary

FIELDS = {"recipe version": "x 1"}


def more(kind: str, **has: bool) -> set[str]:
    """The ingredients beyond those of version 1, of a step whose source has this."""
    onnx = {"onnx": Onnx(Path("m.onnx"), "m.onnx", {}, OnnxSummary((), {}, **has))}
    nothing = Path("m.made.onnx"), kind, {}, FIELDS, onnx, None, "m.onnx", None, {}
    return set(onnx_spec_of(*nothing, lambda path, label: "0" * 64).ingredients) - {*FIELDS, "input onnx"}


@pytest.mark.parametrize("kind", ["precision", "quantize", "accuracy", "samples"])
def test_a_plain_model_has_the_key_that_it_had(kind: str) -> None:
    assert more(kind) == set()


def test_only_what_is_made_otherwise_has_another_key() -> None:
    assert more("quantize", functions=True) == {"local functions"}
    assert more("precision", quantized=True) == {"scales of Q/DQ nodes"}
    assert more("precision", functions=True) == more("accuracy", functions=True, quantized=True) == set()
