"""Every argument of every call with values of every wrong type: one line, exit status 2, never a Python
stack. Paths with something of the wrong kind in their place: test_paths_of_the_wrong_kind.py."""

import json
import os
import re

import numpy as np
import pytest

from conftest import Tree, fake_compiler, make_model
from scons_tensorrt.recipe.options import DEFAULTS

VALUES = """
class Odd:
    pass
VALUES = [
    None, True, 0, -1, 1.5, float("nan"), "", "x", "a\\n\\x1b[31mb", "models", "no/such", "\\udcff.onnx",
    b"x", b"\\xff", [], ["x"], [None], [[]], (), (1,), {}, {"x": 1}, {1: 2}, {"x": None}, set(), {1},
    Odd(), Odd, len, env, env.File("models/a.onnx"), env.Dir("models"), env.Value("x"), env.Alias("x"),
    [env.File("models/a.onnx")], [[env.File("models/a.onnx")]], File("models/s.npz"), Path("models"),
    10**30, "a" * 5000, "x\\0y", range(3), iter([1]), "$NONE", "${1/0}", "#", "/", "..",
]
"""
LOOP = """
import json
from pathlib import Path
from scons_tensorrt.scons_tool.call_errors import call_errors
said, taken, errors = [], [], call_errors(env)
def attempt(what, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except BaseException as error:
        said.append([what, "%s escaped: %s" % (type(error).__name__, error)])
    if not errors:
        taken.append(what)
    said.extend([what, line] for line in errors.lines())
    errors.clear()  # so that the run goes on with what is right
"""
END = """
Path("said.json").write_text(json.dumps([said, taken]))
"""
CALLS = {
    "Engine": f"""
made = env.Engine("made", "models/a.onnx")
for number, value in enumerate(VALUES):
    attempt(f"name {{number}}", env.Engine, value, "models/a.onnx")
    attempt(f"source {{number}}", env.Engine, f"s{{number}}", value)
    attempt(f"hardware {{number}}", env.Engine, f"h{{number}}", "models/a.onnx", hardware=value)
    attempt(f"position {{number}}", env.Engine, f"p{{number}}", "models/a.onnx", value)
    for option in {sorted(DEFAULTS)}:
        given = {{"precision": "int8"}} if option == "calibration" else {{}}
        name = f"{{option}}_{{number}}"
        attempt(name, env.Engine, name, "models/a.onnx", **{{**given, option: value}})
""",
    "samples": """
for number, value in enumerate(VALUES):
    for option in "inputs rtol atol metric reference function most at_least files".split():
        name = f"accuracy_{option}_{number}"
        given = {"inputs": "models/s.npz", option: value}
        attempt(name, env.Engine, name, "models/a.onnx", precision="fp16", accuracy=given)
    for option in "data method percentile per_channel ops by function most at_least files".split():
        name = f"calibration_{option}_{number}"
        given = {"data": "models/s.npz", option: value}
        attempt(name, env.Engine, name, "models/a.onnx", precision="int8", calibration=given)
""",
    "OnnxExport": """
for number, value in enumerate(VALUES):
    attempt(f"name {number}", env.OnnxExport, value, "models/e.py:f")
    attempt(f"script {number}", env.OnnxExport, f"s{number}", value)
    for option in ("options", "files", "imports"):
        name = f"{option}_{number}"
        attempt(name, env.OnnxExport, name, "models/e.py:f", **{option: value})
        attempt(name, env.OnnxExport, f"{name}_in", "models/e.py:f", **{option: {"x": value}})
attempt("no arguments", env.OnnxExport)
""",
    "EngineManifest and InstallEngines": """
made = env.Engine("made", "models/a.onnx")
manifest = env.EngineManifest("dist/manifest.json", made)
for number, value in enumerate(VALUES):
    attempt(f"target {number}", env.EngineManifest, value, made)
    attempt(f"engines {number}", env.EngineManifest, f"dist/{number}.json", value)
    attempt(f"folder {number}", env.InstallEngines, value, made)
    attempt(f"install {number}", env.InstallEngines, f"share/{number}", value)
    attempt(f"manifest {number}", env.InstallEngines, f"share/m{number}", made, value)
attempt("no arguments", env.EngineManifest)
attempt("no arguments", env.InstallEngines)
""",
    "construction variables": """
import os
from scons_tensorrt.scons_tool.settings import VARIABLES
from scons_tensorrt.scons_tool import remote_settings, store_settings
for number, value in enumerate(VALUES):
    for name in [*VARIABLES, *store_settings.VARIABLES, *remote_settings.VARIABLES]:
        if name == "TRT_REPORT":
            continue
        attempt(f"{name} {number}", env.Clone(**{name: value}).Engine, f"v{number}", "models/a.onnx")
""",
}


