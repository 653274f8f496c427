"""Decoders: a cache that is passed through, a past that is empty in the first step."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Tree

FLOAT = TensorProto.FLOAT


def save(path: Path, nodes: list, inputs: dict, outputs: dict, **weights: np.ndarray) -> None:
    values = [
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in each.items()]
        for each in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", *values, tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def square(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((4, 4)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("read", [False, True], ids=["nothing reads it", "a node reads it"])
@pytest.mark.slow
def test_an_output_that_is_an_input_is_built_in_every_precision(tree: Tree, read: bool) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"])]
    nodes.append(helper.make_node("Add", ["h", "past" if read else "b"], ["y"]))
    shapes = {name: [2, 4] for name in ("x", "past")}
    outputs = {"past": [2, 4], "y": [2, 4]}
    save(tree.path("models/m.onnx"), nodes, shapes, outputs, w=square(), b=square()[0])
    random = np.random.default_rng(1)
    arrays = {name: random.standard_normal((8, 2, 4)).astype(np.float32) for name in shapes}
    np.savez(tree.path("s.npz"), **arrays)
    tree.write(
        """
        gate = dict(inputs="s.npz", atol=0.1)
        env.Engine("m", "models/m.onnx")
        env.Engine("m", "models/m.onnx", precision="fp16", accuracy=gate)
        env.Engine("m", "models/m.onnx", precision="bf16")
        env.Engine("m", "models/m.onnx", precision="int8", calibration="s.npz", accuracy=gate)
        env.Engine("half_io", "models/m.onnx", precision="fp16", keep_io=False, accuracy=gate)
        """
    )
    run = tree.scons()
    assert (run.status, run.built) == (0, ["half_io", "m", "m", "m", "m"]), run.out
    made = onnx.load(tree.path(".trt/onnx/m.fp16.onnx")).graph
    assert [o.name for o in made.output] == ["past", "y"]
    assert {o.type.tensor_type.elem_type for o in [*made.input, *made.output]} == {FLOAT}


@pytest.fixture
def decoder(tree: Tree) -> Tree:
    """y = past ++ x · w, with samples whose past is 0, 1, 2, … long."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Concat", ["past", "h"], ["y"], axis=1),
    ]
    inputs = {"past": [1, "n", 4], "x": [1, 1, 4]}
    save(tree.path("models/m.onnx"), nodes, inputs, {"y": [1, "m", 4]}, w=square())
    random = np.random.default_rng(0)
    for index in range(8):
        for name, shape in (("past", (1, index, 4)), ("x", (1, 1, 4))):
            path = tree.path(f"s/{name}/{index}.npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, random.standard_normal(shape).astype(np.float32))
    tree.write(
        """
        past = ((1, 0, 4), (1, 5, 4), (1, 9, 4))
        more = dict(shapes={"past": past}, accuracy=dict(inputs="s", atol=0.1))
        env.Engine("m", "models/m.onnx", precision="fp16", **more)
        env.Engine("m", "models/m.onnx", precision="int8", calibration="s", **more)
        """
    )
    return tree


@pytest.mark.slow
def test_samples_whose_past_is_empty_are_taken(decoder: Tree) -> None:
    run = decoder.scons()
    assert (run.status, run.built, len(run.lines("CHECKED"))) == (0, ["m", "m"], 2), run.out
    told = json.loads(decoder.path(".trt/onnx/m.fp16.accuracy.json").read_text())
    assert told["samples"] == 8


@pytest.mark.slow
def test_a_sample_of_which_every_input_is_empty_is_refused(decoder: Tree) -> None:
    np.save(decoder.path("s/x/3.npy"), np.zeros((1, 0, 4), np.float32))
    np.save(decoder.path("s/past/3.npy"), np.zeros((1, 0, 4), np.float32))
    made = onnx.load(decoder.path("models/m.onnx"))
    made.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "k"
    onnx.save(made, decoder.path("models/m.onnx"))
    text = decoder.path("SConstruct").read_text()
    text = text.replace("shapes={", 'shapes={"x": ((1, 0, 4), (1, 1, 4), (1, 1, 4)), ')
    decoder.write(text, header="")
    run = decoder.scons()
    assert run.status == 2
    assert "s/past/3.npy is empty in every input: `past` [1, 0, 4], `x` [1, 0, 4]; remove it" in run.out


@pytest.mark.slow
def test_samples_that_are_a_git_lfs_pointer_are_told(decoder: Tree) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 144\n"
    decoder.path("s/x/3.npy").write_bytes(pointer)
    assert "s/x/3.npy is a Git LFS pointer, not the samples; run `git lfs pull`" in decoder.scons().out
    decoder.path("s.npz").write_bytes(pointer)
    text = decoder.path("SConstruct").read_text().replace('"s"', '"s.npz"')
    decoder.write(text, header="")
    assert "s.npz is a Git LFS pointer, not the samples; run `git lfs pull`" in decoder.scons().out
