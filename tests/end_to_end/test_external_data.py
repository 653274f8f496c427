"""External data that is a Git LFS pointer, cut, overlong or linked, in every precision."""

import hashlib
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from conftest import Run, Tree, flip_last_bit, make_model, sha256

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 16384\n"
)
WEIGHTS = np.full((64, 64), 0.5, np.float32).tobytes()
SAMPLES = np.random.default_rng(0).standard_normal((8, 1, 8, 16, 16)).astype(np.float32)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def matmul(path: Path, data: bytes, **entries: int) -> None:
    """y = x · w, whose w lies in `path`.w. entries: of its external data, beside the location."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": path.stem + ".w", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 64]) for n in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    path.with_suffix(".w").write_bytes(data)


def in_every_precision(tree: Tree, onnx: str) -> Run:
    np.savez(tree.path("models/s.npz"), x=np.ones((8, 2, 64), np.float32))
    tree.write(
        f"""
        for precision in {PRECISIONS}:
            more = dict(calibration="models/s.npz") if precision == "int8" else {{}}
            env.Engine("m", {onnx!r}, precision=precision, **more)
        """
    )
    return tree.scons("-k", "engines")


WRONG = {
    "a pointer": (POINTER, {}, "external data 'm.w' of models/m.onnx is a Git LFS pointer"),
    "a pointer, length told": (POINTER, {"length": 16384}, "is a Git LFS pointer, not the data; run"),
    "cut": (WEIGHTS[:16000], {}, "has 16000 bytes and the model needs 16384: it is truncated"),
    "cut, length told": (WEIGHTS[:16000], {"offset": 0, "length": 16384}, "it is truncated"),
    "empty": (b"", {}, "has 0 bytes and the model needs 16384"),
    "more than the tensor": (WEIGHTS + b"x" * 100, {}, "the data must end with the file"),
    "length too small": (WEIGHTS, {"length": 160}, "tensor `w` has 160 bytes of external data 'm.w'"),
    "length too large": (WEIGHTS * 2, {"length": 32768}, "but its type and shape need 16384"),
}


def assert_told_once(run: Run, reason: str) -> None:
    """It stopped each precision's engine or conversion, and the first line says why."""
    first, *others = run.lines("FAILED")
    assert reason in first, run.out
    assert not any(reason in line for line in others)
    assert sum(line.endswith("Error, see error above") for line in others) == len(PRECISIONS) - 1


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_external_data_is_named_in_one_line(tree: Tree, wrong: str) -> None:
    data, entries, reason = WRONG[wrong]
    matmul(tree.path("models/m.onnx"), data, **entries)
    run = in_every_precision(tree, "models/m.onnx")
    assert run.status == 2
    assert_told_once(run, reason)
    assert "RecipeError: " in run.lines("FAILED")[0]
    assert "models/m.onnx" in run.lines("FAILED")[0]


@pytest.mark.parametrize(
    "entries", [{}, {"offset": 4096}, {"offset": 4096, "length": 16384}, {"length": 16384}], ids=str
)
def test_right_external_data_is_taken(tree: Tree, entries: dict) -> None:
    before = b"p" * entries.get("offset", 0)
    matmul(tree.path("models/m.onnx"), before + WEIGHTS + b"p" * 9 * ("length" in entries), **entries)
    run = in_every_precision(tree, "models/m.onnx")
    assert (run.status, len(run.built)) == (0, len(PRECISIONS)), run.out


def test_a_pointer_of_exactly_the_tensors_size_is_no_data(tree: Tree) -> None:
    matmul(tree.path("models/m.onnx"), POINTER.ljust(512, b"\n"), length=512)
    made = onnx.load(tree.path("models/m.onnx"), load_external_data=False)
    made.graph.initializer[0].dims[:] = [64, 2]
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    tree.path("models/m.onnx").write_bytes(made.SerializeToString())
    run = in_every_precision(tree, "models/m.onnx")
    assert_told_once(run, "is a Git LFS pointer, not the data")


def test_an_onnx_that_is_a_pointer_is_told(tree: Tree) -> None:
    tree.path("models/m.onnx").write_bytes(POINTER)
    run = in_every_precision(tree, "models/m.onnx")
    assert_told_once(run, "models/m.onnx: not an ONNX file but a Git LFS pointer; run `git lfs pull`")


# Links.


def in_a_hub_cache(tree: Tree) -> str:
    """As huggingface_hub keeps what it fetched."""
    make_model(tree.path("whole/model.onnx"), external="model.onnx_data")
    for name in ("blobs", "snapshots/rev"):
        tree.path(f"hub/{name}").mkdir(parents=True)
    for path in tree.path("whole").iterdir():
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(tree.path(f"hub/blobs/{name}"))
        tree.path(f"hub/snapshots/rev/{path.name}").symlink_to(f"../../blobs/{name}")
    return "hub/snapshots/rev/model.onnx"


