"""`scons-tensorrt build` and `init`: from an ONNX to an engine, and the same engines by every door."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Run, fake_compiler, make_model, sha256, sound

PROGRAM = Path(sys.executable).with_name("scons-tensorrt")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the package is not installed in this Python")


# In place of filelock: the real one, after what filelock 4.1 imports.
SHIM = """
import concurrent.futures.thread
import sys

sys.path = [each for each in sys.path if not each.endswith("/shim")]
del sys.modules["filelock"]
import filelock
"""


def run(tree, *arguments, cwd=None, **environment):
    """A run of `scons-tensorrt`, as a person sees it."""
    done = tree.cli(*arguments, cwd=cwd, **environment)
    assert "<string>" not in done.out + done.err
    return Run(done.err + done.out, done.status)


@pytest.fixture
def folder(tree):
    """A folder with one static model, and nothing else."""
    make_model(tree.path("net.onnx"))
    tree.path("models").rmdir()
    return tree


@pytest.fixture
def dynamic(folder):
    make_model(folder.path("net.onnx"), shape=("n", 8, 16, 16))
    return folder


def test_an_onnx_in_a_folder_with_nothing_else_becomes_an_engine(folder):
    first = run(folder, "build", "net.onnx")
    assert first.status == 0, first.out
    assert first.built == ["net"]
    assert sound(folder.engine("net"))
    assert folder.engine("net").name.endswith("_fp32.engine")
    assert sorted(os.listdir(folder.root)) == [".sconsign.dblite", ".trt", "engines", "net.onnx"]
    again = run(folder, "build", "net.onnx")
    assert len(again.out.splitlines()) == 3  # for which hardware, REUSED, the summary
    assert again.summary.startswith("engines: 1 reused, 0 built, 0 failed")


def test_a_lock_library_that_starts_threads_is_imported_before_the_run_ends(folder):
    """As filelock 4.1 does, the newest for Python 3.10."""
    shim = folder.path("shim")
    folder.write(SHIM, "shim/filelock/__init__.py", header="")
    first = run(folder, "build", "net.onnx", PYTHONPATH=str(shim))
    assert first.status == 0, first.out
    assert json.loads(folder.path(".trt/declared.json").read_text())["engines"]
    again = run(folder, "build", "net.onnx", PYTHONPATH=str(shim))
    assert len(again.out.splitlines()) == 3, again.out


def test_an_unexpected_error_at_the_end_of_a_run_is_one_line(folder):
    assert run(folder, "build", "net.onnx").status == 0
    folder.write("raise RuntimeError('no lock today')", "shim/filelock/__init__.py", header="")
    done = run(folder, "build", "net.onnx", PYTHONPATH=str(folder.path("shim")))
    assert done.status == 2
    [line] = [line for line in done.out.splitlines() if "no lock today" in line]
    assert line.startswith("engines: RuntimeError: no lock today; "), done.out
    assert "Traceback" not in done.out


def test_options_of_the_command_are_those_of_the_engine(folder):
    done = run(
        folder,
        *("build", "net.onnx", "--name", "other", "--precision", "fp16", "--hardware", "rtx_sm86", "-j1"),
        *("--workspace-mb", "512", "--keep-ops", "['Relu']", "VERIFY=full"),
    )
    assert done.status == 0, done.out
    engine = folder.engine("other")
    assert engine.parent.name == "rtx_sm86"
    recipe = folder.receipt("other")["recipe"]
    assert (recipe["precision"], recipe["workspace_mb"]) == ("fp16", 512)
    [step] = folder.receipt("other")["made_by"]
    assert step["kind"] == "precision"


def test_a_dry_run_builds_nothing(folder):
    done = run(folder, "build", "net.onnx", "-n")
    assert done.status == 0, done.out
    assert done.lines("WOULD BUILD")
    assert not folder.path("engines").exists()


def test_a_missing_shape_is_answered_with_the_completed_command(dynamic):
    asked = run(dynamic, "build", "net.onnx", "--precision", "fp32")
    assert asked.status == 1
    [line] = asked.out.splitlines()
    assert line.startswith("RecipeError: net.onnx: 1 dynamic input without a shape: `x` [-1, 8, 16, 16]; run")
    _, _, command = line.partition("your sizes: ")
    program, *arguments = shlex.split(command)
    assert (program, arguments[:2]) == ("scons-tensorrt", ["build", "net.onnx"])
    done = run(dynamic, *arguments)
    assert done.status == 0, done.out
    assert done.built == ["net"]
    assert dynamic.receipt("net")["recipe"]["profiles"] == [
        {"x": [[1, 8, 16, 16], [1, 8, 16, 16], [8, 8, 16, 16]]}
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["none.onnx"], 1, r"RecipeError: none\.onnx: No such file or directory; check the path"),
        (["text.onnx"], 1, r"RecipeError: text\.onnx: not an ONNX file"),
        (
            ["net.onnx", "--shape", "y=1x3"],
            1,
            r"RecipeError: net\.onnx: --shape: the model has no input `y`; .*",
        ),
        (["net.onnx", "--shape", "x=1,3"], 1, r"RecipeError: shape '1,3': write .*"),
        (
            ["net.onnx", "--shape", "1x3"],
            2,
            r"scons-tensorrt build: --shape 1x3: write INPUT=1x3x224x224; .*",
        ),
        (["net.onnx", "--optimization-level", "9"], 1, r"RecipeError: optimization_level=9: .*"),
        (["net.onnx", "--name", "A"], 1, r"RecipeError: model name 'A': .*"),
        (["net.onnx", "net.onnx", "--name", "a"], 2, r"scons-tensorrt build: --name is for one ONNX; .*"),
        (
            ["net.onnx", "-j0"],
            2,
            r"scons-tensorrt build: argument -j/--jobs: '0': write a number above 0; .*",
        ),
        (["net.onnx", "./net.onnx"], 1, r"EngineError: \./net\.onnx is named twice; name it once"),
        (
            ["net.onnx", "PRECISION=fp16"],
            2,
            r"PRECISION= is not a setting; an engine's option is written --prec.*",
        ),
        (["net.onnx", "TRT_STATE_DIR=x"], 2, r"TRT_STATE_DIR= is not a setting; .*"),
        (["net.onnx", "HARDWAER=x"], 2, r"HARDWAER= is not a setting; did you mean HARDWARE\?"),
        (["net.onnx", "--accuracy", "3"], 2, r"net\.onnx: Engine 'net': accuracy.*"),
        (["net.onnx", "--depfile", "net.onnx"], 1, r"EngineError: --depfile net\.onnx: this is an input, .*"),
        (["net.onnx", "--depfile", "models"], 1, r"EngineError: --depfile models: this is an input, .*"),
        (["net.onnx", "--name", ""], 1, r"RecipeError: model name '': .*"),
        (["--precision", "fp16"], 2, r"scons-tensorrt build: --precision is for an ONNX; name one; .*"),
        ([], 1, r"EngineError: no SConstruct and no engines\.toml in this folder; .*`scons-tensorrt init`.*"),
    ],
)
def test_a_wrong_call_is_one_line(folder, arguments, status, line):
    folder.path("text.onnx").write_text("<html>")
    folder.path("models").mkdir()
    before = folder.snapshot(".")
    done = run(folder, "build", *arguments)
    assert (done.status, len(done.out.splitlines())) == (status, 1), done.out
    assert re.match(line, done.out)
    after = folder.snapshot(".")
    assert {name: after[name] for name in before} == before
    assert not folder.path("engines").exists()


def test_a_compile_that_fails_fails_the_command(dynamic):
    done = run(dynamic, "build", "net.onnx", "--shape", "x=1x8x16")
    assert done.status == 2
    assert "write 4 sizes" in done.reason("net")


def test_what_is_wrong_in_engines_toml_is_named_with_its_line(folder):
    folder.path("engines.toml").write_text('\n[engine.net]\nonnx = "net.onnx"\nprecison = "fp16"\n')
    done = run(folder, "build")
    assert done.status == 1
    assert done.out == "RecipeError: engines.toml:4: unknown option precison; did you mean precision?\n"


def test_every_door_has_the_same_engines(dynamic):
    """Command, engines.toml, SConstruct and EnginesFromFile: each reuses what the one before built."""
    shape = "1x8x16x16:2x8x16x16:4x8x16x16"
    built = run(dynamic, "build", "net.onnx", f"--shape=x={shape}", "--precision=fp16")
    assert built.built == ["net"], built.out
    before = dynamic.snapshot()
    dynamic.path("engines.toml").write_text(
        f'[engine.net]\nonnx = "net.onnx"\nprecision = "fp16"\nshapes = {{ x = "{shape}" }}\n'
    )
    reused = "engines: 1 reused, 0 built, 0 failed"
    assert run(dynamic, "build").summary.startswith(reused)
    dynamic.write('env.EnginesFromFile("engines.toml")')
    assert dynamic.scons().summary.startswith(reused)
    dynamic.write(
        """
        shapes = {"x": ((1, 8, 16, 16), (2, 8, 16, 16), (4, 8, 16, 16))}
        env.Engine("net", "net.onnx", precision="fp16", shapes=shapes)
        """
    )
    assert dynamic.scons().summary.startswith(reused)
    assert run(dynamic, "build").summary.startswith(reused)  # the SConstruct comes before engines.toml
    assert dynamic.snapshot() == before


def test_a_file_of_engines_may_be_in_another_folder(tree):
    make_model(tree.path("nets/a.onnx"))
    make_model(tree.path("nets/b.onnx"), seed=1)
    tree.path("nets/engines.toml").write_text('[engine.a]\nonnx = "a.onnx"\n[engine.b]\nonnx = "b.onnx"\n')
    tree.write('env.Alias("mine", env.EnginesFromFile("nets/engines.toml"))')
    done = tree.scons("mine")
    assert done.built == ["a", "b"], done.out
    tree.path("nets/engines.toml").write_text('[engine.a]\nonnx = "a.onnx"\nworkspace_mb = 512\n')
    assert "workspace_mb changed: 4096 → 512" in tree.scons("mine").reason("a")
    tree.path("nets/engines.toml").write_text('\n[engine.a]\nonnx = "a.onnx"\nworkspace_mb = 0\n')
    wrong = tree.scons("mine")
    assert wrong.status == 2
    assert re.search(r"\*\*\* nets/engines\.toml:4: workspace_mb = 0: write", wrong.out)


def test_status_knows_that_engines_toml_changed(folder):
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\n')
    assert run(folder, "build").status == 0
    assert "engines.toml" not in run(folder, "status").out
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\nprecision = "fp16"\n')
    assert "engines.toml changed" in run(folder, "status").out


def test_init_writes_what_build_builds(tree):
    make_model(tree.path("models/static.onnx"))
    make_model(tree.path("models/PP-Net.ONNX"), shape=("n", 8, 16, 16))
    make_model(tree.path("models/more/static.onnx"), seed=1, external="static.data")
    tree.path("models/broken.onnx").write_text("<html>")
    make_model(tree.path("engines/not_this_one.onnx"))
    tree.path(".gitignore").write_text("*.tmp\n.trt/")
    done = run(tree, "init")
    assert done.status == 0, done.out
    assert done.out.splitlines() == [
        "models/broken.onnx: left out: not an ONNX file but an HTML or XML page; download the model again",
        "WROTE engines.toml (3 engines)",
        "WROTE .gitignore (engines/, .sconsign.dblite)",
        "next: scons-tensorrt build",
    ]
    assert tree.path(".gitignore").read_text() == "*.tmp\n.trt/\nengines/\n.sconsign.dblite\n"
    built = run(tree, "build", TRT_ONNX_PYTHON="/no/python")  # needs no package for conversions
    assert built.status == 0, built.out
    assert built.built == ["more_static", "pp_net", "static"]
    refused = run(tree, "init")
    assert (refused.status, refused.out) == (1, "EngineError: engines.toml exists; remove it, or edit it\n")


def test_init_can_write_a_sconstruct(folder):
    done = run(folder, "init", "--sconstruct")
    assert done.out.splitlines()[-1] == "next: scons engines"
    assert folder.scons().built == ["net"]


def test_init_finds_nothing_in_an_empty_folder(tree):
    done = run(tree, "init")
    assert (done.status, len(done.out.splitlines())) == (1, 1)
    assert "no ONNX files below this folder" in done.out
    assert not tree.path("engines.toml").exists()


# Engines of several commands in one folder.


def test_a_command_knows_what_earlier_ones_built(folder):
    make_model(folder.path("b.onnx"), seed=1)
    assert run(folder, "build", "net.onnx", "--precision=fp16").status == 0  # its ONNX is converted first
    assert run(folder, "build", "b.onnx").status == 0
    both = run(folder, "status")
    assert (both.status, both.names("current"), both.summary) == (0, ["b", "net"], "2 engines: 2 current")
    folder.path("net.onnx").write_bytes(folder.path("b.onnx").read_bytes())
    assert run(folder, "status").names("stale") == ["net"]
    assert "\nchanges\n  " in run(folder, "explain", "net").out
    folder.path("net.onnx").unlink()
    assert run(folder, "build", "b.onnx").status == 0
    after = run(folder, "status")
    assert (after.names("current"), after.names("orphaned")) == (["b"], ["net"])


@pytest.mark.slow
def test_a_command_adds_to_what_a_file_declares(folder):
    make_model(folder.path("b.onnx"), seed=1)
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\n')
    assert run(folder, "build").status == 0
    assert run(folder, "build", "b.onnx").status == 0
    assert run(folder, "status").names("current") == ["b", "net"]
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\nworkspace_mb = 9\n')
    assert "engines.toml changed" in run(folder, "status").out
    assert run(folder, "build").status == 0
    assert run(folder, "status").names("current") == ["net"]  # the file says which engines there are
    assert run(folder, "status").names("orphaned") == ["b"]
    assert run(folder, "prune").summary.endswith("; --yes removes them")


def test_models_of_one_name_do_not_replace_each_others_engine(folder):
    make_model(folder.path("x/model.onnx"), seed=1)
    make_model(folder.path("y/model.onnx"), seed=2)
    together = run(folder, "build", "x/model.onnx", "y/model.onnx")
    assert (together.status, together.out) == (
        1,
        "EngineError: y/model.onnx: its engine would have the same name as that of x/model.onnx, model; "
        "build it in its own command, with --name y_model\n",
    )
    assert run(folder, "build", "x/model.onnx").built == ["model"]
    before = folder.snapshot()
    refused = run(folder, "build", "y/model.onnx")
    assert refused.status == 2
    path = folder.engine("model").relative_to(folder.root)
    assert refused.out == (
        f"y/model.onnx: its engine would replace that of x/model.onnx, {path}; give it another name, "
        "such as --name y_model\n"
    )
    assert folder.snapshot() == before


@pytest.mark.slow
def test_a_name_that_is_given_may_replace_the_engine_of_another_model(folder):
    make_model(folder.path("x/model.onnx"), seed=1)
    make_model(folder.path("y/model.onnx"), seed=2)
    assert run(folder, "build", "x/model.onnx").built == ["model"]
    assert run(folder, "build", "y/model.onnx", "--name", "y_model").built == ["y_model"]
    assert run(folder, "build", "y/model.onnx", "--name", "model").built == ["model"]
    folder.path("x/model.onnx").rename(folder.path("model.onnx"))
    folder.path("y/model.onnx").unlink()
    assert run(folder, "build", "model.onnx").reused == ["model"]  # its ONNX was moved; it was kept


# What a path is: taken as it is written, by the command, by engines.toml and by depfiles.

ODD = ["a${v2}.onnx", "$dollar.onnx", "#hash.onnx", "b $x.onnx", "é.onnx", "(paren) 'q'.onnx", "A=b.onnx"]


@pytest.mark.parametrize("name", ODD)
def test_a_path_is_taken_as_it_is_written(folder, name):
    make_model(folder.path(name), seed=7)
    for near in ("a.onnx", "hash.onnx", "dollar.onnx"):  # what SCons would make of it
        make_model(folder.path(near), seed=8)
    done = run(folder, "build", name, "--name", "net")
    assert done.status == 0, done.out
    [onnx] = [item for item in folder.receipt("net")["inputs"] if item["role"] == "onnx"]
    assert onnx["sha256"] == sha256(folder.path(name))
    folder.path("engines.toml").write_text(f"[engine.net]\nonnx = {json.dumps(name, ensure_ascii=False)}\n")
    assert run(folder, "build").summary.startswith("engines: 1 reused, 0 built, 0 failed")


def test_python_in_a_path_does_not_run(folder):
    code = '${__import__("os").system("touch OWNED") and 0}net.onnx'
    assert run(folder, "build", code, "-n").status == 1
    assert run(folder, "build", "net.onnx", "--precision", "int8", "--calibration", code).status == 2
    table = f"[engine.net]\nonnx = {json.dumps(code)}\nplugins = [{json.dumps(code)}]\n"
    folder.path("engines.toml").write_text(table)
    assert run(folder, "build", "-n").status == 2
    assert not folder.path("OWNED").exists()


def test_paths_of_engines_toml_are_relative_to_it(tree):
    import numpy as np

    make_model(tree.path("nets/a.onnx"))
    tree.path("nets/samples").mkdir()
    for number in range(8):
        np.save(tree.path(f"nets/samples/{number}.npy"), np.ones((1, 8, 16, 16), np.float32))
    tree.path("nets/reader.py").write_text(
        "import numpy\n\ndef samples():\n    yield {'x': numpy.ones((1, 8, 16, 16), 'f4')}\n"
    )
    tree.path("nets/engines.toml").write_text(
        "[engine.a]\n"
        'onnx = "a.onnx"\n'
        'precision = "int8"\n'
        'calibration = "samples"\n'
        'accuracy = { inputs = "reader.py:samples", reference = "a.onnx", atol = 1e9 }\n'
    )
    tree.write('SConscript("nets/SConscript", exports="env")')
    tree.write('Import("env")\nenv.EnginesFromFile("engines.toml")', "nets/SConscript", header="")
    done = tree.scons()
    assert done.status == 0, done.out
    assert done.built == ["a"]


# Several models.


def test_a_shape_is_for_the_models_that_leave_it_open(folder):
    make_model(folder.path("dyn.onnx"), shape=("n", 8, 16, 16))
    done = run(folder, "build", "net.onnx", "dyn.onnx", "--shape", "x=2x8x16x16")
    assert done.status == 0, done.out
    assert done.built == ["dyn", "net"]
    assert folder.receipt("net")["recipe"]["profiles"] == []


@pytest.mark.parametrize("go_on", [False, True])
def test_every_bad_model_is_named_and_k_builds_the_rest(folder, go_on):
    folder.path("text.onnx").write_text("<html>")
    make_model(folder.path("dyn.onnx"), shape=("n", 8, 16, 16))
    done = run(folder, "build", "none.onnx", "net.onnx", "text.onnx", "dyn.onnx", *["-k"] * go_on)
    assert done.status == 1
    faults = [line for line in done.out.splitlines() if line.startswith("RecipeError: ")]
    assert [line.split(": ")[1] for line in faults] == ["none.onnx", "text.onnx", "dyn.onnx"]
    assert done.built == (["net"] if go_on else [])


def test_files_that_no_engine_needs_do_not_matter(folder):
    folder.path("dangling.onnx").symlink_to("nowhere")
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\n')
    assert run(folder, "build").built == ["net"]


@pytest.mark.parametrize(
    "text",
    [
        'precision = ["fp32", "fp32"]',
        "hardware = []",
        "plugins = [3]",
        "accuracy = 3",
        "accuracy = 2026-11-28",
        "timeout_s = nan",
    ],
)
def test_an_odd_value_in_engines_toml_is_one_line_with_its_place(folder, text):
    folder.path("engines.toml").write_text(f'\n[engine.net]\nonnx = "net.onnx"\n{text}\n')
    done = run(folder, "build")
    assert done.status in (1, 2)
    [line] = done.out.splitlines()
    assert re.match(r"(RecipeError: |FAILED \S+: )?engines\.toml:[234]: ", line)


@pytest.mark.parametrize("limit", ["inf", "1e999"])
def test_a_limit_may_be_infinite(folder, limit):
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\ntimeout_s = inf\n')
    given = ["net.onnx", "--timeout-s", limit] if limit != "inf" else []
    done = run(folder, "build", *given, "--dry-run")
    assert (done.status, "WOULD BUILD engines/net__" in done.out) == (0, True), done.out


def test_a_path_that_no_file_can_have_is_one_line_with_its_place(folder):
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "a\\u0000b"\n')
    [line] = run(folder, "build").out.splitlines()
    assert line == "engines.toml:1: Engine 'net': a path contains a NUL character; remove it"


@pytest.mark.parametrize(
    ("make", "why"),
    [(lambda path: path.symlink_to("gone"), "No such file or directory"), (os.mkdir, "Is a directory")],
)
def test_an_engines_toml_that_cannot_be_read_is_one_line(folder, make, why):
    make(folder.path("engines.toml"))
    [line] = run(folder, "build").out.splitlines()
    assert line == f"EngineError: engines.toml: {why}; write a file there, or remove it"


def test_an_engine_that_is_declared_twice_is_named_by_its_model(folder):
    table = 'onnx = "net.onnx"\nname = "net"\nprecision = "fp16"\n'
    folder.path("engines.toml").write_text(f"[engine.one]\n{table}[engine.two]\n{table}")
    assert "(of net.onnx at engines.toml:1 and net.onnx)" in run(folder, "build").out


def test_a_run_for_json_that_is_ended_ends_its_build(folder):
    """The command alone gets the signal, as from a program that started it."""
    fake = fake_compiler(folder.root.parent / "fake", "time.sleep(60)", "tensorrt_rtx", "1.7.1.116")
    command = [sys.executable, "-m", "scons_tensorrt", "build", "net.onnx", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = folder.env(TRT_PYTHON=str(fake))
    with subprocess.Popen(command, cwd=folder.root, env=environment, **pipes) as process:
        until = time.monotonic() + 30
        while not list(folder.root.glob(".trt/partial/*/*")) and time.monotonic() < until:
            time.sleep(0.05)
        process.terminate()
        out, told = process.communicate(timeout=20)
    assert "INTERRUPTED engines/net__" in told
    assert json.loads(out)["status"] == process.returncode != 0


def test_a_name_that_toml_cannot_hold_is_left_out(folder):
    shutil.copy(folder.path("net.onnx"), os.fsencode(folder.root) + b"/odd\xff.onnx")
    done = run(folder, "init")
    assert (done.status, "left out: its name is not UTF-8 here; rename it" in done.out) == (0, True), done.out
    assert folder.path("engines.toml").read_text().count("onnx = ") == 1


def test_an_unknown_hardware_has_the_place_of_its_key(folder):
    folder.path("engines.toml").write_text('[engine.net]\nonnx = "net.onnx"\n\nhardware = "nosuch"\n')
    assert "engines.toml:4: HardwareError: HARDWARE=nosuch: " in run(folder, "build").out


def test_a_model_is_read_once_for_the_command_and_its_depfile(folder, monkeypatch):
    from scons_tensorrt import cli
    from scons_tensorrt.cli import build
    from scons_tensorrt.recipe.onnx import read_onnx as module

    read, read_onnx = [], module.read_onnx
    monkeypatch.setattr(module, "read_onnx", lambda path: read.append(path) or read_onnx(path))
    monkeypatch.setattr(build, "run_scons", lambda *arguments: 0)
    make_model(folder.path("big.onnx"), external="big.data")
    monkeypatch.chdir(folder.root)
    assert cli.main(["build", "big.onnx", "--depfile", "d"]) == 0
    assert read == ["big.onnx"]
    assert folder.path("d").read_text().split()[1:] == ["big.onnx", "big.data"]


def test_a_depfile_knows_the_hardware_of_the_run(folder):
    done = run(folder, "build", "net.onnx", "HARDWARE=rtx_sm86", "--depfile", "d")
    assert done.status == 0, done.out
    engine = folder.path("d").read_text().partition(":")[0]
    assert folder.path(engine) == folder.engine("net")
    over = run(folder, "build", "net.onnx", "HARDWARE=rtx_sm86", "--depfile", engine)
    assert "this is an input, an engine or a folder" in over.out
    assert sound(folder.engine("net"))


def test_ctrl_c_is_no_traceback(folder):
    make_model(folder.path("big.onnx"), depth=60, width=128, shape=(1, 8, 64, 64))
    process = subprocess.Popen(
        [PROGRAM, "build", "big.onnx"],
        cwd=folder.root,
        env=folder.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not list(folder.path(".trt").rglob("*.log")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in out
    assert not list(folder.path("engines").glob("*.engine"))


def test_a_dry_run_of_an_onnx_that_cannot_be_read_exits_with_1(folder):
    folder.path("zeros.onnx").write_bytes(bytes(40))
    statuses = [run(folder, "build", "-n", name).status for name in ("zeros.onnx", "none.onnx", "net.onnx")]
    assert statuses == [1, 1, 0]
