"""`python -m scons_tensorrt status` comes without SCons to the judgement that `scons -n` comes to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Tree, flip_last_bit, make_model


def status(tree: Tree, *more: str, cwd: Path | None = None) -> tuple[int, dict[str, dict]]:
    """Its exit status, and the rows by the engine's name."""
    done = tree.cli("status", "--json", *more, cwd=cwd)
    assert done.err == ""
    trees = json.loads(done.out)["trees"]
    return done.status, {row["name"]: row for each in trees for row in each["engines"]}


@pytest.fixture(scope="module")
def mixed_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    import numpy as np

    tree = Tree(tmp_path_factory.mktemp("mixed") / "tree")
    make_model(tree.path("models/plain.onnx"), seed=1)
    make_model(tree.path("models/data.onnx"), seed=2, external="data.bin")
    make_model(tree.path("models/half.onnx"), seed=3)
    tree.path("samples").mkdir()
    np.save(tree.path("samples/0.npy"), np.zeros((1, 8, 16, 16), np.float32))
    tree.write(
        """
        env.Engine("plain", "models/plain.onnx", workspace_mb=128)
        env.Engine("data", "models/data.onnx")
        env.Engine("half", "models/half.onnx", precision="fp16", accuracy="samples")
        """
    )
    run = tree.scons("-j2", "engines")
    assert run.built == ["data", "half", "plain"], run.out
    return tree


@pytest.fixture
def mixed(tmp_path: Path, mixed_once: Tree) -> Tree:
    """Engines of every kind of input: plain, with external data, and made of an fp16 ONNX with an
    accuracy gate whose samples are a folder."""
    return mixed_once.twin(tmp_path / "tree")


def new_model(tree: Tree) -> None:
    make_model(tree.path("models/plain.onnx"), seed=7)


def new_data(tree: Tree) -> None:
    flip_last_bit(tree.path("models/data.bin"))


def new_original(tree: Tree) -> None:
    make_model(tree.path("models/half.onnx"), seed=7)


def one_more_sample(tree: Tree) -> None:
    subprocess.run(["cp", str(tree.path("samples/0.npy")), str(tree.path("samples/1.npy"))], check=True)


def tampered(tree: Tree) -> None:
    flip_last_bit(tree.engine("plain"))


def no_sidecar(tree: Tree) -> None:
    tree.sidecar("data").unlink()


def no_engine(tree: Tree) -> None:
    tree.engine("half").unlink()


def no_intermediate(tree: Tree) -> None:
    tree.path(".trt/onnx/half.fp16.onnx").unlink()


def no_receipts(tree: Tree) -> None:
    for path in tree.path(".trt/receipts").glob("plain__*/*"):
        path.unlink()


def junk(tree: Tree) -> None:
    tree.path("models/plain.onnx").write_bytes(b"junk")


DAMAGES: list[tuple[Callable[[Tree], None], str, str]] = [
    (new_model, "plain", "stale"),
    (new_data, "data", "stale"),
    (new_original, "half", "stale"),
    (one_more_sample, "half", "stale"),
    (no_intermediate, "half", "stale"),
    (tampered, "plain", "tampered"),
    (no_sidecar, "data", "tampered"),
    (no_engine, "half", "missing"),
    (no_receipts, "plain", "stale"),
    (junk, "plain", "failing"),
]


def test_of_engines_that_are_current_it_says_so(mixed: Tree) -> None:
    assert status(mixed) == (0, {n: row(mixed, n) for n in ("plain", "data", "half")})


@pytest.mark.parametrize(
    ("damage", "name", "state"), DAMAGES, ids=[damage.__name__ for damage, _, _ in DAMAGES]
)
def test_status_says_what_a_dry_run_says(
    mixed: Tree, damage: Callable[[Tree], None], name: str, state: str
) -> None:
    damage(mixed)
    code, rows = status(mixed)
    assert code == 1
    assert {n: r["state"] for n, r in rows.items() if r["state"] != "current"} == {name: state}
    run = mixed.scons("-n", "-k", "engines")
    assert run.names("WOULD BUILD") + run.names("WOULD FAIL") == [name]
    why, told = run.reason(name), rows[name]["reason"]
    first = told.partition(" would be made first: ")
    if first[1]:
        assert why == f"{first[0]} would be built first"
        assert any(f"{first[0]} because {first[2]}" in line for line in run.out.splitlines())
    else:
        assert why.removeprefix("RecipeError: ") == told


