"""Functions of the user's that import, read and lie in ways that a person would find odd: what runs and
what is read is declared, or the step fails in one line."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
from pathlib import Path
from textwrap import dedent

import onnx
import pytest

from conftest import Run, Tree, make_model

WRITE = """
def export(target, **files):
    import numpy
    from onnx import TensorProto, helper as made, numpy_helper, save

    found = value(**files)
    weights = numpy_helper.from_array(numpy.ones((1, 8), numpy.float32), "w")
    inputs = [made.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])]
    outputs = [made.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])]
    graph = made.make_graph([made.make_node("Add", ["x", "w"], ["y"])], "g", inputs, outputs, [weights])
    save(made.make_model(graph, opset_imports=[made.make_opsetid("", 17)], ir_version=9), target)
    return {"value": found}
"""
BY_PATH = """
import importlib.util, os
spec = importlib.util.spec_from_file_location("h", os.path.abspath("tools/helper.py"))
helper = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helper)
"""


def export(tree: Tree, script: str, more: str = "", place: str = "tools/exp.py", **environment: str) -> Run:
    """Run an export whose `value(**files)` is what `script` says. more: of its call."""
    tree.write(dedent(script) + WRITE, place, header="")
    tree.write(f'Default(env.OnnxExport("a", "{place}:export"{more}))\n')
    return tree.scons(".trt/onnx/a.onnx", **environment)


def value(tree: Tree, run: Run) -> object:
    """What the only export returned."""
    assert run.status == 0, run.out
    (receipt,) = tree.path(".trt/receipts/a.onnx").glob("*.json")
    return json.loads(receipt.read_text())["facts"]["value"]


def put(tree: Tree, **modules: str) -> None:
    """Modules by their paths, with `__` for `/`."""
    for name, text in modules.items():
        tree.write(text + "\n", name.replace("__", "/").replace("INIT", "__init__") + ".py", header="")


USES = "import helper\ndef value(): return helper.V\n"
UNDECLARED = {
    "from a module": "from helper import V\ndef value(): return V\n",
    "by importlib": "import importlib\ndef value(): return importlib.import_module('helper').V\n",
    "inside a function": "def value():\n    import helper\n    return helper.V\n",
    "in a thread": """
        import threading
        found = []
        def look():
            try:
                import helper
                found.append(helper.V)
            except ImportError:
                found.append(0)
        def value():
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return found
        """,
    "in a child process": """
        import multiprocessing
        def look(_):
            import helper
            return helper.V
        def value():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.map(look, [0])
        """,
    "by its path, known to nobody": BY_PATH + "def value(): return helper.V\n",
    "by runpy": "import os, runpy\n"
    "def value(): return runpy.run_path(os.path.abspath('tools/helper.py'))['V']\n",
    "by runpy, from the current folder": "import runpy\n"
    "def value(): return runpy.run_path('tools/helper.py')['V']\n",
}


@pytest.mark.parametrize("how", UNDECLARED)
def test_a_module_that_is_not_declared_is_named_however_it_is_imported(tree: Tree, how: str) -> None:
    put(tree, tools__helper="V = 1")

    run = export(tree, UNDECLARED[how])

    assert "exp.py imports tools/helper.py, which is not declared; add it to imports=" in run.out
    assert run.status == 2


def test_a_declared_module_is_run_as_its_copy_alone(tree: Tree) -> None:
    put(tree, tools__helper="V = 1")

    run = export(tree, UNDECLARED["by runpy"], ', imports=["tools/helper.py"]')

    assert "exp.py runs tools/helper.py itself, not its private copy; find it by __file__" in run.out


def test_a_module_of_a_declared_module_is_named(tree: Tree) -> None:
    put(tree, tools__helper="from other import V", tools__other="V = 1")

    run = export(tree, USES, ', imports=["tools/helper.py"]')

    assert "exp.py imports tools/other.py, which is not declared; add it to imports=" in run.out


@pytest.mark.parametrize("declared", ["", ', imports=["tools/space/other.py"]'])
def test_a_module_in_a_folder_without_init_is_named(tree: Tree, declared: str) -> None:
    put(tree, tools__space__part="V = 1", tools__space__other="V = 2")

    run = export(tree, "import space.part\ndef value(): return space.part.V\n", declared)

    assert "exp.py imports tools/space/part.py, which is not declared; add it to imports=" in run.out


def test_a_module_in_a_folder_of_the_top_is_named(tree: Tree) -> None:
    put(tree, lib__helper="V = 1")

    run = export(
        tree,
        "import os, sys\n"
        "sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))\n"
        "import lib.helper\n"
        "def value(): return lib.helper.V\n",
    )

    assert "exp.py imports lib/helper.py, which is not declared; add it to imports=" in run.out


def test_a_folder_of_data_hides_no_installed_package(tree: Tree) -> None:
    put(tree, tools__onnx__notes="V = 1", tools__helper="V = 2")

    run = export(tree, USES, ', imports=["tools/helper.py"]')

    assert value(tree, run) == 2


def test_a_package_whose_init_is_not_declared_is_named(tree: Tree) -> None:
    put(tree, tools__parts__INIT="V = 1", tools__parts__one="V = 2")

    run = export(
        tree, "from parts import one\ndef value(): return one.V\n", ', imports=["tools/parts/one.py"]'
    )

    assert "exp.py imports tools/parts/__init__.py, which is not declared" in run.out


def test_a_relative_import_of_a_declared_package_is_named(tree: Tree) -> None:
    put(tree, tools__parts__INIT="from .one import V", tools__parts__one="V = 2")

    run = export(tree, "import parts\ndef value(): return parts.V\n", ', imports=["tools/parts/__init__.py"]')

    assert "exp.py imports tools/parts/one.py, which is not declared" in run.out


def test_the_declared_module_runs_and_none_of_its_name_elsewhere(tree: Tree) -> None:
    put(tree, helper="V = 2", lib__helper="V = 3", tools__helper="V = 1", tools__colorsys="V = 1")
    stale = tree.path("tools/helper.py")
    stale.with_suffix(".pyc").write_bytes(b"")
    py_compile.compile(str(tree.path("lib/helper.py")), cfile=str(stale) + "c")
    tree.environment["PYTHONPATH"] = os.pathsep.join([tree.env()["PYTHONPATH"], str(tree.path("lib"))])

    run = export(
        tree,
        "import colorsys, helper\ndef value(): return [helper.V, colorsys.V]\n",
        ', imports=["tools/helper.py", "tools/colorsys.py"]',
    )

    assert value(tree, run) == [1, 1]


@pytest.mark.parametrize("name", ["onnx", "numpy"])
def test_a_script_that_hides_an_installed_module_is_told_to_be_renamed(tree: Tree, name: str) -> None:
    run = export(tree, "def value(): return 1\n", place=f"tools/{name}.py")

    assert f"; an installed module is called `{name}`, as yours is: rename yours; log: " in run.out
    assert "install it" not in run.out


def test_a_linked_script_imports_from_beside_the_file_that_it_leads_to(tree: Tree) -> None:
    put(tree, real__helper="V = 4")
    tree.write(USES + WRITE, "real/exp.py", header="")
    tree.path("tools").symlink_to("real")
    tree.path("linked.py").symlink_to("real/exp.py")
    tree.write('Default(env.OnnxExport("a", "linked.py:export"))\n')
    told = "linked.py imports real/helper.py, which is not declared; add it to imports="
    assert told in tree.scons(".trt/onnx/a.onnx").out
    tree.write('Default(env.OnnxExport("a", "linked.py:export", imports=["real/helper.py"]))\n')

    assert value(tree, tree.scons(".trt/onnx/a.onnx")) == 4


def test_odd_scripts_run(tree: Tree) -> None:
    put(
        tree,
        tools__größe="V = 1",
        tools__data__INIT="",
        tools__work="def twice(x): return 2 * x",
    )
    tree.write("text", "tools/data/text.txt", header="")
    script = """
    import multiprocessing, os, pickle
    from importlib import resources
    import data, größe, work
    os.chdir("/")

    class Kept:
        value = 3

    if __name__ == "__main__":
        raise SystemExit(1)

    def value(given):
        os.chdir("/tmp")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            doubled = pool.map(work.twice, [1, 2])
        text = resources.files(data).joinpath("text.txt").read_text()
        with open(given) as file:
            return [größe.V, pickle.loads(pickle.dumps(Kept())).value, doubled, text, file.read()]
    """

    run = export(
        tree,
        script,
        ', imports=["tools/größe.py", "tools/data/__init__.py", "tools/work.py"]'
        ', files={"given": "tools/data/text.txt"}',
        place="tools/skript_ü.py",
    )

    assert value(tree, run) == [1, 3, [2, 4], "text", "text"]


@pytest.mark.parametrize("place", ["scratch", ""], ids=["in the tree", "of the machine"])
def test_code_that_the_run_itself_writes_may_run(tree: Tree, place: str) -> None:
    tree.path("scratch").mkdir()
    script = """
    import os, runpy, tempfile
    def value():
        path = os.path.join(tempfile.mkdtemp(), "generated.py")
        with open(path, "w") as file:
            file.write("V = 5")
        return runpy.run_path(path)["V"]
    """

    run = export(tree, script, TMPDIR=str(tree.path(place)) if place else "/tmp")

    assert value(tree, run) == 5


def test_a_file_is_given_as_a_private_copy(tree: Tree) -> None:
    tree.write("as declared", "data/given.txt", header="")
    tree.write("another", "data/other.txt", header="")
    script = """
    import os
    def value(given):
        with open(given, "a") as file:
            file.write(", then written to")
        return os.listdir(os.path.dirname(given))
    """

    run = export(tree, script, ', files={"given": "data/given.txt"}')

    assert value(tree, run) == ["given.txt"]
    assert tree.path("data/given.txt").read_text() == "as declared"


@pytest.mark.parametrize("linked", [False, True])
def test_an_onnx_is_given_with_its_data_in_a_folder(tree: Tree, tmp_path: Path, linked: bool) -> None:
    make_model(tree.path("models/real.onnx"), seed=1)
    model = onnx.load(tree.path("models/real.onnx"))
    tree.path("models/parts").mkdir()
    onnx.save(
        *(model, tree.path("models/real.onnx")),
        save_as_external_data=True,
        location="parts/w.bin",
        size_threshold=0,
    )
    if linked:
        tree.path("models/parts/w.bin").rename(tmp_path / "w.bin")
        tree.path("models/parts/w.bin").symlink_to(tmp_path / "w.bin")
    script = """
    import onnx
    def value(model):
        return len(onnx.load(model).graph.initializer)
    """

    run = export(tree, script, ', files={"model": "models/real.onnx"}')

    assert value(tree, run) == len(model.graph.initializer)


@pytest.mark.parametrize("name", ["import x", "data x"])
def test_a_file_by_a_name_that_no_argument_has_is_refused(tree: Tree, name: str) -> None:
    tree.write("", "given.txt", header="")

    run = export(tree, "def value(**files): return sorted(files)\n", f', files={{"{name}": "given.txt"}}')

    assert f"OnnxExport 'a': files={{'{name}': …}}: not an argument name; rename it" in run.out
    assert run.status == 2


@pytest.mark.slow
def test_a_plugin_finds_a_library_of_its_own_beside_it(two: Tree) -> None:
    def compile(name: str, text: str, *more: str) -> None:
        two.write(text, f"lib/{name}.c", header="")
        command = ["cc", "-shared", "-fPIC", "-o", f"lib{name}.so", f"{name}.c", *more]
        subprocess.run(command, cwd=two.path("lib"), check=True)

    compile("q", "int q(void) { return 7; }")
    compile(
        "p",
        "int q(void); __attribute__((constructor)) static void p(void) { q(); }",
        *("-L.", "-lq", "-Wl,-rpath,$ORIGIN"),
    )
    two.write('env.Engine("a", "models/a.onnx", plugins=["lib/libp.so"])\n')
    assert two.scons().built == ["a"]
    assert two.scons().reused == ["a"]
    two.path("lib/libq.so").unlink()
    two.engine("a").unlink()
    told = "plugin libp.so: libq.so: cannot open shared object file: No such file or directory; see `ldd -r"
    assert told in two.scons().out

    compile("q", "int q(void) { return 8; }")
    two.write('env.Engine("a", "models/a.onnx", plugins=["lib/libq.so", "lib/libp.so"])\n')
    assert two.scons().built == ["a"]
    compile("q", "int q(void) { return 9; }")
    assert two.scons().reason("a").startswith("plugin libq.so changed: ")
