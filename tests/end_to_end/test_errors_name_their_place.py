"""What a user writes wrong is one line with its place in their file: SConstruct, SConscript, a module of
theirs or engines.toml. One run reports all of it."""

import os
import re
import textwrap

import numpy as np
import pytest

from conftest import REPO, Run, Tree, hardware, make_model

WRONG_CALLS = {  # each on a line of its own: what its message holds
    'env.Engine("Upper", "models/a.onnx")': "Engine 'Upper': model name 'Upper': write lower-case letters",
    'env.Engine(7, "models/a.onnx")': "Engine 7: model name 7",
    'env.Engine("a__b", "models/a.onnx")': "model name 'a__b'",
    "env.Engine()": "Engine: model name None: write",
    'env.Engine("e1")': "Engine 'e1': 0 sources",
    'env.Engine("e2", "models")': "source models is a folder: give the file itself",
    'env.Engine("e3", ["models/a.onnx", "models/b.onnx"])': "2 sources: give the one ONNX",
    'env.Engine("e4", 5)': "source 5: give the path or node of a file",
    'env.Engine("e5", "models/a.onnx", precisoin="fp16")': "unknown option precisoin='fp16'; did you mean",
    'env.Engine("e6", "models/a.onnx", precision="fp17")': "precision='fp17': write one of fp32",
    'env.Engine("e7", "models/a.onnx", precision="fp4")': "precision='fp4': not supported by this version",
    'env.Engine("e8", "models/a.onnx", "fp32", precision="fp32")': "option precision is given twice",
    'env.Engine("e9", "models/a.onnx", workspace_mb="4G")': "workspace_mb='4G': write a whole number of MiB",
    'env.Engine("f0", "models/a.onnx", timeout_s=-1)': "timeout_s=-1: write a number of seconds above 0",
    'env.Engine("f1", "models/a.onnx", shapes=(1, 3))': "shapes=(1, 3): write a map from input name",
    'env.Engine("f2", "models/a.onnx", shapes={"x": "1x3"})': "shape of input `x` is '1x3': write one shape",
    'env.Engine("f3", "models/a.onnx", flags=["FP16"])': "flag FP16: write precision='fp16' instead",
    'env.Engine("f4", "models/a.onnx", flags="REFIT")': "flags='REFIT': write a list of names",
    'env.Engine("f5", "models/a.onnx", plugins=["models"])': "plugin models is a folder",
    'env.Engine("f6", "models/a.onnx", plugins=["a/p.so", "b/p.so"])': "two libraries have the same name",
    'env.Engine("f7", "models/a.onnx", memory_pools={"x": 1})': "memory_pools 'x': unknown",
    'env.Engine("f8", "models/a.onnx", optimization_level=6)': "optimization_level=6: write a whole number",
    'env.Engine("f9", "models/a.onnx", dla_core="0")': "dla_core='0': write a whole number from 0 to 15",
    'env.Engine("g0", "models/a.onnx", profiling_verbosity="all")': "profiling_verbosity='all': write one of",
    'env.Engine("g1", "models/a.onnx", strongly_typed=1)': "strongly_typed=1: write True or False",
    'env.Engine("g2", "models/a.onnx", keep_ops="Softmax")': "keep_ops='Softmax': write a list of names",
    'env.Engine("g3", "models/a.onnx", keep_io=None)': "keep_io=None: write True or False",
    'env.Engine("g4", "models/a.onnx", calibration="a.txt", precision="int8")': "calibration a.txt: give",
    'env.Engine("g5", "models/a.onnx", calibration={"data": "s.npz", "by": "x"})': "calibration by='x'",
    'env.Engine("g6", "models/a.onnx", accuracy={"inputs": "s.npz", "rtol": -1})': "accuracy rtol=-1: write",
    'env.Engine("g7", "models/a.onnx", accuracy={"most": 1})': "accuracy most=1: only with inputs=; add",
    'env.Engine("g8", "models/a.onnx", hardware=[1])': "hardware=[1]: write a name or a list of names",
    'env.Engine("twice", "models/b.onnx")': "is declared twice for the same hardware and precision (of "
    "models/a.onnx at SConstruct:4 and models/b.onnx)",
    'env.OnnxExport("x1", "export.txt")': "OnnxExport 'x1': 'export.txt': write 'script.py:function'",
    'env.OnnxExport("x2", "e.py:f", options=[1])': "options=[1]: write a map of arguments",
    'env.OnnxExport("x3", "e.py:f", files={"data x": "y"})': "not an argument name; rename it",
    'env.OnnxExport("X", "e.py:f")': "OnnxExport 'X': model name 'X'",
    'env.EngineManifest("m.json", env.File("SConstruct"))': "'m.json': SConstruct: not an engine",
    'env.InstallEngines("share", env.File("SConstruct"))': "'share': SConstruct: not an engine",
    'env.InstallEngines("share", first, "m.json")': "manifest m.json: give what env.EngineManifest returned",
    'env.EnginesFromFile("none.toml")': "none.toml: No such file or directory; it must exist",
    'env.Clone(TRT_LOCK_TIMEOUT="soon").Engine("h1", "models/a.onnx")': "TRT_LOCK_TIMEOUT=soon: write",
}
IN_ODD_PLACES = {
    "SConstruct:{inner}": "Engine 'In_a_function': model name",
    "SConstruct:{loop}": "Engine 'In_a_loop': model name",
    "rules.py:3": "Engine 'In_a_module': model name",
    "sub/SConscript:2": "Engine 'In_a_folder': model name",
    "sub/more.toml:3": 'flag FP16: write precision = "fp16" instead',
}
TOML = {  # line: what it holds
    2: 'workspace_mb = "4G": write a whole number of MiB above 0',
    6: 'precision = "fp17": write one of fp32',
    10: 'shape "1x": write 1x3x224x224, or MIN:OPT:MAX',
    15: "unknown option precisoin; did you mean precision?",
    18: 'no onnx; write onnx = "models/no_onnx.onnx"',
    22: "strongly_typed = 1: write true or false",
    27: "accuracy: unknown tolerance = 1; known: inputs, rtol",
    31: 'hardware = [1]: write a name or a list of names, such as ["orin_nx", "rtx_sm89"]',
    36: "shape of input `x` is [[1]]: write one shape or [min, opt, max], each a list of integers",
}
ENGINES = """\
[defaults]
workspace_mb = "4G"

[engine.t1]
onnx = "models/a.onnx"
precision = "fp17"

[engine.t2]
onnx = "models/a.onnx"
shapes = { x = "1x" }

[engine.t3]
onnx = "models/a.onnx"
workspace_mb = 1
precisoin = "fp16"

# no onnx
[engine.no_onnx]

[engine.t5]
onnx = "models/a.onnx"
strongly_typed = 1
workspace_mb = 1

[engine.t6]
onnx = "models/a.onnx"
accuracy = { inputs = "s.npz", tolerance = 1 }
workspace_mb = 1

[engine.t7]
hardware = [1]
workspace_mb = 1
onnx = "models/a.onnx"

[engine.t8]
shapes.x = [[1]]
workspace_mb = 1
onnx = "models/a.onnx"

[engine.t9]
onnx = "models/a.onnx"
"""


