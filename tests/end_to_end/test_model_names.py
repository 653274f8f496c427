"""`scons NAME`: the engines of a model, unless the name is the user's."""

import pytest

from conftest import Tree, fake_compiler, make_model

ENGINES = """
env.Engine("net", "models/a.onnx", hardware=["rtx_portable", "rtx_sm89"])
env.Engine("net", "models/a.onnx", precision="tf32")
env.Engine("other", "models/a.onnx", workspace_mb=1)
"""


@pytest.fixture
def named(tree: Tree) -> Tree:
    make_model(tree.path("models/a.onnx"))
    fake = fake_compiler(tree.root.parent / "fake", "done(write())", "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(fake)
    tree.write(ENGINES)
    return tree


def test_a_models_name_means_its_engines(named: Tree) -> None:
    run = named.scons("net")
    assert (run.status, run.built) == (0, ["net", "net", "net"])
    assert "engines: 0 reused, 3 built, 0 failed in " in run.summary
    run = named.scons("net")
    assert (run.status, run.built) == (0, [])
    assert run.summary.startswith("engines: 3 reused, ")
    assert "WOULD BUILD" in named.scons("-n", "other").out
    assert len(list(named.path("engines").rglob("*.engine"))) == 3
    assert named.scons("-c", "net").status == 0
    assert not list(named.path("engines").rglob("*.engine*"))


OWN = {
    "a file": ('env.Command("net", [], "echo mine > $TARGET")', None),
    "an alias": ('env.Alias("net", env.Command("x", [], "echo mine > $TARGET"))', None),
    "a file that nothing builds": ("", "net"),
}


@pytest.mark.parametrize(("line", "file"), OWN.values(), ids=OWN)
def test_a_name_of_the_users_wins_without_a_message(named: Tree, line: str, file: str | None) -> None:
    named.write(ENGINES + line)
    if file:
        named.path(file).write_text("mine")
    run = named.scons("-Q", "net")
    assert run.status == 0
    assert ("echo mine" in run.out) == bool(line)
    assert "engine" not in run.out
