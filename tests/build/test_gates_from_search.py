"""The gate that a search for `keep_nodes="auto"` ended with is that of the same files alone."""

from pathlib import Path

import pytest

from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.build.gates_from_search import KnownGates
from scons_tensorrt.build.onnx_spec import Onnx, OnnxSpec, SampleFiles

GATE = {"text": '{"outputs": {}}\n', "facts": {"outputs": {}}}
OPTIONS = {"rtol": 0.0, "atol": 0.1, "metric": "max", "corners": {"profiles": [], "precision": "fp16"}}
SAMPLES = SampleFiles("npz", Path("s.npz"), "s.npz", [Path("s.npz")], {"most": 4})
DIGESTS = {"input samples s.npz": "5"}


def onnx(name, *external):
    return Onnx(Path(name), name, {each: Path(each) for each in external})


def spec(kind, options, files, digests, samples=SAMPLES):
    return OnnxSpec(Path("made"), kind, options, files, samples, {**DIGESTS, **digests}, "a.onnx")


SEARCHES = {
    "of the source": spec(
        "precision",
        {"to": "fp16", **OPTIONS},
        {"onnx": onnx("a.onnx", "a.data")},
        {"input onnx": "1", "input data a.data": "2"},
    ),
    "of a reference": spec(
        "precision",
        {"to": "fp16", **OPTIONS},
        {"onnx": onnx("prepared.onnx"), "reference": onnx("a.onnx", "a.data")},
        {"input onnx": "9", "input reference": "1", "input reference data a.data": "2"},
    ),
}
CONVERTED = {"input converted": "3", "input converted data made.data": "4"}
FILES = {"reference": onnx("a.onnx", "a.data"), "converted": onnx("made", "made.data")}
REFERENCE = {"input reference": "1", "input reference data a.data": "2"}


def known(search):
    gates = KnownGates()
    gates.add(SEARCHES[search], GATE, Receipt("made", "k", "3", 1, {}, {"data_sha256": "4"}))
    return gates


@pytest.mark.parametrize("search", SEARCHES)
def test_the_gate_of_a_search_is_known(search, tmp_path):
    gate = spec("accuracy", OPTIONS, FILES, {**REFERENCE, **CONVERTED})
    assert known(search).write(gate, tmp_path / "made") == GATE["facts"]
    assert (tmp_path / "made").read_text() == GATE["text"]


@pytest.mark.parametrize(
    ("options", "digests", "samples"),
    [
        ({"atol": 0.2}, {}, SAMPLES),
        ({"corners": {"profiles": [{"x": [[1], [2], [3]]}], "precision": "fp16"}}, {}, SAMPLES),
        ({}, {"input reference": "0"}, SAMPLES),
        ({}, {"input reference data a.data": "0"}, SAMPLES),
        ({}, {"input converted": "0"}, SAMPLES),
        ({}, {"input converted data made.data": "0"}, SAMPLES),
        ({}, {"input samples s.npz": "0"}, SAMPLES),
        ({}, {}, SAMPLES._replace(key_fields={"most": 5})),
    ],
)
@pytest.mark.parametrize("search", SEARCHES)
def test_the_gate_of_anything_else_is_not(search, options, digests, samples, tmp_path):
    everything = {**REFERENCE, **CONVERTED, **digests}
    gate = spec("accuracy", {**OPTIONS, **options}, FILES, everything, samples)
    assert known(search).write(gate, tmp_path / "made") is None
    assert not (tmp_path / "made").exists()
    conversion = spec("record", OPTIONS, FILES, {**REFERENCE, **CONVERTED})
    assert known(search).write(conversion, tmp_path / "made") is None