def problems(run: Run) -> dict[str, list[str]]:
    """By place, what the run says is wrong."""
    found: dict[str, list[str]] = {}
    for line in run.out.splitlines():
        match = re.match(r"scons: \*\*\* (\S+?:\d+): (.*)", line)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return found


def test_every_wrong_call_is_one_line_with_its_place(tree: Tree) -> None:
    for name in ("a", "b"):
        make_model(tree.path(f"models/{name}.onnx"))
    np.savez(tree.path("s.npz"), x=np.zeros((8, 1, 8, 16, 16), np.float32))
    tree.write("def declare(env):\n    for name in ['In_a_module']:\n        env.Engine(name, 'a.onnx')\n",
               "rules.py", header="")  # fmt: skip
    tree.write('Import("env")\nenv.Engine("In_a_folder", "a.onnx")\nenv.EnginesFromFile("more.toml")\n',
               "sub/SConscript", header="")  # fmt: skip
    tree.write('[engine.more]\nonnx = "a.onnx"\nflags = ["FP16"]\n', "sub/more.toml", header="")
    tree.path("engines.toml").write_text(ENGINES)
    lines = [*WRONG_CALLS]
    head = 'first = env.Engine("twice", "models/a.onnx")'
    odd = """
    def outer():
        def inner():
            env.Engine("In_a_function", "models/a.onnx")
        inner()
    outer()
    for number in range(3):
        env.Engine("In_a_loop", "models/a.onnx")
    import sys
    sys.path.insert(0, Dir("#").abspath)
    import rules
    rules.declare(env)
    SConscript("sub/SConscript", "env", variant_dir="build", duplicate=True)
    env.EnginesFromFile("engines.toml")
    bad = env.Engine("Bad", "models/a.onnx")
    env.InstallEngines("share", bad, env.EngineManifest("dist/m.json", bad))
    env.Install("elsewhere", bad)
    """
    text = "\n".join([head, *lines, textwrap.dedent(odd)])
    tree.write(text)
    written = tree.path("SConstruct").read_text().splitlines()
    place = {line: f"SConstruct:{number}" for number, line in enumerate(written, 1)}

    run = tree.scons("engines")

    assert run.status == 2
    assert not tree.path("engines").exists()
    found = problems(run)
    for call, message in WRONG_CALLS.items():
        [said] = found.pop(place[call])
        assert message in said, call
    numbers = {
        "inner": written.index('        env.Engine("In_a_function", "models/a.onnx")') + 1,
        "loop": written.index('    env.Engine("In_a_loop", "models/a.onnx")') + 1,
    }
    for where, message in IN_ODD_PLACES.items():
        [said] = found.pop(where.format(**numbers))
        assert message in said
    for number, message in TOML.items():
        [said] = found.pop(f"engines.toml:{number}")
        assert message in said
    [said] = found.pop(place['bad = env.Engine("Bad", "models/a.onnx")'])
    assert "model name 'Bad'" in said
    assert not found, "what is made of a wrong engine is not wrong itself"
    assert len(WRONG_CALLS) + len(IN_ODD_PLACES) + len(TOML) >= 50
    assert "scons_tensorrt" not in run.out
    assert "site_scons" not in run.out
    assert len(run.out.splitlines()) == len(problems(run)) + 2  # reading, done reading


