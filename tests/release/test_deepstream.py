"""Configuration files of DeepStream's nvinfer, read as the key files that its documentation describes."""

from __future__ import annotations

import configparser
import ctypes
import ctypes.util
from pathlib import Path

import pytest
from trt_engines import add_engine

from conftest import make_model, sha256
from scons_tensorrt.cli import main

pytest.importorskip("onnx")

NAME = "face__sm87_jp6.2_trt10.3_fp16"
BATCHES = [{"x": [(1, 3, 8, 8), (2, 3, 16, 24), (4, 3, 32, 32)]}]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> dict[str, str]:
    """The group [property] as GLib reads it, where GLib is installed, and as configparser does."""
    parser = configparser.ConfigParser(
        strict=True,
        delimiters=("=",),
        comment_prefixes=("#",),
        interpolation=None,
        empty_lines_in_values=False,
    )
    parser.optionxform = str
    parser.read_string(path.read_text())
    assert parser.sections() == ["property"]
    found = dict(parser["property"])
    library = ctypes.util.find_library("glib-2.0")
    if library:
        assert by_glib(ctypes.CDLL(library), path, found) == found
    return found


def by_glib(glib: ctypes.CDLL, path: Path, keys: dict[str, str]) -> dict[str, str]:
    glib.g_key_file_new.restype = ctypes.c_void_p
    glib.g_key_file_get_value.restype = ctypes.c_char_p
    file = ctypes.c_void_p(glib.g_key_file_new())
    assert glib.g_key_file_load_from_file(file, str(path).encode(), 0, None)
    return {key: glib.g_key_file_get_value(file, b"property", key.encode(), None).decode() for key in keys}


def test_what_follows_from_the_engine_is_set(tree: Path) -> None:
    make_model(tree / "models/face.onnx", shape=("n", 3, "h", "w"))
    engine = add_engine(tree, "engines", "models/face.onnx", BATCHES)
    assert main(["export", "deepstream", "out", "engines"]) == 0
    assert read(Path("out", f"{NAME}.txt")) == {
        "gie-unique-id": "1",
        "model-engine-file": f"{NAME}.engine",
        "batch-size": "4",
        "network-mode": "2",
        "network-type": "100",
        "output-tensor-meta": "1",
        "infer-dims": "3;16;24",
        "network-input-order": "0",
        "output-blob-names": "y",
    }
    assert sha256(Path("out", f"{NAME}.engine")) == sha256(engine)


def test_a_channel_that_is_last_and_a_fixed_batch(tree: Path) -> None:
    make_model(tree / "models/face.onnx", shape=(2, 8, 16, 3))
    add_engine(tree, "engines", "models/face.onnx", [], precision="fp32")
    assert main(["export", "deepstream", "out", "engines"]) == 0
    found = read(Path("out", f"{NAME.replace('fp16', 'fp32')}.txt"))
    named = [found[key] for key in ("batch-size", "infer-dims", "network-input-order", "network-mode")]
    assert named == ["2", "3;8;16", "1", "0"]


def test_an_input_that_is_no_image_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(tree / "models/face.onnx", shape=(1, 8, 16, 16))
    add_engine(tree, "engines", "models/face.onnx", [])
    assert main(["export", "deepstream", "out", "engines"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "first input is `x` [1, 8, 16, 16]; use Gst-nvinferserver with `export triton`" in said.err
    assert not Path("out").exists()
