"""`status` and `explain` go by the last run, and say when what that run read has changed since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Tree, hardware, make_model


def command(tree: Tree, *arguments: str) -> tuple[int, str]:
    done = tree.cli(*arguments)
    assert done.err == ""
    return done.status, done.out


def edit_sconstruct(tree: Tree) -> None:
    text = tree.path("SConstruct").read_text()
    tree.path("SConstruct").write_text(text.replace("sizes.MB", "sizes.MB + 1"))


def edit_sconscript(tree: Tree) -> None:
    tree.write('Import("env")\nenv.Engine("b", "b.onnx", workspace_mb=9)', "models/SConscript", "")


def edit_module(tree: Tree) -> None:
    tree.write("MB = 9", "site_scons/sizes.py", "")


def edit_hardware(tree: Tree) -> None:
    path = tree.path("hardware/desk.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [86, 89]}))


def remove_module(tree: Tree) -> None:
    tree.path("site_scons/sizes.py").unlink()


EDITS = {
    "SConstruct": edit_sconstruct,
    "models/SConscript": edit_sconscript,
    "site_scons/sizes.py": edit_module,
    "hardware/desk.json": edit_hardware,
}


@pytest.fixture(scope="module")
def read_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("read") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    hardware(
        tree.path("hardware/desk.json"),
        product="tensorrt_rtx",
        compute_capability="8.6+",
        architectures=[86, 89, 120],
        **dict.fromkeys(
            ("runtime_version", "machine", "gpu_name", "sm_count", "memory_gib", "memory_bus_bits"), None
        ),
        **dict.fromkeys(("l2_bytes", "integrated", "jetpack", "recorded"), None),
    )
    tree.write("MB = 8", "site_scons/sizes.py", "")
    tree.write('Import("env")\nenv.Engine("b", "b.onnx")', "models/SConscript", "")
    tree.write(
        """
        import sizes
        env.Engine("a", "models/a.onnx", workspace_mb=sizes.MB)
        SConscript("models/SConscript", exports="env")
        """
    )
    run = tree.scons("engines", "HARDWARE=desk")
    assert (run.status, run.built) == (0, ["a", "b"]), run.out
    return tree


@pytest.fixture
def read(tmp_path: Path, read_once: Tree) -> Tree:
    """A tree whose engines are declared by a SConstruct, a SConscript, a module and a hardware file,
    built."""
    return read_once.twin(tmp_path / "tree")


def test_nothing_is_said_while_all_is_as_it_was_read(read: Tree) -> None:
    status, out = command(read, "status")
    assert (status, "changed since" in out) == (0, False)
    engine = str(read.engine("a"))
    assert "changes\n  none" in command(read, "explain", engine)[1]
    assert "changed since" not in command(read, "explain", engine)[1]
    clone = read.copy(read.root.parent / "clone", *(p.name for p in read.root.iterdir()))
    status, out = command(clone, "status")
    assert (status, "changed since" in out) == (0, False)


@pytest.mark.parametrize("name", EDITS)
def test_what_changed_since_is_named(read: Tree, name: str) -> None:
    edit: Callable[[Tree], None] = EDITS[name]
    edit(read)
    status, out = command(read, "status")
    assert status == 1
    assert f", and {name} changed since; `scons -n engines` shows what would be built now" in out
    assert "engines: declared by the run of 20" in out
    assert name in json.loads(command(read, "status", "--json")[1])["trees"][0]["outdated"]
    engine = str(read.engine("a"))
    assert f", and {name} changed since" in command(read, "explain", engine)[1]
    assert name in json.loads(command(read, "explain", "--json", engine)[1])["now"]["outdated"]
    run = read.scons("engines", "HARDWARE=desk")
    assert run.status == 0, run.out
    assert "changed since" not in command(read, "status")[1]


def test_a_file_that_is_gone_changed(read: Tree) -> None:
    remove_module(read)
    assert "site_scons/sizes.py changed since" in command(read, "status")[1]


def test_a_dry_run_is_not_the_last_run(read: Tree) -> None:
    edit_sconscript(read)
    read.scons("-n", "engines", "HARDWARE=desk")
    assert "models/SConscript changed since" in command(read, "status")[1]


@pytest.mark.parametrize("arguments", [("HARDWARE=dsek",), ("HARDWARE=dsek", "-k"), ("BACKEND=tensort",)])
def test_hardware_that_is_not_known_replaces_nothing(read: Tree, arguments: tuple[str, ...]) -> None:
    before = command(read, "status")
    assert before[0] == 0
    assert read.scons("engines", *arguments).status == 2
    assert command(read, "status") == before


def test_a_sconstruct_that_was_not_read_to_its_end_replaces_nothing(read: Tree) -> None:
    text = read.path("SConstruct").read_text()
    read.path("SConstruct").write_text(text.replace("SConscript(", "Exit(3)\nSConscript("))
    assert read.scons("engines", "HARDWARE=desk").status == 3
    read.path("SConstruct").write_text(text)
    status, out = command(read, "status")
    assert (status, out.count("current")) == (0, 3), out


def test_what_is_the_only_thing_known_is_kept(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    assert tree.scons("engines", "HARDWARE=dsek").status == 2
    assert "failing" in command(tree, "status")[1]


def test_a_second_run_writes_no_declaration(read: Tree) -> None:
    before = read.snapshot(".trt")[".trt/declared.json"]
    assert read.scons("engines", "HARDWARE=desk").status == 0
    assert read.snapshot(".trt")[".trt/declared.json"] == before