@pytest.mark.parametrize(("after", "option"), [("1 / 0", "engines"), ("", "-h"), ("Exit(0)", "engines")])
def test_a_wrong_call_is_reported_if_reading_does_not_end(two: Tree, after: str, option: str) -> None:
    two.write(f'env.Engine("Bad", "models/a.onnx")\n{after}')
    run = two.scons(option)
    assert run.status == 2
    assert problems(run)["SConstruct:4"] == [run.out.partition("SConstruct:4: ")[2].splitlines()[0]]


def test_a_wrong_setting_of_the_run_is_one_line_however_many_engines_it_concerns(two: Tree) -> None:
    two.path("taken").write_text("a file")
    assert problems(two.scons("engines", "ENGINE_DIR=taken")) == {
        "SConstruct:5": ["ENGINE_DIR: taken is a file; name a folder (also at SConstruct:6)"]
    }
    text = "VERIFY=maybe: write VERIFY=stat or VERIFY=full"
    lines = two.scons("-Q", "engines", "VERIFY=maybe", GITHUB_ACTIONS="true").out.splitlines()
    assert sorted(lines) == [
        f"::error file=SConstruct,line=3,title=Engines::{text}",
        f"scons: *** SConstruct:3: {text}",
    ]


BUILD = """\
env.Engine("good", "models/a.onnx")
env.Engine("gone", "models/gone.onnx")
env.Engine("no_onnx", "SConstruct")
env.Engine("no_input", "models/a.onnx", shapes={"z": (1, 8, 16, 16)})
env.Engine("dynamic", "models/d.onnx")
env.Engine("fixed", "models/a.onnx", shapes={"x": (2, 8, 16, 16)})
env.Engine("no_qdq", "models/a.onnx", precision="int8")
env.Engine("no_dla", "models/a.onnx", dla_core=0)
env.Engine("no_plugin", "models/a.onnx", plugins=["gone.so"])
env.Engine("no_data", "models/e.onnx")
env.Engine("no_samples", "models/a.onnx", precision="int8", calibration="gone.npz")
env.Engine("no_folder", "models/a.onnx", precision="fp16", accuracy="gone.npz")
env.Engine("no_script", env.OnnxExport("made", "gone.py:f"))
env.EnginesFromFile("engines.toml")
"""
KNOWN = {
    "gone": "RecipeError: models/gone.onnx: No such file or directory; check the path",
    "no_onnx": "SConstruct: not an ONNX file but text",
    "no_input": "the model has no input `z`; inputs: `x`",
    "dynamic": "input `x` [-1, 8, -1, 16] is dynamic: write shapes={'x': (min, opt, max)}",
    "fixed": "axis 0: its size in the model is 1",
    "no_qdq": "precision='int8', but it has no Q/DQ nodes: give calibration=",
    "no_dla": "dla_core: not supported by TensorRT for RTX",
    "no_plugin": "plugin gone.so is missing",
    "no_data": "external data 'e.bin' of models/e.onnx is missing",
    "no_samples": ".trt/onnx/no_samples.int8.onnx could not be built, see error above",
    "no_folder": ".trt/onnx/no_folder.fp16.accuracy.json could not be built, see error above",
    "no_script": ".trt/onnx/made.onnx could not be built, see error above",
}
BUILD_TOML = """\
[engine.t_gone]
precision = "fp16"
onnx = "gone.onnx"

[engine.t_shapes]
onnx = "models/d.onnx"

[engine.t_input]
onnx = "models/d.onnx"
shapes = { y = [1, 8, 16, 16] }

[engine.t_effect]
onnx = "models/a.onnx"
keep_io = false

[engine.t_samples]
onnx = "models/a.onnx"
precision = "int8"
calibration = "gone.npz"
"""
KNOWN_TOML = {
    3: "RecipeError: gone.onnx: No such file or directory; check the path",
    5: "write shapes = { x = [min, opt, max] } or one shape, each like [?, 8, ?, 16]",
    10: "the model has no input `y`",
    14: 'keep_io = false has no effect with precision = "fp32" here',
    16: ".trt/onnx/t_samples.int8.onnx could not be built, see error above",
    19: "RecipeError, see error above",  # of the step
}


