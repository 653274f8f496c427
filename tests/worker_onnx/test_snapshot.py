"""Copies of a step's inputs: what is copied twice must be the same twice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scons_tensorrt.build import step_inputs as module
from scons_tensorrt.build.onnx_spec import Onnx, OnnxSpec, file_fields, step_fields
from scons_tensorrt.build.step_inputs import snapshot
from scons_tensorrt.errors import EngineBuildError


def sha(path: Path, label: str = "") -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_two_roles_that_changes_between_its_copies_is_noticed(tmp_path, monkeypatch):
    """Other bytes stand there for the first copy, and are put back for the second."""
    weights, wrong = tmp_path / "w.bin", b"wrong"
    weights.write_bytes(b"right")
    onnx = {}
    for role in ("reference", "converted"):
        path = tmp_path / f"{role}.onnx"
        path.write_bytes(role.encode())
        onnx[role] = Onnx(path, role, {"w.bin": weights})
    wanted = OnnxSpec(tmp_path / "t", "accuracy", {}, onnx, None, file_fields(onnx, None, sha), "s")
    real, calls = module.copy_hashed, []

    def hooked(source, place, digests, verb):
        if place.name == "w.bin":
            calls.append(place)
            if len(calls) == 1:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(wrong)
                digests[source] = hashlib.sha256(wrong).hexdigest()
                return
        real(source, place, digests, verb)

    monkeypatch.setattr(module, "copy_hashed", hooked)
    with pytest.raises(EngineBuildError, match=r"w\.bin changed while it was converted"):
        snapshot(wanted, tmp_path / "copies", tmp_path)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"v": "8"}, {"v": 8}),
        ({"v": "true"}, {"v": True}),
        ({"v": "[1]"}, {"v": [1]}),
        ({}, {"v": None}),
        ({"v": None}, {"v": []}),
        ({"v": "null"}, {"v": None}),
        ({"v": '"a"'}, {"v": "a"}),
    ],
)
def test_arguments_that_a_function_tells_apart_have_other_keys(one, other):
    assert step_fields("export", one) != step_fields("export", other)


def test_a_plain_text_is_written_as_before():
    """So that exports keep their keys."""
    assert step_fields("export", {"v": "small", "n": 8})["option v"] == "small"
    assert step_fields("precision", {"v": None, "w": [], "x": "fp16"}).keys() == {
        "recipe version",
        "option x",
    }
