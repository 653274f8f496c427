"""A setting that nobody reads is an error, not a run without it."""

from __future__ import annotations

import re
import subprocess

import pytest

from conftest import HEADER, REPO, Tree, hardware
from scons_tensorrt.scons_tool import remote_settings, settings, store_settings


def refused(tree: Tree, *arguments: str, **environment: str) -> str:
    """The one line that such a run ends with; it neither builds nor removes anything."""
    before = tree.snapshot()
    run = tree.scons("-Q", *arguments, **environment)
    assert run.status == 2, run.out
    assert tree.snapshot() == before
    lines = run.out.splitlines()
    assert len(lines) == 1, run.out
    return lines[0]


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("HARDWAR=agx_orin", "HARDWARE="),
        ("hardware=agx_orin", "HARDWARE="),
        ("HARDWRAE=agx_orin", "HARDWARE="),
        ("SIGNINGKEY=key.pem", "SIGNING_KEY="),
        ("EngineDir=out", "ENGINE_DIR="),
        ("STOREMODE=write", "STORE_MODE="),
        ("STORE_TIMEOT=5", "STORE_TIMEOUT="),
        ("STORE_SIGNINGKEY=ci", "STORE_SIGNING_KEY="),
        ("STORE_TRUSTED_KEY=ci.pub", "STORE_TRUSTED_KEYS="),
        ("STOREKEY=ci", "STORE_SIGNING_KEY="),
        ("STORETRUST=ci.pub", "STORE_TRUSTED_KEYS="),
        ("VERFY=full", "VERIFY="),
        ("BACKENDS=tensorrt", "BACKEND="),
        ("STOR=file:///x", "STORE="),
        ("PRUEN=yes", "PRUNE="),
        ("TRT_HARDWAR=agx_orin", "HARDWARE="),
    ],
)
def test_a_near_miss_names_the_setting(built: Tree, written: str, right: str) -> None:
    name = written.partition("=")[0]
    assert refused(built, "engines", written) == f"scons: *** {name}= is not a setting; write {right}"


def test_a_variable_on_the_command_line_is_not_ignored(built: Tree) -> None:
    line = refused(built, "engines", "TRT_HARDWARE=agx_orin")
    assert line == "scons: *** TRT_HARDWARE= is not read from the command line; write HARDWARE="
    line = refused(built, "engines", "TRT_STORE_TIMEOUT=5")
    assert line == "scons: *** TRT_STORE_TIMEOUT= is not read from the command line; write STORE_TIMEOUT="
    for name in ("TRT_STORE_KEY", "TRT_STORE_SIGNING_KEY"):
        assert refused(built, "engines", f"{name}=ci").endswith("; write STORE_SIGNING_KEY=")
    line = refused(built, "engines", "TRT_PYTHON=/x")
    assert line.endswith("set TRT_PYTHON in the environment instead")


@pytest.mark.parametrize("more", [(), ("-c",), ("-n",), ("-q",), ("engines-prune",), ("-c", "engines")])
def test_whatever_the_run_is_for(built: Tree, more: tuple[str, ...]) -> None:
    assert "write HARDWARE=" in refused(built, "HARDWAR=agx_orin", *more)


@pytest.mark.parametrize(
    "arguments",
    [
        ("PREFIX=/usr", "prefix=/usr", "MAXLINELENGTH=2097152", "install_root=/image/usr"),
        ("FOLDER=x", "SCORE=1", "KEY=1", "EXPORT=1", "SOFTWARE=1", "PYTHON=python3", "STATE_DIR=x"),
        ("CC=gcc", "CXX=g++", "VERBOSE=1", "DEBUG=1", "ARCH=arm64", "LIBDIR=/usr/lib", "DEEP=1"),
        ("HARDWARE=rtx_portable",),
    ],
)
def test_what_belongs_to_others_passes(built: Tree, arguments: tuple[str, ...]) -> None:
    run = built.scons("-n", "engines", *arguments)
    assert run.status == 0, run.out


