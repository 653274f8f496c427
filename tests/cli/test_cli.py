"""`python -m scons_tensorrt`: what it prints, and with which status it ends."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from boards import JETSON

import scons_tensorrt
from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.sidecar import sidecar_of
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.cli import _parser, main
from scons_tensorrt.hardware.signature import HardwareSignature

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
ORIN = {
    **JETSON,
    "gpu_name": "Orin",
    "memory_gib": 16,
    "jetpack": "6.2",
}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def pair(folder, data=b"engine", name=NAME):
    folder.mkdir(parents=True, exist_ok=True)
    engine = folder / name
    engine.write_bytes(data)
    sidecar_of(engine).write_text(sha(data))
    return engine


@pytest.fixture
def run(capsys):
    """Run a command; its status, its lines of output, its lines of error."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse ends so
            status = end.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out.splitlines(), said.err.splitlines()

    return run


def test_python_dash_m_runs_it():
    done = subprocess.run(
        [sys.executable, "-m", "scons_tensorrt", "name", "parse", "x"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("EngineFilenameError: 'x' is not an engine's filename")


def test_it_says_its_version(run):
    assert run("--version") == (0, [scons_tensorrt.__version__], [])


WRONG_CALLS = [
    [],  # no command
    ["bild"],  # an unknown one
    ["verify"],  # of nothing
    ["explain"],  # of nothing
    ["explain", "a", "b"],  # of two
    ["name"],  # name what
    ["name", "parse"],  # of nothing
    ["verify", "--fast", "x"],  # an unknown option
    ["build", "a.onnx", "--fast"],
    ["verify", "engines", "--jetpack", "6.2"],  # without a host to compare with
    ["verify", "a\nb", "--fast\n"],  # a newline
    ["probe", "--root", "/"],  # an image without a board
    ["store", "gc", "--older", "x"],  # not a number
]


@pytest.mark.parametrize("arguments", WRONG_CALLS, ids=str)
def test_a_wrong_call_ends_with_2_and_one_line(run, monkeypatch, arguments):
    monkeypatch.delenv("TRT_HARDWARE", raising=False)
    status, lines, errors = run(*arguments)
    assert (status, lines, len(errors)) == (2, [], 1)
    assert re.fullmatch(r"(python3 -m scons_tensorrt\b[\w ]*): .*; see `\1 --help`", errors[0])


def parsers(parser):
    """The parsers of commands that can be run."""
    groups = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
    for choices in groups:
        for each in choices.values():
            yield from parsers(each)
    if not groups:
        yield parser


COMMANDS = [parser.prog.split(None, 3)[3] for parser in parsers(_parser())]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_has_two_examples_that_parse(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TRT_DISPATCH_CERTIFICATES", "certificates")
    [text] = [p.format_help() for p in parsers(_parser()) if p.prog.endswith(f"_tensorrt {command}")]
    assert max(map(len, text.splitlines())) <= 80
    examples = re.findall(r"^  python3 -m scons_tensorrt (.*)$", text.partition("\nexamples:\n")[2], re.M)
    assert len(examples) == 2
    for example in examples:
        assert example.startswith(command)
        assert _parser().parse_args(shlex.split(example.partition(" >")[0])).run


# name parse


def test_name_parse_prints_the_fields(run):
    status, lines, _ = run("name", "parse", NAME)
    assert status == 0
    assert dict(line.split() for line in lines) == {
        "model": "a",
        "sm": "87",
        "plus": "false",
        "platform": "jp6.2",
        "runtime": "trt10.3",
        "precision": "fp16",
    }


def test_name_parse_takes_a_path(run):
    assert run("name", "parse", f"engines/orin_nx/{NAME}") == run("name", "parse", NAME)


def test_name_parse_can_print_json(run):
    _, lines, _ = run("name", "parse", "--json", NAME)
    assert json.loads(lines[0]) == {
        "model": "a",
        "sm": 87,
        "plus": False,
        "platform": "jp6.2",
        "runtime": "trt10.3",
        "precision": "fp16",
    }


def test_name_parse_of_a_bad_name_ends_with_1_and_the_wrong_part(run):
    status, lines, errors = run("name", "parse", "A__sm87_jp6.2_trt10.3_fp16.engine")
    assert (status, lines) == (1, [])
    assert errors[0].startswith("EngineFilenameError:")
    assert "model name 'A'" in errors[0]


# verify


def test_verify_of_a_whole_engine_says_ok(run, tmp_path):
    engine = pair(tmp_path)
    assert run("verify", engine) == (0, [f"OK {engine}"], [])


def test_verify_takes_a_sidecar_for_its_engine(run, tmp_path):
    engine = pair(tmp_path)
    assert run("verify", sidecar_of(engine)) == (0, [f"OK {engine}"], [])


def test_verify_of_a_folder_is_of_all_engines_below_it(run, tmp_path):
    one, other = pair(tmp_path / "b" / "orin_nx"), pair(tmp_path / "a")
    assert run("verify", tmp_path) == (0, [f"OK {other}", f"OK {one}"], [])


def test_verify_of_a_folder_finds_a_sidecar_whose_engine_is_missing(run, tmp_path):
    engine = pair(tmp_path)
    engine.unlink()
    assert run("verify", tmp_path) == (1, [f"FAILED {engine}: the engine is missing"], [])


def test_verify_of_a_folder_finds_an_engine_whose_sidecar_is_missing(run, tmp_path):
    engine = pair(tmp_path)
    sidecar_of(engine).unlink()
    status, lines, _ = run("verify", tmp_path)
    assert status == 1
    assert lines[0].startswith(f"FAILED {engine}: SidecarError: ")


@pytest.mark.parametrize("length", [20, 74])  # with 74, the deepest readable folder has no room for .trt
def test_verify_of_a_folder_that_hides_something_is_not_sound(run, tmp_path, length):
    folder = tmp_path / ("x" * ((length - len(str(tmp_path)) - 1) % 251 or 251))
    engine = pair(folder)
    where = os.open(folder, os.O_RDONLY)
    for _ in range(20):  # deeper than a path can be long
        os.mkdir("d" * 250, dir_fd=where)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = inner
    os.close(where)
    status, lines, errors = run("verify", folder)
    assert (status, lines) == (1, [f"OK {engine}"])
    assert errors[0].endswith("not readable (File name too long); its contents were not checked")
    status, lines, _ = run("verify", "--hardware", "rtx_portable", folder)
    assert status != 0
    assert any("not readable (File name too long)" in line for line in lines)


def test_verify_of_a_folder_says_what_a_link_hides(run, tmp_path):
    engine, elsewhere = pair(tmp_path / "engines"), pair(tmp_path / "elsewhere")
    flip(elsewhere)
    (tmp_path / "engines" / "latest").symlink_to(".")  # nothing more behind it
    assert run("verify", tmp_path / "engines") == (0, [f"OK {engine}"], [])
    (tmp_path / "engines" / "more").symlink_to("../elsewhere")
    why = "a link to a folder elsewhere, which is not followed"
    more = tmp_path / "engines" / "more"
    status, lines, errors = run("verify", tmp_path / "engines")
    assert (status, lines) == (1, [f"OK {engine}"])
    assert errors == [f"EngineError: {more}: {why}; its contents were not checked"]
    status, lines, _ = run("verify", "--hardware", "rtx_portable", tmp_path / "engines")
    assert status != 0
    assert f"REFUSED {more}: missing: {why}" in lines


def test_verify_of_a_folder_without_engines_ends_with_1(run, tmp_path):
    status, lines, errors = run("verify", tmp_path)
    assert (status, lines) == (1, [])
    assert errors == [f"EngineError: {tmp_path}: no engines in this folder"]


def flip(engine):
    engine.write_bytes(b"Engine")


def cut(engine):
    engine.write_bytes(b"")


def lose(engine):
    engine.unlink()


def lose_both(engine):
    engine.unlink()
    sidecar_of(engine).unlink()


def of_another(engine):
    sidecar_of(engine).write_text(sha(b"another"))


def garbage(engine):
    sidecar_of(engine).write_bytes(b"\xff" * 10)


def empty(engine):
    sidecar_of(engine).write_bytes(b"")


FAULTS = [
    (flip, "its sha256 does not match its sidecar"),
    (cut, "it is empty"),
    (of_another, "its sha256 does not match its sidecar"),
    (lose, "the engine is missing"),
    (lose_both, "the engine is missing"),
    (garbage, "SidecarError"),
    (empty, "sidecar empty"),
]


@pytest.mark.parametrize(("damage", "reason"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_verify_of_a_damaged_pair_says_what_is_wrong(run, tmp_path, damage, reason):
    engine = pair(tmp_path)
    damage(engine)
    status, lines, errors = run("verify", engine)
    assert (status, errors) == (1, [])
    assert lines[0].startswith(f"FAILED {engine}: ")
    assert reason in lines[0]


def test_verify_of_a_file_whose_name_is_no_engines_says_so(run, tmp_path):
    engine = pair(tmp_path, name="model.engine")
    status, lines, _ = run("verify", engine)
    assert status == 1
    assert "EngineFilenameError" in lines[0]


def test_one_damaged_engine_does_not_hide_the_others(run, tmp_path):
    bad, good = pair(tmp_path), pair(tmp_path, name="b" + NAME)
    flip(bad)
    status, lines, _ = run("verify", bad, good)
    assert status == 1
    assert [line.split()[0] for line in lines] == ["FAILED", "OK"]


def test_verify_writes_nothing(run, tmp_path):
    pair(tmp_path)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    run("verify", tmp_path)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


# probe


@pytest.fixture
def tree(tmp_path, monkeypatch):
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "orin_nx.json").write_text(json.dumps(ORIN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRT_HARDWARE", raising=False)
    monkeypatch.delenv("TRT_PYTHON", raising=False)
    return tmp_path


def test_probe_tells_hardware_why_and_filename(run, tree):
    status, lines, _ = run("probe", "--hardware", "orin_nx")
    rows = {line[:20].strip(): line[20:] for line in lines}
    assert status == 0
    assert rows["hardware"] == "orin_nx: Orin, sm87, 16 GiB, aarch64, TensorRT 10.3.0.30, JetPack 6.2"
    assert rows["reason"] == "HARDWARE=orin_nx"
    assert rows["memory_gib"] == "16"
    assert rows["filename"] == "model__sm87_jp6.2_trt10.3_fp32.engine"


def test_what_probe_writes_as_json_is_what_hardware_reads(run, tree):
    _, lines, _ = run("probe", "--json", "--hardware", "orin_nx")
    written = json.loads("\n".join(lines))
    assert HardwareSignature.from_json(written, "f") == HardwareSignature.from_json(ORIN, "f")


def test_probe_takes_the_hardware_of_the_environment(run, tree, monkeypatch):
    monkeypatch.setenv("TRT_HARDWARE", "orin_nx")
    assert run("probe") == run("probe", "--hardware", "orin_nx")


def test_probe_of_unknown_hardware_ends_with_1_and_the_known_names(run, tree):
    status, lines, errors = run("probe", "--hardware", "xavier")
    assert (status, lines) == (1, [])
    assert errors[0].startswith("HardwareError: HARDWARE=xavier")
    assert "orin_nx" in errors[0]


def test_probe_with_a_python_that_is_not_there_ends_with_1(run, tree):
    status, _, errors = run("probe", "--python", "/no/such/python")
    assert status == 1
    assert errors[0].startswith("HardwareError: TRT_PYTHON=/no/such/python")


# explain


def keep(top, data=b"engine", ingredients=None, name=NAME, **details):
    """A receipt in the state folder of `top`."""
    ingredients = ingredients or {
        "input onnx": "0" * 64,
        "option precision": "fp16",
        "hardware machine": "aarch64",
        "recipe version": "1",
    }
    receipt = Receipt(name, make_key(name, ingredients), sha(data), len(data), ingredients, details)
    StateFolder(top / ".trt", top).receipts.put(receipt)
    return receipt


ONNX = b"\x08\x08\x3a\x03\x12\x01g"  # the least that is one: ir_version, a graph with a name
FP16 = {"precision": "fp16", "profiles": [], "workspace_mb": 4096, "flags": [], "plugins": []}


def declare(top, ingredients, engine=f"engines/{NAME}", source="models/a.onnx"):
    files = {"source": source, "onnx": source, "plugins": [], "samples": None}
    item = {"engine": engine, "name": "a", "hardware": None, **files}
    item.update(ingredients=ingredients, recipe=FP16, signature=0)
    declared = {"schema": 1, "folders": ["engines"], "engines": [item], "signatures": [ORIN]}
    (top / ".trt" / "declared.json").write_text(json.dumps(declared))


def explained(lines):
    """The rows by their labels, those without one by their heading."""
    rows, heading = {}, ""
    for line in lines[1:]:
        if not line.startswith("  "):
            heading = line
        elif heading == "changes":
            rows.setdefault(heading, line[2:])
        else:
            rows[line[2:22].strip()] = line[22:]
    return rows


def test_explain_tells_what_an_engine_was_made_from(run, tmp_path):
    engine = pair(tmp_path / "engines")
    receipt = keep(
        tmp_path,
        started="2026-01-02T03:04:05Z",
        duration_s=4.2,
        worker={"python": "3.11.7", "tensorrt": "10.3.0.30"},
        reproducible=True,
        inputs=[{"role": "onnx", "name": "models/a.onnx", "sha256": "0" * 64}],
        builder={"scons_tensorrt": "0.1.0"},
        peak_memory_bytes=3 << 20,
        log="logs/a.log",
        made_by=[
            {
                "kind": "export",
                "file": ".trt/onnx/a.onnx",
                "source": "a.py",
                "facts": {"torch": "2.13", "n": 2},
            }
        ],
        accuracy={
            "onnx": {"metric": "cosine", "outputs": {"y": {"error": 0.25, "bound": 1e-06, "sample": 3}}},
            "engine": "not run",
        },
        hardware={"name": "orin", "signature": {"recorded": {"driver": "540.4.0"}}},
    )
    status, lines, _ = run("explain", engine)
    assert (status, lines[0]) == (0, f"{engine}: a for sm87, fp16")
    assert explained(lines) == {
        "sha256": receipt.sha256,
        "size": "6 bytes",
        "key": receipt.key,
        "started": "2026-01-02T03:04:05Z, took 4.2 s",
        "built with": "scons_tensorrt 0.1.0, python 3.11.7, tensorrt 10.3.0.30",
        "peak memory": "3 MiB",
        "log": "logs/a.log in the state folder",
        "export": ".trt/onnx/a.onnx from a.py: n 2, torch 2.13",
        "output y": "cosine: error 0.25, bound 1e-06",
        "engine": "not run",
        "name": "orin",
        "driver": "540.4.0",
        "reproducible": "yes",
        "input onnx": f"models/a.onnx {'0' * 64}",
        "precision": "fp16",
        "machine": "aarch64",
        "recipe version": "1",
    }


def test_explain_says_why_an_engine_is_not_reproducible(run, tmp_path):
    engine = pair(tmp_path / "engines")
    keep(tmp_path, reproducible=False, not_reproducible_because="the kernel refused")
    assert explained(run("explain", engine)[1])["reproducible"] == "no: the kernel refused"


def test_explain_finds_the_state_folder_above(run, tmp_path):
    engine = pair(tmp_path / "engines" / "orin_nx")
    keep(tmp_path)
    assert run("explain", engine)[0] == 0


def test_explain_takes_a_path_from_where_it_stands(run, tmp_path, monkeypatch):
    pair(tmp_path / "engines")
    keep(tmp_path)
    monkeypatch.chdir(tmp_path / "engines")
    assert run("explain", NAME)[0] == 0


def test_explain_takes_a_sidecar_for_its_engine(run, tmp_path):
    engine = pair(tmp_path / "engines")
    keep(tmp_path)
    assert run("explain", sidecar_of(engine)) == run("explain", engine)


def test_explain_takes_a_state_folder_by_name(run, tmp_path):
    engine = pair(tmp_path / "a")
    keep(tmp_path / "b")
    assert run("explain", engine, "--state-dir", tmp_path / "b" / ".trt")[0] == 0


def test_explain_without_a_state_folder_asks_for_one(run, tmp_path):
    status, _, errors = run("explain", pair(tmp_path))
    assert status == 1
    assert errors[0].endswith("specify one with --state-dir")


def test_explain_of_an_engine_that_no_receipt_knows_ends_with_1(run, tmp_path):
    keep(tmp_path)
    status, lines, errors = run("explain", pair(tmp_path / "engines", name="b" + NAME))
    assert (status, lines) == (1, [])
    assert "no receipt in" in errors[0]


def test_explain_of_bytes_that_no_receipt_knows_says_so_and_ends_with_1(run, tmp_path):
    engine = pair(tmp_path / "engines")
    keep(tmp_path)
    flip(engine)
    status, lines, _ = run("explain", engine)
    assert status == 1
    assert f"no receipt matches the file (sha256 {sha(b'Engine')[:12]})" in lines[1]


@pytest.mark.parametrize("command", ["explain", "reproduce", "status"])
def test_terabytes_of_a_hole_are_refused_by_their_size(run, declared, tmp_path, command):
    """Read, they would take hours."""
    other = tmp_path / "engines" / f"other_{NAME}"
    keep(tmp_path, name=other.name)
    for engine in (declared.engine, pair(tmp_path / "engines", name=other.name)):
        os.truncate(engine, 1 << 39)
    keep(tmp_path, b"another build", declared.ingredients)  # of several receipts, none is of that size
    declared.declare()
    status, lines, _ = run(command, tmp_path if command == "status" else declared.engine)
    assert status == 1
    assert f"{1 << 39} bytes" in " ".join(lines)
    assert command != "status" or [row[0] for row in rows(lines)] == ["tampered", "tampered"]


def test_explain_of_a_missing_engine_tells_of_the_one_that_is_gone(run, tmp_path):
    engine = pair(tmp_path / "engines")
    keep(tmp_path)
    engine.unlink()
    status, lines, _ = run("explain", engine)
    assert status == 1
    assert "the file is missing" in lines[1]


def test_explain_finds_among_many_the_receipt_of_these_bytes(run, tmp_path):
    engine = pair(tmp_path / "engines")
    mine = keep(tmp_path, ingredients={"option precision": "fp16"})
    keep(tmp_path, b"newer", {"option precision": "fp32"})
    assert explained(run("explain", engine)[1])["key"] == mine.key


def test_explain_of_a_bad_name_ends_with_1(run, tmp_path):
    status, _, errors = run("explain", tmp_path / "model.engine")
    assert status == 1
    assert errors[0].startswith("EngineFilenameError")


@pytest.fixture
def declared(tmp_path):
    """A tree whose engine was made from models/a.onnx, and is declared so."""

    class EngineTarget:
        onnx = tmp_path / "models" / "a.onnx"
        engine = pair(tmp_path / "engines")
        ingredients = {"input onnx": sha(ONNX), "option precision": "fp16"}  # noqa: RUF012

        def declare(self, **changes):
            declare(tmp_path, {**self.ingredients, **changes})

    EngineTarget.onnx.parent.mkdir()
    EngineTarget.onnx.write_bytes(ONNX)
    keep(tmp_path, ingredients=EngineTarget.ingredients)
    return EngineTarget()


def test_explain_says_that_an_engine_is_as_it_is_wanted(run, declared):
    declared.declare()
    assert explained(run("explain", declared.engine)[1])["changes"] == "none"


def test_explain_says_what_is_now_wanted_otherwise(run, declared):
    declared.declare(**{"option precision": "fp32"})
    spec = explained(run("explain", declared.engine)[1])["changes"]
    assert spec == "precision changed: fp16 → fp32"


def test_explain_sees_a_model_that_changed(run, declared):
    declared.declare()
    declared.onnx.write_bytes(ONNX + b"\x12\x01p")
    spec = explained(run("explain", declared.engine)[1])["changes"]
    now = sha(ONNX + b"\x12\x01p")
    assert spec == f"models/a.onnx changed: {sha(ONNX)[:12]} → {now[:12]}"


def test_explain_says_what_is_wrong_with_a_model_now(run, declared):
    declared.declare()
    declared.onnx.write_bytes(b"junk")
    status, lines, _ = run("explain", declared.engine)
    assert status == 0
    assert explained(lines)["changes"].startswith("RecipeError: models/a.onnx: not ")


def test_explain_as_json_has_the_receipt_and_what_is_wanted_now(run, declared):
    declared.declare(**{"option precision": "fp32"})
    status, lines, _ = run("explain", "--json", declared.engine)
    told = json.loads("\n".join(lines))
    assert (status, told["known"], told["receipt"]["ingredients"]) == (0, True, declared.ingredients)
    change = "precision changed: fp16 → fp32"
    now = {"code": "changed", "reason": change, "changes": [change], "outdated": None, "reuses": None}
    assert told["now"] == now


def test_explain_says_nothing_of_what_is_wanted_where_nothing_is_declared(run, declared):
    assert "changes" not in explained(run("explain", declared.engine)[1])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engines": 5}', '{"engines": [5]}', '{"engines": [{}]}'])
def test_explain_passes_over_a_damaged_declaration(run, declared, tmp_path, text):
    (tmp_path / ".trt" / "declared.json").write_text(text)
    status, lines, _ = run("explain", declared.engine)
    assert status == 0
    assert "changes" not in explained(lines)


ODD_DETAILS = [
    {"worker": "x"},  # of another shape
    {"worker": {"python": 3}},  # a number
    {"inputs": 5},  # not a list
    {"inputs": ["models/a.onnx"]},  # of another shape
    {"inputs": None},  # nothing
    {"duration_s": None},
    {"made_by": [5, {"facts": [1]}]},
    {"accuracy": {"onnx": {"outputs": {"y": 5}}}},
    {"hardware": 5, "calibration": 5, "builder": [1]},
]


@pytest.mark.parametrize("details", ODD_DETAILS, ids=str)
def test_explain_answers_for_a_receipt_with_odd_details(run, tmp_path, details):
    engine = pair(tmp_path / "engines")
    keep(tmp_path, **details)
    assert run("explain", engine)[0] == 0


# status


def rows(lines):
    return [line.split(None, 2) for line in lines[:-1]]


def test_status_of_a_current_engine_ends_with_0(run, declared, tmp_path):
    declared.declare()
    status, lines, _ = run("status", tmp_path)
    assert (status, lines) == (0, [f"current    engines/{NAME}", "1 engine: 1 current"])


def test_status_says_why_an_engine_is_stale(run, declared, tmp_path):
    declared.declare(**{"option precision": "fp32"})
    status, lines, _ = run("status", tmp_path)
    assert (status, rows(lines)) == (1, [["stale", f"engines/{NAME}", "precision changed: fp16 → fp32"]])


DAMAGES = [
    (flip, "tampered"),
    (cut, "tampered"),
    (of_another, "tampered"),
    (garbage, "tampered"),
    (lose, "missing"),
    (lose_both, "missing"),
]


@pytest.mark.parametrize(("damage", "state"), DAMAGES, ids=[f.__name__ for f, _ in DAMAGES])
def test_status_of_a_damaged_pair(run, declared, tmp_path, damage, state):
    declared.declare()
    damage(declared.engine)
    status, lines, _ = run("status", tmp_path)
    assert (status, [row[0] for row in rows(lines)]) == (1, [state])


def test_status_tells_what_is_not_declared_apart(run, declared, tmp_path):
    declared.declare()
    folder = tmp_path / "engines"
    pair(folder / "agx", name="a__sm87_jp6.0_trt10.3_fp16.engine")  # another board's: not at fault
    assert run("status", tmp_path)[0] == 0
    pair(folder, name="gone__sm87_jp6.2_trt10.3_fp16.engine")
    flip(pair(folder, name="bad__sm87_jp6.2_trt10.3_fp16.engine"))
    status, lines, _ = run("status", tmp_path)
    assert status == 1
    assert [row[0] for row in rows(lines)] == ["current", "foreign", "tampered", "orphaned"]
    assert rows(lines)[1][2] == "for sm87, jp6.0, trt10.3, fp16, not requested by the last run"
    assert lines[-1] == "4 engines: 1 current, 1 foreign, 1 tampered, 1 orphaned"


def test_status_of_a_model_that_cannot_be_read(run, declared, tmp_path):
    declared.declare()
    declared.onnx.unlink()
    status, lines, _ = run("status", tmp_path)
    assert (status, rows(lines)[0][0]) == (1, "failing")
    assert "models/a.onnx" in lines[0]


def test_status_as_json(run, declared, tmp_path):
    declared.declare()
    status, lines, _ = run("status", "--json", tmp_path)
    assert status == 0
    assert json.loads("\n".join(lines))["trees"] == [
        {
            "top": str(tmp_path),
            "outdated": None,
            "kept": {"count": 0, "bytes": 0},
            "engines": [
                {
                    "engine": f"engines/{NAME}",
                    "name": "a",
                    "hardware": None,
                    "state": "current",
                    "code": "current",
                    "reason": "",
                }
            ],
        }
    ]


def test_status_where_no_run_was_asks_for_one(run, tmp_path):
    (tmp_path / ".trt").mkdir()
    status, lines, errors = run("status", tmp_path)
    assert (status, lines) == (1, [])
    assert errors[0].endswith("run `scons engines`")


def test_status_writes_nothing(run, declared, tmp_path):
    declared.declare()
    before = sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    run("status", tmp_path)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("change", [{"recipe": 5}, {"signature": 7}, {"onnx": 5}, {"plugins": None}], ids=str)
def test_a_declaration_of_another_version_is_one_line(run, declared, tmp_path, change):
    declared.declare()
    file = tmp_path / ".trt" / "declared.json"
    data = json.loads(file.read_text())
    data["engines"][0].update(change)
    file.write_text(json.dumps(data))
    status, lines, _ = run("status", tmp_path)
    assert (status, rows(lines)[0][0]) == (1, "failing")
    assert "run scons again" in lines[0]


def test_ctrl_c_while_the_commands_are_imported_prints_no_stack() -> None:
    code = """
import sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == "scons_tensorrt.cli.explain":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from scons_tensorrt.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
