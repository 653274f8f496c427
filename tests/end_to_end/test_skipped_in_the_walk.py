"""What is current is taken out of SCons's walk, and nothing else: whatever the user's own SConstruct
adds to an engine or its model still happens."""

import json
import os
from pathlib import Path

import onnx
import pytest

from conftest import Run, Tree, fake_compiler, flip_last_bit, make_model

TWO = 'a = env.Engine("a", "models/a.onnx")\nb = env.Engine("b", "models/b.onnx")\n'


def asked(tree: Tree, *arguments: str) -> tuple[Run, list[str]]:
    """A run, and the models of whose engines SCons made a task."""
    run = tree.scons(*(arguments or ("engines",)), "--taskmastertrace=trace")
    lines = tree.path("trace").read_text().splitlines()
    tasks = [line for line in lines if "Evaluating" in line and ".engine" in line]
    return run, sorted({name for name in "ab" if any(f"{name}__" in line for line in tasks)})


def test_what_is_current_needs_no_task(built: Tree) -> None:
    run, tasks = asked(built)
    assert (run.status, run.reused, tasks) == (0, ["a", "b"], [])


def test_what_is_not_has_one_and_nothing_else_does(built: Tree) -> None:
    flip_last_bit(built.engine("b"))
    run, tasks = asked(built)
    assert (run.reused, run.built, tasks) == (["a"], ["b"], ["b"])


def test_named_by_itself_an_engine_has_its_task(built: Tree) -> None:
    run, tasks = asked(built, str(built.engine("a").relative_to(built.root)))
    assert (run.reused, tasks) == (["a"], ["a"])


def test_a_clone_without_the_record_has_nothing_to_do(built: Tree, tmp_path: Path) -> None:
    clone = built.copy(tmp_path / "clone", "models", "SConstruct", "engines", ".trt")
    assert clone.scons("-q", "engines").status == 0
    assert clone.scons("-q", "engines", "VERIFY=full").status == 0
    flip_last_bit(clone.engine("a"))
    assert clone.scons("-q", "engines").status == 1


@pytest.mark.parametrize(
    "more",
    [
        "Depends(a, note)",
        "Requires(a, note)",
        'Depends("models/a.onnx", note)',
        'AddPostAction(a, Copy("note", "models/a.onnx"))',
        'AddPreAction(a, Copy("note", "models/a.onnx"))',
        'AlwaysBuild(a); AddPostAction(a, Copy("note", "models/a.onnx"))',
    ],
)
def test_what_the_user_adds_happens(built: Tree, more: str) -> None:
    note = 'note = env.Command("note", [], "echo made > $TARGET")\n' if "note)" in more else ""
    built.write(TWO + note + more)
    run, tasks = asked(built)
    assert (run.status, run.reused, tasks) == (0, ["a", "b"], ["a"]), run.out
    assert built.path("note").exists()


@pytest.mark.parametrize(
    "more",
    [
        'SideEffect("log", a)',
        'Ignore(a, "models/a.onnx")',
        "AlwaysBuild(a)",
        'Requires("models/a.onnx", "models/b.onnx")',
    ],
)
def test_what_the_user_changes_is_left_to_scons(built: Tree, more: str) -> None:
    built.write(TWO + more)
    run, tasks = asked(built)
    assert (run.status, run.reused, tasks) == (0, ["a", "b"], ["a"])


def test_a_model_that_a_builder_makes_is_asked_for(built: Tree) -> None:
    built.path("models/a.onnx").rename(built.path("models/origin.onnx"))
    built.write(TWO + 'env.Command("models/a.onnx", "models/origin.onnx", Copy("$TARGET", "$SOURCE"))')
    run, tasks = asked(built)
    assert (run.status, run.reused, tasks) == (0, ["a", "b"], ["a"])
    make_model(built.path("models/origin.onnx"), seed=9)
    assert built.scons().built == ["a"]


