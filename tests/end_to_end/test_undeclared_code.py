"""Functions of the user's run the declared files, and no other file that lies where they lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import pytest

from conftest import Tree, make_model

SCRIPT = """
import helper

def export(target):
    import numpy as np
    from onnx import TensorProto, helper as make, numpy_helper, save

    weights = numpy_helper.from_array(np.full((1, 8), helper.VALUE, np.float32), "w")
    inputs = [make.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])]
    outputs = [make.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])]
    graph = make.make_graph([make.make_node("Add", ["x", "w"], ["y"])], "g", inputs, outputs, [weights])
    save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), target)
    return {"value": helper.VALUE}
"""
READER = """
import os
import numpy as np

def read():
    with open(os.path.join(os.path.dirname(__file__), "count.txt")) as file:
        count = int(file.read())
    for _ in range(count):
        yield {"x": np.ones((1, 8, 16, 16), np.float32)}
"""
UNDECLARED = "exp.py imports tools/helper.py, which is not declared; add it to imports="


def facts(tree: Tree) -> dict:
    """What the newest export returned."""
    receipts = tree.path(".trt/receipts/a.onnx").glob("*.json")
    newest = max(receipts, key=lambda path: path.stat().st_mtime_ns)
    return dict(json.loads(newest.read_text())["facts"])


def samples_compared(tree: Tree) -> int:
    return int(json.loads(tree.path(".trt/onnx/a.fp16.accuracy.json").read_text())["samples"])


def put(root: Path, **files: str) -> None:
    """Files below a folder; `__` in a name stands for `/`, and a name without a suffix is a module's."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ("" if "." in name else ".py"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def export(tree: Tree, more: str = "", first: str = "") -> None:
    tree.write(f'{first}\nenv.Engine("a", env.OnnxExport("a", "tools/exp.py:export"{more}))\n')


def test_a_module_that_overrides_one_of_a_repository_is_the_one_that_runs(tree: Tree, tmp_path) -> None:
    put(tmp_path / "repo", tools__exp=SCRIPT, tools__helper="VALUE = 1\n")
    put(tree.root, tools__helper="VALUE = 2\n")
    export(tree, ', imports=["tools/helper.py"]', f"Repository({str(tmp_path / 'repo')!r})")

    assert tree.scons().built == ["a"]
    assert facts(tree) == {"value": 2}


def test_a_generated_module_is_the_one_that_runs_and_not_an_old_source(tree: Tree) -> None:
    script = SCRIPT.replace("helper.VALUE", "gen.VALUE").replace("import helper\n", "import gen\n")
    put(tree.root, src__exp=script, src__gen="VALUE = 1\n")
    tree.write(
        """
        gen = env.Command("gen.py", [], "printf 'VALUE = 7' > $TARGET")
        env.Engine("a", env.OnnxExport("a", "exp.py:export", imports=[gen[0]]))
        """,
        "src/SConscript",
        header='Import("env")\n',
    )
    tree.write('Export("env")\nSConscript("src/SConscript", variant_dir="build", duplicate=0)\n')

    assert tree.scons().built == ["a"]
    assert facts(tree) == {"value": 7}


def test_a_readers_file_that_overrides_one_of_a_repository_is_read(tree: Tree, tmp_path) -> None:
    put(tmp_path / "repo", reader=READER, **{"count.txt": "1"})
    put(tree.root, **{"count.txt": "3"})
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write(
        f"""
        Repository({str(tmp_path / "repo")!r})
        env.Engine("a", "models/a.onnx", precision="fp16", accuracy=dict(
            inputs="reader.py:read", files=["count.txt"], rtol=1e3, atol=1e3))
        """
    )

    assert tree.scons().built == ["a"]
    assert samples_compared(tree) == 3


@pytest.mark.parametrize(
    "script",
    [
        SCRIPT,
        SCRIPT.replace(
            "import helper\n",
            "try:\n    import helper\nexcept ImportError:\n    class helper:\n        VALUE = 0\n",
        ),
        SCRIPT.replace(
            "import helper\n",
            "import importlib.util, os\n"
            'place = os.path.abspath("tools/helper.py")\n'
            'spec = importlib.util.spec_from_file_location("helper", place)\n'
            "helper = importlib.util.module_from_spec(spec)\n"
            'import sys; sys.modules["helper"] = helper\n'
            "spec.loader.exec_module(helper)\n",
        ),
    ],
    ids=["plain", "caught", "by its path"],
)
def test_an_import_that_is_not_declared_fails_the_export(tree: Tree, script: str) -> None:
    put(tree.root, tools__exp=script, tools__helper="VALUE = 1\n", lib__helper="VALUE = 2\n")
    export(tree)

    assert UNDECLARED in tree.scons().out


