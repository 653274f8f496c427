"""What an export reads of an ONNX, and an EPContext of an engine of TensorRT."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from trt_engines import add_engine

from conftest import make_model
from scons_tensorrt.cli import main
from scons_tensorrt.release.export.network_io import read_network

onnx = pytest.importorskip("onnx")

NAME = "face__sm87_jp6.2_trt10.3_fp16"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "models/face.onnx", shape=("n", 3, 8, 8))
    add_engine(tmp_path, "engines", "models/face.onnx", [{"x": [(1, 3, 8, 8)] * 3}])
    return tmp_path


def test_a_dimension_without_a_name_gets_one_and_weights_are_no_inputs(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.onnx", shape=("n", 3, 8, 8))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    weight = model.graph.initializer[0]
    model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, 1, list(weight.dims)))
    onnx.save(model, path)
    network = read_network(path)
    assert [(each.name, each.dims) for each in network.inputs] == [("x", ("x_0", 3, 8, 8))]
    [output] = network.outputs
    assert output.dims is not None
    assert output.dims[1:] == (4, 8, 8)


def test_weights_beside_the_onnx_are_not_needed(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.onnx", external="m.data")
    (tmp_path / "m.data").unlink()
    assert read_network(path).outputs[0].dims == (1, 4, 16, 16)


def test_an_engine_of_tensorrt_names_its_own_provider(tree: Path) -> None:
    assert main(["export", "epcontext", "out", "engines", "--embed"]) == 0
    [node] = onnx.load(f"out/{NAME}.onnx").graph.node
    found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    assert (found["source"], found["hardware_architecture"]) == (b"TensorrtExecutionProvider", b"87")
    assert found["ep_cache_context"] == Path(f"engines/{NAME}.engine").read_bytes()


def test_without_the_package_onnx_an_export_is_one_line(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "triton", "out", "engines"]) == 1
    said = capsys.readouterr()
    assert said.err == (
        "HandoffError: an export needs the package `onnx`; install it with `python3 -m pip install onnx`\n"
    )
    assert not Path("out").exists()
