"""`reproduce`: equal bytes, different bytes, and engines that could not be compared."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Tree, sha256
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.state_folder import StateFolder


def reproduce(tree: Tree, *arguments: str | Path) -> tuple[int, list[str]]:
    """The exit status, and the lines without the path of the tree."""
    done = tree.cli("reproduce", *arguments)
    assert done.err == ""
    return done.status, done.out.replace(f"{tree.root}/", "").splitlines()


def test_equal_bytes_end_with_0(built: Tree) -> None:
    assert reproduce(built, "engines") == (0, [f"EQUAL engines/{e.name}" for e in built.engines().values()])


def test_different_bytes_are_told_from_nothing_to_compare(built: Tree) -> None:
    a, b = built.engine("a"), built.engine("b")
    before = Receipt.load(json.dumps(built.receipt("a")).encode())
    a.write_bytes(a.read_bytes() + b"\0")
    now = sha256(a)
    other = Receipt(a.name, before.key, now, before.size + 1, before.ingredients, before.details)
    StateFolder(built.path(".trt"), built.root).receipts.put(other)
    b.unlink()
    assert reproduce(built, "engines") == (
        1,
        [
            f"DIFFERENT engines/{a.name}: sha256 was {now[:12]}, is now {before.sha256[:12]}",
            f"FAILED engines/{b.name}: not compared: the engine is missing; rebuild it",
        ],
    )


def test_a_compile_that_fails_compared_nothing(built: Tree) -> None:
    engine = f"engines/{built.engine('a').name}"
    status, lines = reproduce(built, engine, "--python", "/bin/false")
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(f"FAILED {engine}: not compared: HardwareError: ")


def test_an_input_that_changed_is_not_compared(built: Tree) -> None:
    engine = f"engines/{built.engine('a').name}"
    built.path("models/a.onnx").write_bytes(built.path("models/b.onnx").read_bytes())
    why = "not compared: models/a.onnx changed since the build; rebuild the engine"
    assert reproduce(built, engine) == (1, [f"FAILED {engine}: {why}"])