def prepared(tree: Tree) -> Tree:
    make_model(tree.path("models/a.onnx"))
    np.savez(tree.path("models/s.npz"), x=np.zeros((8, 1, 8, 16, 16), np.float32))
    tree.path("models/e.py").write_text("def f(target):\n    raise SystemExit(1)\n")
    fake = fake_compiler(tree.root.parent / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(fake)
    return tree


def one_line(text: str) -> bool:
    return "\n" not in text and "\x1b" not in text


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_no_argument_of_any_type_ends_in_a_stack(tree: Tree, calls: str) -> None:
    prepared(tree)
    tree.write("from pathlib import Path\n" + VALUES + LOOP + calls + END)
    run = tree.scons("-n", "-k", "engines")
    said, taken = json.loads(tree.path("said.json").read_text())
    assert len(said) > 40, run.out
    bad = [each for each in said if not re.match(r"SConstruct:\d+: ", each[1])]
    bad += [each for each in said if "check the arguments" in each[1] and each[0] != "no arguments"]
    bad += [each for each in said if "Error: " in each[1] or not one_line(each[1])]
    assert not bad, "\n".join(map(str, bad))
    assert len(taken) > 3, "nothing that is right was left to build"
    assert run.status in (0, 2)
    if os.environ.get("FAULTS") == "all":  # two minutes
        assert tree.scons("-k", "engines").status in (0, 2)


WRONG = {
    "a number as source": 'env.Engine("a", 5)',
    "bytes as source": 'env.Engine("a", b"models/a.onnx")',
    "a file as folder of the source": 'env.Engine("a", "models/a.onnx/x")',
    "no source": 'env.Engine("a")',
    "nothing": "env.Engine()",
    "a number as plugin": 'env.Engine("a", "models/a.onnx", plugins=5)',
    "nothing as plugin": 'env.Engine("a", "models/a.onnx", plugins=[None])',
    "an empty plugin": 'env.Engine("a", "models/a.onnx", plugins=[""])',
    "a map as plugin": 'env.Engine("a", "models/a.onnx", plugins={"a": 1})',
    "a list as precision": 'env.Engine("a", "models/a.onnx", precision=["fp32"])',
    "a value as source": 'env.Engine("a", Value("x"))',
    "too many by position": 'env.Engine("a", "models/a.onnx", "fp32", None, 1, [], [], None, 1)',
    "one option twice": 'env.Engine("a", "models/a.onnx", "fp32", precision="fp32")',
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_types_are_one_line(two: Tree, call: str) -> None:
    two.write(call)
    run = two.scons()
    assert run.status == 2
    line = next(line for line in run.out.splitlines() if line.startswith("scons: *** "))
    assert line.startswith("scons: *** SConstruct:4: Engine"), run.out


@pytest.mark.parametrize(
    "call",
    [
        'Engine(deep, "models/a.onnx")',
        'OnnxExport(deep, "e.py:f")',
        'EngineManifest(deep, env.Engine("a", "models/a.onnx"))',
        'InstallEngines(deep, env.Engine("a", "models/a.onnx"))',
    ],
)
def test_a_list_a_thousand_deep_is_one_line(two: Tree, call: str) -> None:
    two.write(f"import functools\ndeep = functools.reduce(lambda x, _: [x], range(2000), [])\nenv.{call}")
    run = two.scons()
    assert run.status == 2
    [line] = [line for line in run.out.splitlines() if line.startswith("scons: *** ")]
    assert line.startswith(f"scons: *** SConstruct:6: {call.partition('(')[0]}"), run.out
    assert len(line) < 300


def test_a_path_object_and_options_by_position_are_welcome(two: Tree) -> None:
    two.write(
        """
        import pathlib
        env.Engine("a", pathlib.Path("models/a.onnx"), "tf32", {"x": (1, 8, 16, 16)}, 2048)
        """
    )
    assert two.scons().built == ["a"]


def test_one_cause_of_engines_in_a_loop_is_one_line(two: Tree) -> None:
    two.write(
        """
        for name in ("a", "b", "c", "d", "e", "f"):
            env.Engine(name, "models/a.onnx", model_card={"license": 5})
        env.Engine("g", "models/b.onnx", model_card={"license": 5})
        """
    )
    run = two.scons()
    assert run.status == 2
    cause = "model_card license=5: write one line of text"
    assert [line.partition("*** ")[2] for line in run.out.splitlines() if "***" in line] == [
        f"SConstruct:6: Engine 'a': {cause} (also 'b', 'c', 'd' and 2 more)",
        f"SConstruct:7: Engine 'g': {cause}",
    ]