def test_another_module_of_the_same_name_does_not_pass_for_the_declared_one(tree: Tree) -> None:
    put(tree.root, tools__exp=SCRIPT, tools__helper="VALUE = 1\n", lib__helper="VALUE = 2\n")
    export(tree, ', imports=["lib/helper.py"]')

    assert UNDECLARED in tree.scons().out


@pytest.mark.parametrize("beside", ["helper/__init__.py", "helper.so"])
def test_a_package_or_library_beside_a_declared_module_does_not_win(tree: Tree, beside: str) -> None:
    put(tree.root, tools__exp=SCRIPT, tools__helper="VALUE = 1\n")
    other = tree.path(f"tools/{beside}")
    other.parent.mkdir(exist_ok=True)
    other.write_text("VALUE = 2\n")
    export(tree, ', imports=["tools/helper.py"]')

    assert tree.scons().built == ["a"]
    assert facts(tree) == {"value": 1}


def test_an_import_of_a_reader_that_is_not_declared_is_told(tree: Tree) -> None:
    put(tree.root, models__reader="import helper\n" + READER, models__helper="")
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write(
        """
        env.Engine("a", "models/a.onnx", precision="fp16", accuracy=dict(
            inputs="models/reader.py:read", rtol=1e3, atol=1e3))
        """
    )

    told = "reader.py imports models/helper.py, which is not declared; add it to files="
    assert told in tree.scons().out


def test_a_file_of_a_reader_that_is_not_declared_is_told(tree: Tree) -> None:
    put(tree.root, models__reader=READER, **{"models__count.txt": "1"})
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write(
        """
        env.Engine("a", "models/a.onnx", precision="fp16", accuracy=dict(
            inputs="models/reader.py:read", rtol=1e3, atol=1e3))
        """
    )

    told = "reader.py reads models/count.txt, which is not declared; add it to files="
    assert told in tree.scons().out


def test_a_folder_that_is_swapped_during_an_export_changes_nothing(tree: Tree) -> None:
    text = SCRIPT.replace("import helper\n", "import os\n")
    text = text.replace(
        "def export(target):", "def export(target, value, top):\n    helper = read(value, top)"
    )
    put(
        tree.root,
        tools__exp=text
        + "class helper: pass\n"
        + "def read(value, top):\n"
        + "    os.chdir(top)\n"
        + '    os.rename("data", "away"); os.rename("other", "data")\n'
        + "    helper.VALUE = int(open(value).read())\n"
        + '    os.rename("data", "other"); os.rename("away", "data")\n'
        + "    return helper\n",
        **{"data__value.txt": "1", "other__value.txt": "2"},
    )
    export(tree, f', options={{"top": {str(tree.root)!r}}}, files={{"value": "data/value.txt"}}')

    assert tree.scons().built == ["a"]
    assert facts(tree) == {"value": 1}


def with_data(path: Path, seed: int) -> None:
    make_model(path, seed=seed)
    model = onnx.load(path)
    data = path.with_name("w.bin")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=0)


@pytest.mark.slow
def test_the_external_data_of_an_exports_onnx_counts(tree: Tree) -> None:
    put(
        tree.root,
        exp="import onnx\ndef export(target, model):\n    onnx.save(onnx.load(model), target)\n",
    )
    with_data(tree.path("models/real.onnx"), seed=1)
    tree.write('env.Engine("a", env.OnnxExport("a", "exp.py:export", files={"model": "models/real.onnx"}))\n')
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    data = tree.path("models/w.bin")
    data.write_bytes(os.urandom(data.stat().st_size))

    run = tree.scons()

    assert run.built == ["a"], run.out
    assert "file data w.bin of model changed" in run.out
    assert tree.scons("-q").status == 0


@pytest.mark.slow
def test_the_external_data_of_a_readers_onnx_counts(tree: Tree) -> None:
    text = "import onnx, numpy\ndef read():\n    onnx.load(__file__.replace('reader.py', 'real.onnx'))\n"
    text += "    yield {'x': numpy.ones((1, 8, 16, 16), numpy.float32)}\n"
    put(tree.root, models__reader=text)
    make_model(tree.path("models/a.onnx"), seed=1)
    with_data(tree.path("models/real.onnx"), seed=2)
    tree.write(
        """
        env.Engine("a", "models/a.onnx", precision="fp16", accuracy=dict(
            inputs="models/reader.py:read", files=["models/real.onnx"], rtol=1e3, atol=1e3))
        """
    )
    assert tree.scons().built == ["a"]
    assert tree.scons().reused == ["a"]
    data = tree.path("models/w.bin")
    data.write_bytes(os.urandom(data.stat().st_size))

    assert "samples reader.py changed" in tree.scons().out