READS = {
    "get": 'ARGUMENTS.get("hardware")',
    "subscript": 'ARGUMENTS["hardware"]',
    "loop": '[v for k, v in ARGLIST if k == "hardware"]',
    "variables": 'v = Variables(None, ARGUMENTS); v.Add("hardware"); v.Update(env)',
    "list": 'v = Variables(None, ARGUMENTS); v.AddVariables(("hardware", "which", "x")); v.Update(env)',
    "all": 'env = Environment(tools=["trt_engines"], toolpath=[path], **ARGUMENTS)',
    "module": "import choices; choices.read(ARGUMENTS)",
}


@pytest.mark.parametrize("how", READS)
def test_what_the_sconstruct_reads_is_its_own(built: Tree, how: str) -> None:
    built.write('def read(arguments): return arguments["hardware"]', "site_scons/choices.py", "")
    header = HEADER
    if how == "all":
        header = 'path = PyPackageDir("scons_tensorrt.tools")\n'
    built.write(READS[how] + '\nenv.Engine("a", "models/a.onnx")\n', header=header)
    run = built.scons("-n", "engines", "hardware=x")
    assert run.status == 0, run.out


def test_a_variable_that_the_sconstruct_takes_from_the_command_line_counts(built: Tree) -> None:
    path = 'path = PyPackageDir("scons_tensorrt.tools")\n'
    text = """
    env = Environment(tools=["trt_engines"], toolpath=[path], **ARGUMENTS)
    env.Engine("a", "models/a.onnx")
    """
    built.write(text, header=path)
    run = built.scons("engines", "TRT_HARDWARE=rtx_portable")
    assert "HARDWARE=rtx_portable" in run.lines("engines: for rtx_portable")[0]


def test_a_sconstruct_from_standard_input_cannot_be_looked_at(built: Tree) -> None:
    text = built.path("SConstruct").read_text()
    done = subprocess.run(
        built.command("-f", "-", "-n", "engines", "hardware=x"),
        cwd=built.root,
        env=built.env(),
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_setting_of_the_command_line_is_known() -> None:
    help_text = settings.HELP + store_settings.HELP + remote_settings.HELP
    for name in settings.ARGUMENTS:
        assert f"{name}=" in help_text
    page = (REPO / "docs/reference.md").read_text()
    named = set(re.findall(r"`([A-Z_]+)=`", "".join(re.findall(r"^\| (`[^|]*=`) \|", page, re.M))))
    others = {"PREFIX", "DESTDIR"}  # conventions that other tools share
    assert others < named
    assert named - others == set(settings.ARGUMENTS)


def test_unknown_variables_are_handled_as_the_reference_says(built: Tree) -> None:
    page = (REPO / "docs/reference.md").read_text()
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.S) if "UnknownVariables" in c)
    built.write(code, header="DefaultEnvironment(tools=[])\n")
    assert built.scons("engines", "HARDWARE=rtx_portable", "COLOUR=red").status == 0
    run = built.scons("engines", "REPORT=x", "SIZE=3")
    assert (run.status, "unknown: REPORT, SIZE" in run.out) == (1, True), run.out


def test_a_configure_in_between_changes_nothing(built: Tree) -> None:
    built.write(
        """
        conf = Configure(env)
        print("tried", conf.TryAction(Touch("$TARGET"))[0])
        env = conf.Finish()
        env.Engine("a", "models/a.onnx")
        """
    )
    run = built.scons("engines", "HARDWAR=x")
    assert (run.status, "tried 1" in run.out) == (2, True), run.out
    assert "HARDWAR= is not a setting; write HARDWARE=" in run.out
    assert built.scons("engines").reused == ["a"]


# HARDWARE in the environment.