def with_data_linked_elsewhere(tree: Tree) -> str:
    """A large file kept on another disk."""
    make_model(tree.path("models/model.onnx"), external="model.data")
    tree.path("disk").mkdir()
    tree.path("models/model.data").rename(tree.path("disk/model.data"))
    tree.path("models/model.data").symlink_to(tree.path("disk/model.data"))
    return "models/model.onnx"


def with_several_hard_links(tree: Tree) -> str:
    make_model(tree.path("models/model.onnx"), external="model.data")
    subprocess.run(["cp", "-al", tree.path("models"), tree.path("twin")], check=True)
    return "twin/model.onnx"


def in_a_variant_folder(tree: Tree, duplicate: int) -> str:
    make_model(tree.path("models/model.onnx"), external="model.data")
    tree.write('VariantDir("build", "models", duplicate=%d)' % duplicate, "variant.py", header="")
    return "build/model.onnx"


LAYOUTS = {
    "hub cache": in_a_hub_cache,
    "data linked elsewhere": with_data_linked_elsewhere,
    "hard links": with_several_hard_links,
    "VariantDir, duplicate=0": lambda tree: in_a_variant_folder(tree, 0),
    "VariantDir, duplicate=1": lambda tree: in_a_variant_folder(tree, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.slow
def test_linked_external_data_is_converted_and_compared(tree: Tree, layout: str) -> None:
    source = LAYOUTS[layout](tree)
    np.savez(tree.path("s.npz"), x=SAMPLES)
    variant = "SConscript('variant.py')" if tree.path("variant.py").exists() else ""
    tree.write(
        f"""
        {variant}
        gate = dict(inputs="s.npz", metric="cosine", atol=0.01)
        env.Engine("m", {source!r}, precision="fp16", accuracy=gate)
        env.Engine("m", {source!r}, precision="int8", calibration="s.npz", accuracy=gate)
        """
    )
    run = tree.scons()
    assert (run.status, run.built, len(run.lines("CHECKED"))) == (0, ["m", "m"], 2), run.out
    again = tree.scons()
    assert (again.status, again.reused, again.lines("CONVERTED")) == (0, ["m", "m"], []), again.out


@pytest.mark.parametrize("linked", [os.symlink, os.link])
def test_a_model_of_the_wanted_type_is_copied_with_its_linked_data(tmp_path: Path, linked) -> None:
    from scons_tensorrt.worker.onnx import precision

    options = {"to": "fp16", "keep_ops": [], "keep_nodes": [], "keep_io": False}
    make_model(tmp_path / "whole.onnx", external="whole.data")
    precision.convert(str(tmp_path / "whole.onnx"), str(tmp_path / "half.onnx"), options)
    half = onnx.load(tmp_path / "half.onnx")
    (tmp_path / "links").mkdir()
    for name in ("half.onnx", "half.onnx.data"):
        linked(tmp_path / name, tmp_path / "links" / name)
    made = tmp_path / "made.onnx"
    assert precision.convert(str(tmp_path / "links/half.onnx"), str(made), options)["as_it_is"]
    assert onnx.load(made).graph == half.graph


def test_external_data_called_like_our_own_link_is_read(tree: Tree) -> None:
    make_model(tree.path("models/net.onnx"), external="model.onnx")
    make_model(tree.path("models/same.onnx"), external="other.bin")
    tree.write('env.Engine("a", "models/net.onnx")\nenv.Engine("b", "models/same.onnx")')
    assert tree.scons().built == ["a", "b"]
    assert tree.engine("a").stat().st_size == tree.engine("b").stat().st_size
    before = sha256(tree.engine("a"))
    flip_last_bit(tree.path("models/model.onnx"))
    assert tree.scons().built == ["a"]
    assert sha256(tree.engine("a")) != before


def test_external_data_that_is_too_short_is_named(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.path("models/a.bin").write_bytes(b"short")
    tree.write('env.Engine("a", "models/a.onnx")')
    run = tree.scons()
    assert (run.status, run.failed) == (2, ["a"])
    assert "external data 'a.bin' of models/a.onnx has 5 bytes and the model needs" in run.reason("a")


@pytest.mark.slow
def test_a_command_that_uses_external_data_too_sees_one_signature(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("sum", "models/a.bin", "echo ran >> runs && touch $TARGET")
        """
    )
    time.sleep(0.2)  # files this young are hashed and not remembered
    tree.scons("engines", "sum")
    tree.scons("sum")
    before = tree.path("runs").read_text()
    for targets in (["sum"], ["engines", "sum"], ["sum", "engines"], ["sum"]):
        assert tree.scons(*targets).status == 0
    assert tree.path("runs").read_text() == before
    assert tree.scons("-q", "engines", "sum").status == 0
