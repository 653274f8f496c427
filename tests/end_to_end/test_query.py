"""`query`: which engines depend on a file, how two differ, what another TensorRT would change."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pytest

from conftest import Tree, hardware, make_model
from scons_tensorrt.cli import main


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Engines for a board that is not here: declared, and not built."""
    import numpy as np

    tree = Tree(tmp_path_factory.mktemp("query") / "tree")
    make_model(tree.path("models/data.onnx"), seed=1, external="data.bin")
    make_model(tree.path("models/net.onnx"), seed=2)
    hardware(tree.path("hardware/nx.json"))
    tree.path("samples").mkdir()
    np.save(tree.path("samples/0.npy"), np.zeros((1, 8, 16, 16), np.float32))
    tree.path("plugin.so").write_bytes(b"")
    tree.write(
        """
        env.Engine("data", "models/data.onnx", plugins=["plugin.so"], flags=["OBEY_PRECISION_CONSTRAINTS"])
        env.Engine("half", "models/net.onnx", precision="fp16")
        env.Engine("net", "models/net.onnx", precision="int8", calibration="samples")
        """
    )
    run = tree.scons("engines", "-k", "HARDWARE=nx")
    assert run.failed == ["data", "half", "net"], run.out
    return tree


def query(tree: Tree, *arguments: str) -> dict:
    """What the command prints with --json, run in this process."""
    before, out = os.getcwd(), io.StringIO()
    os.chdir(tree.root)
    try:
        with contextlib.redirect_stdout(out):
            assert main(["query", *arguments, "--json"]) == 0
    finally:
        os.chdir(before)
    return json.loads(out.getvalue())


STEP = ".trt/onnx/net.int8.onnx"


def test_what_depends_on_each_kind_of_file(board: Tree) -> None:
    expected: dict[str, list[tuple[str, str, str | None]]] = {
        "models/data.onnx": [("data", "onnx", None)],
        "models/data.bin": [("data", "external data", None)],
        "plugin.so": [("data", "plugin", None)],
        "models/net.onnx": [("half", "onnx", None), ("net", "onnx", STEP)],
        "samples": [("net", "samples", STEP)],
        "samples/0.npy": [("net", "samples", STEP)],
        "samples/new.npy": [("net", "samples", STEP)],
        STEP: [("net", "onnx", None)],
        "hardware/nx.json": [(name, "hardware", None) for name in ("data", "half", "net")],
        "SConstruct": [(name, "SConscript", None) for name in ("data", "half", "net")],
        "hardware": [(name, "hardware", None) for name in ("data", "half", "net")],
    }
    found = {}
    for file in expected:
        rows = query(board, "dependents", file)["engines"]
        found[file] = [(row["name"], row["role"], row["through"]) for row in rows]
    assert found == expected


def test_a_file_is_found_from_another_folder_and_one_that_is_not_there_is_an_error(board: Tree) -> None:
    done = board.cli("query", "dependents", "net.onnx", cwd=board.path("models"))
    assert done.out.splitlines()[-1] == "2 of 3 engines need net.onnx"
    done = board.cli("query", "dependents", "nothing.onnx")
    text = "EngineError: nothing.onnx: no such file, and no engine is declared with it; check the path\n"
    assert (done.status, done.err) == (1, text)


def outcomes(found: dict) -> dict[str, tuple[str, str]]:
    return {each["name"]: (each["outcome"], each["filename"]) for each in found["engines"]}