def test_hardware_in_the_environment_is_told_in_a_line(built: Tree) -> None:
    line = (
        "engines: HARDWARE=agx_orin in the environment is not read; write it on the command line, or "
        "set TRT_HARDWARE=agx_orin"
    )
    run = built.scons("engines", HARDWARE="agx_orin")
    assert (run.status, run.reused, run.out.count(line)) == (0, ["a", "b"], 1), run.out
    assert line in built.scons("-c", "engines", HARDWARE="agx_orin").out
    run = built.scons("engines", "HARDWARE=rtx_portable", HARDWARE="agx_orin")
    assert "not read" not in run.out
    assert "not read" not in built.scons("-q", "engines", HARDWARE="agx_orin").out


def test_it_is_not_told_where_the_sconstruct_reads_it(built: Tree) -> None:
    built.write(
        """
        import os
        print(os.environ["HARDWARE"])
        env.Engine("a", "models/a.onnx")
        """
    )
    assert "not read" not in built.scons("engines", HARDWARE="agx_orin").out


# A folder, or an engine, of hardware that this run is not for.


def test_the_folder_of_other_hardware_is_not_up_to_date(built: Tree) -> None:
    hardware(built.path("hardware/agx_orin.json"))
    assert built.scons("engines", "HARDWARE=agx_orin").status == 2
    built.path("engines/agx_orin").mkdir(exist_ok=True)
    spec = (
        "scons: *** engines/agx_orin: not an engine of this run; select its hardware with HARDWARE=agx_orin"
    )
    assert refused(built, "engines/agx_orin") == spec
    assert refused(built, "-c", "engines/agx_orin") == spec
    assert built.scons("engines/agx_orin", "HARDWARE=agx_orin").status == 2


def test_an_engine_of_other_hardware_is_not_up_to_date(built: Tree) -> None:
    there = built.path("engines/rtx_sm89/a__sm89_cu13.0_rtx1.7_fp32.engine")
    there.parent.mkdir()
    there.write_bytes(b"x")
    line = refused(built, str(there.relative_to(built.root)))
    assert line.endswith(".engine: not an engine of this run; select its hardware with HARDWARE=rtx_sm89")
    assert "HARDWARE=rtx_sm89" in refused(built, "engines/rtx_sm89")


def test_hardware_named_by_its_path_has_such_a_folder_too(built: Tree) -> None:
    hardware(built.path("boards/agx.json"))
    assert built.scons("engines", "HARDWARE=boards/agx.json").status == 2
    built.path("engines/agx").mkdir(exist_ok=True)
    line = refused(built, "engines/agx")
    assert line == "scons: *** engines/agx: not an engine of this run; select its hardware with HARDWARE="


def test_what_the_sconstruct_makes_among_the_engines_is_made(built: Tree) -> None:
    name = "engines/rtx_sm89/c__sm89_cu13.0_rtx1.7_fp32.engine"
    built.write(f'env.Command("{name}", [], Touch("$TARGET"))\nenv.Engine("a", "models/a.onnx")\n')
    for target in (name, name, "engines/rtx_sm89"):
        assert built.scons(target).status == 0
    assert built.path(name).exists()


def test_what_is_not_an_engine_among_everything_passes(built: Tree) -> None:
    built.write('env.Engine("a", "models/a.onnx")')
    assert built.scons("models", "models/b.onnx", "ENGINE_DIR=.").status == 0


def test_targets_that_are_declared_are_built(built: Tree) -> None:
    built.write('env.Command("engines/notes/readme.txt", [], Touch("$TARGET"))', "more", "")
    built.write('exec(open("more").read())\nenv.Engine("a", "models/a.onnx")\n')
    run = built.scons("engines/notes", "engines/notes/readme.txt", str(built.engine("a")))
    assert (run.status, built.path("engines/notes/readme.txt").exists()) == (0, True), run.out


def test_hardware_that_cannot_be_told_says_why(built: Tree) -> None:
    hardware(built.path("hardware/agx_orin.json"), runtime_version=None)
    built.path("engines/agx_orin").mkdir()
    line = refused(built, "engines/agx_orin", "HARDWARE=agx_orin")
    assert "engines/agx_orin: tensorrt is not installed for " in line