def test_one_run_names_everything_that_cannot_be_built_each_with_its_place(tree: Tree) -> None:
    """Without -k, before anything is compiled; SCons adds nothing about missing sources."""
    make_model(tree.path("models/a.onnx"))
    make_model(tree.path("models/d.onnx"), shape=("n", 8, "h", 16))
    make_model(tree.path("models/e.onnx"), external="e.bin")
    tree.path("models/e.bin").unlink()
    tree.path("engines.toml").write_text(BUILD_TOML)
    tree.write(BUILD)
    written = tree.path("SConstruct").read_text().splitlines()

    run = tree.scons("engines")

    assert run.status == 2
    assert run.built == []
    failed = re.findall(r"^FAILED (\S+): (\S+:\d+): (.*)$", run.out, re.MULTILINE)
    assert len(failed) == len(run.lines("FAILED"))
    said = {(place, label.partition("__")[0].rpartition("/")[2]): text for label, place, text in failed}
    for name, message in KNOWN.items():
        line = next(n for n, text in enumerate(written, 1) if f'env.Engine("{name}"' in text)
        assert message in said[f"SConstruct:{line}", name], name
    toml = {int(place.partition(":")[2]): text for (place, _), text in said.items() if "toml" in place}
    assert toml.keys() == KNOWN_TOML.keys()
    assert all(message in toml[line] for line, message in KNOWN_TOML.items())
    assert run.summary.startswith(f"engines: 0 reused, 0 built, {len(KNOWN) + 5} failed in ")
    assert "not found" not in run.out
    assert run.out.count("scons: *** ") == 1
    assert re.findall("^WOULD (FAIL .*)", tree.scons("-n", "engines").out, re.MULTILINE)

    report = tree.cli("report", "--github").out
    assert "::error file=SConstruct,line=5,title=Engine gone::engines/gone__" in report
    assert "::error file=engines.toml,line=10,title=Engine t_input::" in report


