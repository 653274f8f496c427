"""What a person reads when TensorRT refuses a model that nothing here can prepare."""

import re

import onnx
import pytest
from refused import REFUSED

from conftest import Tree
from scons_tensorrt.build.tensorrt_errors import REFUSALS
from scons_tensorrt.recipe.onnx.read_onnx import read_onnx


def test_every_refusal_that_was_seen_has_its_model() -> None:
    seen = [each.advice for each in REFUSALS if each.seen]
    assert [next(name for name in REFUSED if advice.startswith(name)) for advice in seen] == list(REFUSED)
    assert all(each.issues or each.seen for each in REFUSALS)


@pytest.mark.parametrize("name", REFUSED)
def test_the_line_has_the_node_its_source_and_what_to_do(tree: Tree, name: str) -> None:
    made, shapes = REFUSED[name]
    onnx.save_model(made(), tree.path("models/a.onnx"))
    tree.write(f'env.Engine("a", "models/a.onnx", shapes={shapes!r}, prepare="none")')
    run = tree.scons()
    assert (run.status, run.failed) == (2, ["a"]), run.out
    reason = run.reason("a")
    advice = next(each.advice for each in REFUSALS if each.advice.startswith(name))
    assert f"; {advice}; log: .trt/logs/" in reason
    could = bool(read_onnx(tree.path("models/a.onnx")).refused)
    assert ("; prepare='auto' would rewrite the ONNX (" in reason) == could
    assert not re.search(r"/_src/|cudaError|Assertion failed", reason)
    if "node" in reason and "`step`" in reason:
        assert re.search(r" \(\w+\), made at net/model\.py:42 `return self\.step\(x\)`[:;] ", reason)
    else:
        assert name == "TensorRT has no tensors of this type"