def row(tree: Tree, name: str) -> dict:
    told = {"engine": str(tree.engine(name).relative_to(tree.root)), "name": name, "hardware": None}
    return {**told, "state": "current", "code": "current", "reason": ""}


def test_status_knows_an_option_that_the_last_run_declared_otherwise(built: Tree) -> None:
    built.write(
        """
        env.Engine("a", "models/a.onnx", workspace_mb=64)
        env.Engine("b", "models/b.onnx")
        """
    )
    built.scons("-k", "engines/b__sm80plus_cu13.0_rtx1.7_fp32.engine")
    code, rows = status(built)
    assert (code, rows["a"]["state"], rows["b"]["state"]) == (1, "stale", "current")
    assert rows["a"]["reason"] == "workspace_mb changed: 4096 → 64"


@pytest.mark.slow
def test_two_trees_that_share_a_state_folder_have_a_status_each(two: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    two.environment["TRT_STATE_DIR"] = str(state)
    other = two.copy(tmp_path / "other", "SConstruct", "models")
    other.write('env.Engine("c", "models/a.onnx")')
    assert two.scons().built == ["a", "b"]
    assert other.scons("-n").status == 0
    assert other.scons().built == ["c"]
    assert sorted(status(two)[1]) == ["a", "b"]
    assert sorted(status(other)[1]) == ["c"]
    other.engine("c").unlink()
    code, rows = status(two, cwd=tmp_path)  # in neither: of both
    assert (code, sorted(rows), rows["c"]["state"]) == (1, ["a", "b", "c"], "missing")


def test_a_variant_folder_and_a_plugin_are_found_again(tree: Tree) -> None:
    make_model(tree.path("src/a.onnx"), external="a.bin")
    tree.write(
        """
        VariantDir("build", "src", duplicate=0)
        env.Engine("a", "build/a.onnx")
        """
    )
    assert tree.scons().built == ["a"]
    assert status(tree)[0] == 0
    flip_last_bit(tree.path("src/a.bin"))
    code, rows = status(tree)
    assert (code, rows["a"]["state"]) == (1, "stale")
    assert "external data a.bin changed" in rows["a"]["reason"]


# By the name of a model.


def command(tree, *arguments, cwd=None):
    done = tree.cli(*arguments, cwd=cwd)
    return done.status, done.out.splitlines(), done.err.splitlines()


@pytest.fixture
def precisions(two):
    """Engine `a` in two precisions, built, and `b`, whose engine is missing."""
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Engine("a", "models/a.onnx", precision="tf32")
        env.Engine("b", "models/b.onnx")
        """
    )
    assert two.scons().status == 0
    two.engine("b").unlink()
    return two


def test_status_of_a_model_lists_its_engines_alone(precisions):
    status, lines, errors = command(precisions, "status", "a")
    assert (status, errors) == (0, [])
    assert [line.split()[0] for line in lines] == ["current", "current", "2"]
    assert all("/a__" in line for line in lines[:-1])
    status, lines, _ = command(precisions, "status", "b")
    assert (status, [line.split()[0] for line in lines]) == (1, ["missing", "1"])
    assert command(precisions, "status", "a", cwd=precisions.path("models"))[0] == 0


def test_explain_of_a_model_explains_each_of_its_engines(precisions):
    status, lines, errors = command(precisions, "explain", "a")
    assert (status, errors) == (0, [])
    assert [line.split(":")[1] for line in lines if line.startswith("engines/a__")] == [
        " a for sm80+, fp32",
        " a for sm80+, tf32",
    ]
    assert command(precisions, "explain", "b")[0] == 1


@pytest.mark.parametrize("word", ["status", "explain"])
def test_a_name_that_no_model_has_is_one_line_with_those_that_there_are(precisions, word):
    assert command(precisions, word, "c") == (
        1,
        [],
        ["EngineError: c: neither a file nor the name of a declared model; known: a, b"],
    )