def test_external_data_that_a_builder_makes_are_asked_for(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    model = onnx.load(tree.path("models/a.onnx"))
    onnx.save(
        model,
        tree.path("models/a.onnx"),
        save_as_external_data=True,
        location="a.bin",
        size_threshold=0,
    )
    tree.write('a = env.Engine("a", "models/a.onnx")')
    assert tree.scons().built == ["a"]
    assert asked(tree)[1] == []
    tree.path("models/a.bin").rename(tree.path("models/origin.bin"))
    tree.write(
        'a = env.Engine("a", "models/a.onnx")\n'
        'env.Command("models/a.bin", "models/origin.bin", Copy("$TARGET", "$SOURCE"))'
    )
    run, tasks = asked(tree)
    assert (run.status, run.reused, tasks) == (0, ["a"], ["a"]), run.out
    data = bytearray(tree.path("models/origin.bin").read_bytes())
    data[0] ^= 1
    tree.path("models/origin.bin").write_bytes(data)
    assert tree.scons().built == ["a"]


@pytest.mark.parametrize("decider", ["content", "timestamp-match", "content-timestamp"])
def test_what_is_made_of_an_engine_stays_as_it_is(built: Tree, decider: str) -> None:
    built.write(
        TWO + f'other = env.Clone(); other.Decider("{decider}")\n'
        'other.Command("image", [a, "models/b.onnx"], Copy("$TARGET", "$SOURCE"))\n'
        'other.Command("list", a[1], Copy("$TARGET", "$SOURCE"))\n'
    )
    targets = "engines", "image", "list"
    assert built.scons(*targets).status == 0
    for more in ((), ("--implicit-cache",)):
        assert built.scons("-q", *targets, *more).status == 0
        assert built.scons("-q", "image", "list", *more).status == 0
    flip_last_bit(built.engine("a"))
    assert built.scons(*targets).built == ["a"]
    assert built.path("image").read_bytes() == built.engine("a").read_bytes()
    assert built.scons("-q", *targets).status == 0


def test_what_depends_on_the_alias_follows_the_engines(built: Tree) -> None:
    built.write(
        TWO + 'image = env.Command("image", [], "date +%s%N > $TARGET")\nDepends(image, env.Alias("engines"))'
    )
    built.scons("image")
    first = built.path("image").read_text()
    assert built.scons("-q", "image").status == 0
    make_model(built.path("models/b.onnx"), seed=7)
    assert built.scons("image").built == ["b"]
    assert built.path("image").read_text() != first
    assert built.scons("-q", "image").status == 0


def test_the_tree_that_scons_prints_is_whole(built: Tree) -> None:
    run = built.scons("engines", "--tree=all")
    assert run.reused == ["a", "b"]
    assert all(f"models/{name}.onnx" in run.out for name in "ab")


def test_a_rule_of_ones_own_in_a_later_script_counts(built: Tree) -> None:
    # Asked for its children while the graph is read, the alias settles nothing yet.
    built.write(
        TWO + 'env.Alias("engines")[0].children()\nDepends(a, env.Command("note", [], "echo made > $TARGET"))'
    )
    run, tasks = asked(built)
    assert (run.reused, tasks) == (["a", "b"], ["a"])
    assert built.path("note").exists()


def test_the_hardware_is_named_before_anything_else(built: Tree) -> None:
    make_model(built.path("models/a.onnx"), seed=5)
    said = [line for line in built.scons().out.splitlines() if not line.startswith("scons: ")]
    assert said[0].startswith("engines: for ")
    assert said[1].startswith("REUSED ")
    assert json.loads(built.path(".trt/events.jsonl").read_text().splitlines()[-1])["reused"] == 1


# What the alias itself waits for may make what engines are made from.

FETCH = (
    'fetch = env.Command("stamp", "models.txt", ["cp up.onnx models/a.onnx", Copy("$TARGET", "$SOURCE")])\n'
)


@pytest.mark.parametrize("how", ["Requires", "first"])
def test_what_the_alias_waits_for_comes_first(built: Tree, how: str) -> None:
    rule = 'env.Requires(env.Alias("engines"), fetch)\n' + TWO
    if how == "first":
        rule = 'env.Alias("engines", fetch)\n' + TWO
    built.write(FETCH + rule + 'env.EngineManifest("dist/manifest.json", [a, b])')
    make_model(built.path("up.onnx"), seed=8)
    built.path("models.txt").write_text("1")
    assert built.scons("engines", "dist/manifest.json").built == ["a"]
    run, tasks = asked(built, "engines", "dist/manifest.json")
    assert run.reused == ["a", "b"]
    assert tasks == ["a", "b"]  # whether the fetch is due, SCons knows
    make_model(built.path("up.onnx"), seed=9)
    built.path("models.txt").write_text("2")
    assert built.scons("engines", "dist/manifest.json").built == ["a"]


def test_copies_in_the_alias_are_no_engines(built: Tree) -> None:
    built.write(
        TWO + 'm = env.EngineManifest("dist/manifest.json", [a, b])\n'
        'env.Alias("engines", env.InstallEngines("fw", [a, b], manifest=m))\n'
        'image = env.Command("image", [], "date +%s%N > $TARGET")\n'
        'Depends(image, env.Alias("engines"))'
    )
    for _ in range(2):
        assert built.scons("image", "DESTDIR=out").status == 0
    assert built.scons("-q", "image", "DESTDIR=out").status == 0


def test_a_copy_of_an_engine_may_be_what_another_is_made_from(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"))
    tree.path("export.py").write_text(
        "import shutil\ndef make(target, e):\n    shutil.copy('models/a.onnx', target)\n"
    )
    tree.write(
        'a = env.Engine("a", "models/a.onnx")\n'
        f'copy = env.InstallEngines("{tree.path("fw")}", [a])\n'
        'env.Engine("b", env.OnnxExport("x", "export.py:make", files={"e": copy[0]}), workspace_mb=9)'
    )
    run = tree.scons()
    assert (run.status, run.built) == (0, ["a", "b"]), run.out
    assert tree.scons().reused == ["a", "b"]


def test_what_the_alias_ignores_is_not_counted(built: Tree) -> None:
    built.write(TWO + 'Ignore(env.Alias("engines"), b[1])')
    assert built.scons().reused == ["a"]


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_name_that_no_file_can_have_fails_its_engine_alone(built: Tree, where: str) -> None:
    make_model(built.path("models/b.onnx"), seed=6)
    odd = 'env.Engine("c", "models/" + "x" * 300 + ".onnx")\n'
    built.write(odd + TWO if where == "first" else TWO + odd)
    run = built.scons("-k", "engines")
    assert (run.status, run.built, run.reused) == (2, ["b"], ["a"]), run.out


def test_an_engine_that_is_made_from_itself_is_a_cycle(built: Tree) -> None:
    built.path("export.py").write_text("def make(target, e): pass\n")
    engine = built.engine("a").relative_to(built.root)
    built.write(
        f'env.Engine("a", env.OnnxExport("a", "export.py:make", files={{"e": "{engine}"}}))\n'
        'env.Engine("b", "models/b.onnx")'
    )
    run = built.scons()
    assert run.status == 2
    assert "Found dependency cycle(s)" in run.out


def test_an_emitter_of_ones_own_counts(built: Tree) -> None:
    built.write(
        """
        note = env.Command("note", [], "echo made > $TARGET")[0]
        emit = env["BUILDERS"]["TRT_Engine"].emitter
        def mine(target, source, env):
            target, source = emit(target, source, env)
            Depends(target, note)
            return target, source
        env["BUILDERS"]["TRT_Engine"].emitter = mine
        env.Engine("a", "models/a.onnx")
        """
    )
    run, tasks = asked(built)
    assert (run.status, tasks) == (0, ["a"]), run.out
    assert built.path("note").exists()


def test_a_source_that_was_added_is_made(built: Tree) -> None:
    built.write(TWO + 'a[0].add_source(env.Command("note", [], "echo made > $TARGET"))')
    assert built.scons().status == 0
    assert built.path("note").exists()


def test_a_manifest_tells_what_its_engines_were_made_from(built: Tree) -> None:
    make_model(built.path("up.onnx"), seed=8)
    built.write(
        TWO + 'm = env.EngineManifest("dist/manifest.json", [a, b])\n'
        'Depends(m, env.Command("x", [], "cp up.onnx models/a.onnx && touch $TARGET"))'
    )
    for made in ([], ["a"]):  # the model changes in the first run, after its engine was judged
        run = built.scons("engines", "dist/manifest.json")
        assert (run.status, run.built) == (0, made), run.out
        told = json.loads(built.path("dist/manifest.json").read_text())["engines"][0]
        receipt = built.receipt("a")
        assert (told["sha256"], told["recipe"]) == (receipt["sha256"], receipt["ingredients"])


def test_a_null_build_rewrites_nothing_and_reads_a_changed_setting(built: Tree) -> None:
    """What is the same for every engine is read once, but not what differs."""
    built.write('a = env.Engine("a", "models/a.onnx")\nenv.Engine("b", Dir("models").File("b.onnx"))\n')
    assert built.scons().reused == ["a", "b"]
    files = [built.path(f".trt/{name}.json") for name in ("declared", "digests")]
    before = [(file.stat().st_ino, file.read_bytes()) for file in files]
    assert json.loads(before[0][1])["engines"][1]["name"] == "b"
    assert built.scons().reused == ["a", "b"]
    assert [(file.stat().st_ino, file.read_bytes()) for file in files] == before
    built.write(
        'a = env.Engine("a", "models/a.onnx")\nenv["TRT_VERIFY"] = "full"\nenv.Engine("b", "models/b.onnx")\n'
    )
    run = built.scons()
    assert run.status == 2
    assert "two environments of one run differ in TRT_STATE_DIR, TRT_VERIFY" in run.out


def test_another_builders_target_never_goes_stale(two: Tree) -> None:
    swap = f"os.replace({str(two.path('new.onnx'))!r}, {str(two.path('models/a.onnx'))!r})"
    python = fake_compiler(two.path("fake"), f"{swap}; done(write())", "tensorrt_rtx", "1.7.1.116")
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("copy.onnx", "models/a.onnx", Copy("$TARGET", "$SOURCE"))
        """
    )
    make_model(two.path("new.onnx"), seed=7)
    os.utime(two.path("new.onnx"), (1, 1))
    assert two.scons("copy.onnx", "engines", TRT_PYTHON=str(python)).status == 2
    assert two.scons("engines", "copy.onnx").status == 0
    assert two.path("copy.onnx").read_bytes() == two.path("models/a.onnx").read_bytes()
