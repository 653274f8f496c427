"""`sensitivity` of engines that a build declared: what it lists, keeps for the report and refuses."""

import json
import re
import shutil

import numpy as np
import pytest

from conftest import Tree, make_model
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.cli import main
from scons_tensorrt.files.digest_cache import DigestCache
from scons_tensorrt.report.collect_data import collect

ONNX = ".trt/onnx/face.int8.onnx"
READER = """
import numpy as np

def faces():
    random = np.random.default_rng(5)
    for _ in range(8):
        yield {"x": random.standard_normal((1, 8, 16, 16)).astype(np.float32)}
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """An int8 engine whose accuracy gate refuses it, so that none is compiled."""
    tree = Tree(tmp_path_factory.mktemp("sensitivity") / "tree")
    make_model(tree.path("models/face.onnx"))
    tree.path("faces.py").write_text(READER)
    tree.write(
        """
        gate = dict(inputs="faces.py:faces", rtol=0, atol=1e-6)
        env.Engine("face", "models/face.onnx", precision="int8", calibration="faces.py:faces", accuracy=gate)
        env.Engine("plain", "models/face.onnx")
        """
    )
    run = tree.scons("engines/face__sm80plus_cu13.0_rtx1.7_int8.engine")
    assert "AccuracyError" in run.lines("FAILED")[0], run.out
    tree.path("log").write_text(run.out)
    return tree


def test_a_long_run_says_how_far_it_is(refused, monkeypatch, capsys):
    monkeypatch.setattr("scons_tensorrt.cli.sensitivity.EVERY_S", 0.0)
    monkeypatch.chdir(refused.root)
    assert main(["sensitivity", "face", "--samples", "1"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"MEASURING {ONNX}: layer 1 of 2, sample 1"
    assert len(told) == 2


def test_layers_of_a_refused_engine_are_listed_and_kept_for_the_report(refused):
    done = refused.cli("sensitivity", "face", "--samples", "2", "--json")
    assert (done.status, done.err) == (0, "")
    (found,) = json.loads(done.out)["results"]
    assert (found["onnx"], found["kind"], found["samples"], found["drawn"]) == (ONNX, "8 bit", 2, False)
    assert found["engines"] == ["engines/face__sm80plus_cu13.0_rtx1.7_int8.engine"]
    errors = [each["error"] for each in found["layers"]]
    assert errors == sorted(errors)
    assert 0 < errors[0] < found["all"]["error"]
    told = re.search(r"elemwise error ([\d.]+), beyond", refused.path("log").read_text())
    assert 0 < found["all"]["error"] <= float(told[1]) + 1e-4  # which is that of all samples
    state = StateFolder(refused.path(".trt"), refused.root)
    report = collect(state, DigestCache(state.digests, refused.root), None, refused.path("none"))
    shown = {each["name"]: each["sensitivity"] for each in report["engines"]}
    assert shown["plain"] is None
    assert {each["layer"] for each in shown["face"]["layers"]} == {each["layer"] for each in found["layers"]}
    assert shown["face"]["all"]["error"] == found["all"]["error"]


@pytest.mark.slow
def test_a_person_reads_lines(refused):
    lines = refused.cli("sensitivity", "face", "--samples", "1").out.splitlines()
    assert lines[0].startswith(f"{ONNX}: elemwise error ")
    assert lines[0].endswith(", 1 sample; with one of 2 layers in float:")
    assert " Conv " in lines[1]
    assert lines[-2].startswith("noise: if float32 rounds each activation otherwise, as an engine does, ")
    assert lines[-1].startswith("keep_nodes=['")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["plain"],
            "plain: no engine of it has a converted ONNX, so no layer can be back in float; declare one",
        ),
        (["nothing"], "nothing: neither a file nor the name of a declared model; known: face, plain"),
        (["face", "--samples", "0"], "argument --samples: '0': write a number above 0"),
        (["face", "--python", "/no/python"], "/no/python"),
    ],
)
def test_what_cannot_be_measured_is_one_line(refused, arguments, text, monkeypatch, capsys):
    monkeypatch.chdir(refused.root)
    try:
        status = main(["sensitivity", *arguments])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert (status != 0, out, len(err.splitlines())) == (True, "", 1)
    assert text in err


@pytest.mark.slow
def test_a_converted_onnx_that_is_out_of_date_is_refused(refused, tmp_path):
    tree = refused.twin(tmp_path / "tree")
    make_model(tree.path("models/face.onnx"), seed=7)
    done = tree.cli("sensitivity", "face")
    assert done.err.startswith(f"EngineError: {ONNX} is not up to date (")
    assert done.err.endswith("); run `scons engines` first\n")
    tree.path(ONNX).unlink()
    assert "run `scons engines` first" in tree.cli("sensitivity", "face").err


@pytest.mark.slow
def test_one_of_two_is_listed_and_the_other_said(refused, tmp_path):
    tree = refused.twin(tmp_path / "tree")
    text = tree.path("SConstruct").read_text()
    tree.path("SConstruct").write_text(text + 'env.Engine("face", "models/face.onnx", precision="fp16")\n')
    tree.scons(ONNX)
    done = tree.cli("sensitivity", "face", "--samples", "1")
    assert (done.status, done.out.startswith(f"{ONNX}: elemwise error ")) == (1, True)
    assert done.err.startswith("EngineError: .trt/onnx/face.fp16.onnx is not up to date (not built before)")


@pytest.mark.slow
def test_without_a_gate_the_samples_of_the_calibration_serve_or_draws(refused, tmp_path):
    tree = refused.twin(tmp_path / "tree")
    shutil.rmtree(tree.path(".trt"))
    samples = np.random.default_rng(0).standard_normal((8, 1, 8, 16, 16)).astype(np.float32)
    np.savez(tree.path("faces.npz"), x=samples)
    tree.write(
        """
        env.Engine("face", "models/face.onnx", precision="int8", calibration="faces.npz")
        env.Engine("face", "models/face.onnx", precision="fp16")
        """
    )
    assert tree.scons().built == ["face", "face"]
    done = tree.cli("sensitivity", "face", "--json")
    by_kind = {each["kind"]: each for each in json.loads(done.out)["results"]}
    assert (by_kind["8 bit"]["samples"], by_kind["8 bit"]["drawn"]) == (4, False)
    assert (by_kind["16 bit"]["drawn"], by_kind["16 bit"]["noise"]) == (True, None)
    assert by_kind["16 bit"]["layers"][0]["keep"]
