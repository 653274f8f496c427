"""The Python code that runs for an export or a set of samples is the code that was hashed."""

from __future__ import annotations

import json
import os
import py_compile
from pathlib import Path

import pytest

from conftest import Tree, make_model

EXPORT = """
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
import a.util, b.util

def export(target, model):
    open(target, "wb").write(open(model, "rb").read())
    return {"a": a.util.VALUE, "b": b.util.VALUE}
"""


def facts(tree: Tree) -> dict:
    """What the newest export returned."""
    receipts = tree.path(".trt/receipts/a.onnx").glob("*.json")
    newest = max(receipts, key=lambda path: path.stat().st_mtime_ns)
    return dict(json.loads(newest.read_text())["facts"])


def edit_with_stale_bytecode(path: Path, text: str) -> None:
    """Leave a `.pyc` of the old text that Python would believe: size and mtime are the same."""
    before = path.stat()
    py_compile.compile(str(path), doraise=True)
    path.write_text(text)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def exported(tree: Tree) -> Tree:
    make_model(tree.path("models/real.onnx"), seed=1)
    tree.write(EXPORT, "models/export.py", header="")
    for name in "ab":
        tree.write("VALUE = 1\n", f"models/{name}/util.py", header="")
    tree.write(
        """
        onnx = env.OnnxExport(
            "a", "models/export.py:export", files={"model": "models/real.onnx"},
            imports=["models/a/util.py", "models/b/util.py"],
        )
        env.Engine("a", onnx)
        """
    )
    return tree


@pytest.mark.parametrize("name", ["a", "b"])
def test_every_import_counts_when_two_have_one_basename(exported: Tree, name: str) -> None:
    assert exported.scons().built == ["a"]
    exported.path(f"models/{name}/util.py").write_text("VALUE = 22\n")

    run = exported.scons()

    assert f"file import {name}/util.py changed" in run.out
    assert facts(exported)[name] == 22


def test_an_export_never_runs_stale_bytecode(exported: Tree) -> None:
    edit_with_stale_bytecode(exported.path("models/a/util.py"), "VALUE = 2\n")
    script = exported.path("models/export.py")
    edit_with_stale_bytecode(script, script.read_text().replace('"b": b.util', '"c": b.util'))

    assert exported.scons().status == 0
    assert facts(exported) == {"a": 2, "c": 1}


def test_a_reader_never_imports_stale_bytecode(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write(
        """
        import numpy
        import helper

        def read():
            return [{"x": numpy.ones((1, 8, 16, 16), numpy.float32)}] * helper.COUNT
        """,
        "models/reader.py",
        header="",
    )
    helper = tree.path("models/helper.py")
    helper.write_text("COUNT = 1\n")
    edit_with_stale_bytecode(helper, "COUNT = 3\n")
    tree.write(
        """
        env.Engine("a", "models/a.onnx", precision="fp16", accuracy=dict(
            inputs="models/reader.py:read", files=["models/helper.py"], rtol=1, atol=1))
        """
    )

    assert tree.scons().status == 0
    figures = json.loads(tree.path(".trt/onnx/a.fp16.accuracy.json").read_text())
    assert figures["samples"] == 3