def test_another_version_gives_other_filenames_and_refuses_what_it_lacks(board: Tree) -> None:
    same = query(board, "what-if", "--runtime", "10.3")
    assert {each["outcome"] for each in same["engines"]} == {"same"}
    newer = query(board, "what-if", "--runtime", "10.16")
    assert outcomes(newer)["half"] == ("rebuild", "half__sm87_jp6.2_trt10.16_fp16.engine")
    assert "tiling_optimization_level" in newer["available"]
    assert (newer["unavailable"], newer["unknown"]) == ([], [])
    assert "flag OBEY_PRECISION_CONSTRAINTS" in query(board, "what-if", "--runtime", "11.0")["unknown"]
    eleven = query(board, "what-if", "--runtime", "trt11.4")
    assert outcomes(eleven)["data"] == ("refuse", "data__sm87_jp6.2_trt11.4_fp32.engine")
    told = {each["name"]: each["reasons"] + each["notes"] for each in eleven["engines"]}
    assert told["data"] == ["flag OBEY_PRECISION_CONSTRAINTS: not in TensorRT 11.4; leave it out"]
    assert told["half"][-1] == "its ONNX would be converted to fp16 first"


def test_other_hardware_of_a_file(board: Tree, tmp_path: Path) -> None:
    file = hardware(tmp_path / "orin.json", memory_gib=64, runtime_version="8.6.1.6", jetpack="6.0")
    found = query(board, "what-if", "--hardware", str(file))
    assert outcomes(found)["net"] == ("rebuild", "net__sm87_jp6.0_trt8.6_int8.engine")
    assert "precision bf16" in found["unavailable"]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (
            ["--runtime", "rtx1.8"],
            1,
            "no engine is declared for tensorrt_rtx; name a version",
        ),
        (
            ["--hardware", "rtx_sm89"],
            1,
            "declared for tensorrt_rtx, so its version is not known",
        ),
        (["--runtime", "ten"], 2, "write a version of TensorRT such as 10.16, or rtx1.8"),
        ([], 2, "name a --runtime, such as 10.16, or a --hardware"),
    ],
)
def test_a_wrong_what_if_is_one_line(board: Tree, arguments: list[str], status: int, text: str) -> None:
    done = board.cli("query", "what-if", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
    assert text in done.err


def test_how_two_engines_and_two_builds_of_one_differ(built: Tree) -> None:
    a, b = (built.engine(name) for name in "ab")
    found = query(built, "diff", str(a), str(b))
    assert [each["name"] for each in found["differences"]][:1] == ["input onnx"]
    assert built.cli("query", "diff", "a", "b").out.splitlines()[2].startswith("input onnx: models/a.onnx ")
    assert "no earlier one" in built.cli("query", "diff", "a").out
    built.write('env.Engine("a", "models/a.onnx", workspace_mb=128)')
    assert built.scons("engines").built == ["a"]
    lines = built.cli("query", "diff", "a").out.splitlines()
    assert lines[2] == "option workspace_mb: 4096 → 128"
    earlier, now = query(built, "diff", "a")["engines"]
    assert (now["key"], earlier["key"]) != (earlier["key"], now["key"])
    assert now["key"] == built.receipt("a")["key"]
    assert query(built, "what-if", "--runtime", "rtx1.7")["engines"][0]["outcome"] == "same"


def test_an_engine_that_was_built_before_would_be_reused(built: Tree) -> None:
    """For hardware that a tree no longer declares, but has receipts of."""
    declared = json.loads(built.path(".trt/declared.json").read_text())
    (signature,) = declared["signatures"]
    signature["runtime_version"] = "1.6.0.1"
    built.path(".trt/declared.json").write_text(json.dumps(declared))
    found = query(built, "what-if", "--hardware", "rtx_portable", "--runtime", "rtx1.7.1.116")
    assert outcomes(found) == {name: ("reuse", built.engine(name).name) for name in "ab"}


def test_an_onnx_of_another_folder_is_named_without_its_folder(board: Tree, tmp_path: Path) -> None:
    """As in receipts, which have no absolute path."""
    file = make_model(tmp_path / ("a_folder_with_a_long_name" * 4) / "far.onnx", seed=3)
    tree = board.twin(tmp_path / "tree")
    tree.write(f'env.Engine("far", {str(file)!r})\nenv.Engine("net", "models/net.onnx")')
    tree.scons("engines", "-k", "HARDWARE=nx")
    line = tree.cli("query", "diff", "far", "net").out.splitlines()[2]
    assert line.startswith("input onnx: far.onnx ")
    assert " → models/net.onnx " in line
