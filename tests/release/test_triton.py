"""Triton's model repository, parsed by Triton's own protobuf. TensorRT compiles on no test machine: the
engines are headers with real receipts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from trt_engines import add_engine

from conftest import make_model, sha256
from scons_tensorrt.cli import main

onnx = pytest.importorskip("onnx")
text_format = pytest.importorskip("google.protobuf.text_format")

X = (1, 3, 8, 8)
BATCHES = [{"x": [X, (2, 3, 8, 8), (4, 3, 8, 8)]}]


@pytest.fixture(scope="module")
def proto() -> ModuleType:
    """Triton's model_config_pb2 alone: the package that holds it needs gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the package tritonclient")
    path = Path(package.submodule_search_locations[0], "grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault("model_config_pb2", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "models/face.onnx", shape=("n", 3, 8, 8))
    return tmp_path


def export(proto: ModuleType, *arguments: str, model: str = "face"):
    assert main(["export", "triton", "repository", *arguments]) == 0
    return text_format.Parse(Path("repository", model, "config.pbtxt").read_text(), proto.ModelConfig())


def tensors(listed) -> list[tuple]:
    return [(each.name, each.data_type, list(each.dims)) for each in listed]


def test_a_dynamic_first_dimension_is_the_batch(tree: Path, proto: ModuleType) -> None:
    engine = add_engine(tree, "engines", "models/face.onnx", BATCHES)
    config = export(proto, "engines")
    assert (config.name, config.backend, config.max_batch_size) == ("face", "tensorrt", 4)
    assert tensors(config.input) == [("x", proto.TYPE_FP32, [3, 8, 8])]
    assert tensors(config.output) == [("y", proto.TYPE_FP32, [4, 8, 8])]
    [group] = config.instance_group
    assert (group.kind, group.count, list(group.profile)) == (proto.ModelInstanceGroup.KIND_GPU, 1, [])
    assert dict(config.cc_model_filenames) == {}
    assert sha256(Path("repository/face/1/model.plan")) == sha256(engine)


def test_a_fixed_first_dimension_is_no_batch(tree: Path, proto: ModuleType) -> None:
    make_model(tree / "models/face.onnx", shape=X)
    add_engine(tree, "engines", "models/face.onnx", [])
    config = export(proto, "engines")
    assert config.max_batch_size == 0
    assert tensors(config.input) == [("x", proto.TYPE_FP32, list(X))]
    assert tensors(config.output) == [("y", proto.TYPE_FP32, [1, 4, 8, 8])]


def test_several_profiles_are_all_listed_and_the_largest_counts(tree: Path, proto: ModuleType) -> None:
    large = {"x": [(8, 3, 8, 8), (8, 3, 8, 8), (16, 3, 8, 8)]}
    add_engine(tree, "engines", "models/face.onnx", [*BATCHES, large])
    config = export(proto, "engines")
    assert (config.max_batch_size, list(config.instance_group[0].profile)) == (16, ["0", "1"])


def test_engines_for_several_gpus_are_one_model(tree: Path, proto: ModuleType) -> None:
    for folder, capability in (("engines/orin", "8.7"), ("engines/ada", "8.9")):
        add_engine(tree, folder, "models/face.onnx", BATCHES, compute_capability=capability)
    config = export(proto, "engines")
    assert dict(config.cc_model_filenames) == {"8.7": "model_sm87.plan", "8.9": "model_sm89.plan"}
    there = {path.name for path in Path("repository/face/1").iterdir()}
    assert there == {*config.cc_model_filenames.values()}


def test_several_precisions_are_several_models(tree: Path, proto: ModuleType) -> None:
    add_engine(tree, "engines", "models/face.onnx", BATCHES)
    add_engine(tree, "engines", "models/face.onnx", BATCHES, precision="fp32")
    assert export(proto, "engines", model="face_fp32").name == "face_fp32"
    assert {path.name for path in Path("repository").iterdir()} == {"face_fp16", "face_fp32"}


def network(path: Path, inputs: list[tuple], output: tuple) -> None:
    helper = onnx.helper
    values = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in (*inputs, output)]
    node = helper.make_node("Expand", [name for name, _, _ in inputs], [output[0]])
    graph = helper.make_graph([node], "net", values[:-1], values[-1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def test_a_shape_tensor_is_marked_and_there_is_no_batch(tree: Path, proto: ModuleType) -> None:
    kinds = onnx.TensorProto
    inputs = [("x", kinds.FLOAT16, ["n", 8]), ("to", kinds.INT64, [2])]
    network(tree / "models/face.onnx", inputs, ("y", kinds.FLOAT16, ["n", "wide"]))
    sizes = [(1, 8), (2, 8), (4, 8)]
    add_engine(tree, "engines", "models/face.onnx", [{"x": sizes, "to": sizes}])
    config = export(proto, "engines")
    assert config.max_batch_size == 0
    assert tensors(config.input) == [("x", proto.TYPE_FP16, [-1, 8]), ("to", proto.TYPE_INT64, [2])]
    assert [each.is_shape_tensor for each in config.input] == [False, True]
    assert tensors(config.output) == [("y", proto.TYPE_FP16, [-1, -1])]


def test_a_scalar_is_reshaped(tree: Path, proto: ModuleType) -> None:
    kinds = onnx.TensorProto
    inputs = [("x", kinds.FLOAT, []), ("to", kinds.INT64, [2])]
    network(tree / "models/face.onnx", inputs, ("y", kinds.FLOAT, [2, 2]))
    add_engine(tree, "engines", "models/face.onnx", [])
    [scalar, _] = export(proto, "engines").input
    assert (list(scalar.dims), scalar.HasField("reshape"), list(scalar.reshape.shape)) == ([1], True, [])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", "triton", "repository", "engines"]) == 1
    assert not Path("repository").exists()
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def test_two_engines_for_one_capability_are_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, jetpack in (("engines/a", "6.1"), ("engines/b", "6.2")):
        add_engine(tree, folder, "models/face.onnx", BATCHES, jetpack=jetpack)
    assert "Triton chooses by compute capability alone, and both are for 8.7; export one of" in refused(
        capsys
    )


def test_variants_that_differ_in_shape_are_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_engine(tree, "engines/a", "models/face.onnx", BATCHES)
    add_engine(tree, "engines/b", "models/face.onnx", [{"x": [X, X, X]}], compute_capability="8.9")
    assert "one configuration cannot have the inputs, outputs and profiles of both" in refused(capsys)


def test_an_output_of_unknown_rank_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = onnx.TensorProto
    network(tree / "models/face.onnx", [("x", kinds.FLOAT, [1]), ("to", kinds.INT64, ["k"])], ("y", 1, None))
    add_engine(tree, "engines", "models/face.onnx", [{"to": [(1,), (2,), (3,)]}])
    assert "Triton needs the rank of output `y`" in refused(capsys)