@pytest.mark.slow
def test_what_was_not_tried_is_not_said_to_have_failed(tree: Tree) -> None:
    """The conversion is visited first, and stops for the engine that cannot be built."""
    make_model(tree.path("models/a.onnx"))
    tree.write(
        """
        env.Engine("half", "models/a.onnx", precision="fp16")
        env.Engine("wrong", "models/a.onnx", shapes={"none": (1, 3)})
        """
    )
    done = tree.scons("engines")
    assert [line.split("__")[0] for line in done.lines("FAILED")] == ["FAILED engines/wrong"]
    assert "engines: 0 reused, 0 built, 1 failed" in done.out


def test_what_fails_while_it_is_built_has_its_place(tree: Tree) -> None:
    """A gate that fails, calibration data that does not fit, an operator that the parser refuses."""
    import onnx

    make_model(tree.path("models/a.onnx"))
    model = onnx.load(make_model(tree.path("models/op.onnx")))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tree.path("models/op.onnx"))
    np.savez(tree.path("s.npz"), x=np.ones((8, 1, 8, 16, 16), np.float32))
    np.savez(tree.path("other.npz"), z=np.ones((8, 1, 8, 16, 16), np.float32))
    tree.path("engines.toml").write_text(
        '[engine.gate]\nonnx = "models/a.onnx"\nprecision = "fp16"\n'
        'accuracy = { inputs = "s.npz", rtol = 0, atol = 0 }\n'
        '[engine.samples]\nonnx = "models/a.onnx"\nprecision = "int8"\ncalibration = "other.npz"\n'
    )
    tree.write('env.EnginesFromFile("engines.toml")\nenv.Engine("op", "models/op.onnx")')

    run = tree.scons("-k", "engines")

    assert run.status == 2
    assert run.built == []
    lines = [line for line in run.lines("FAILED") if "see error above" not in line]
    assert len(lines) == 3
    for place, error in {
        "engines.toml:4": "AccuracyError: ",
        "engines.toml:8": "RecipeError: models/a.onnx: ",
        "SConstruct:5": "EngineBuildError: the parser refused node 1",
    }.items():
        assert any(f": {place}: {error}" in line for line in lines), (place, run.out)


def test_one_cause_is_one_message_that_names_nine_engines(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.write('for n in range(9):\n    env.Engine(f"e{n}", "models/a.onnx", workspace_mb=1024 + n)')
    fields = {"product": "tensorrt_rtx", "jetpack": None, "cuda": "13.0", "machine": os.uname().machine}
    hardware(tree.path("hardware/box.json"), **fields, runtime_version="1.7.1.116")
    for causes in (
        {"TRT_PYTHON": "/no/such/python"},
        {"TRT_HARDWARE": "nonsense"},
        {"TRT_HARDWARE": "box"},
    ):
        run = tree.scons("engines", **causes)
        assert run.failed == [f"e{n}" for n in range(9)]
        assert run.out.count("see error above") == 8
        assert " 0 built, 9 failed in " in run.summary
    assert f"{REPO}" not in run.out
