"""An engine that a change replaced comes back when the change is undone, without a compile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from onnx import save
from refused import REFUSED

from conftest import Tree, fake_compiler, flip_last_bit, make_model, sha256, sound


@pytest.fixture(scope="module")
def edited_once(compiled_once: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """One engine, built again after an edit of its model; `first` has the model and engine before."""
    tree = compiled_once.twin(tmp_path_factory.mktemp("edited") / "tree")
    tree.write('env.Engine("a", "models/a.onnx")')
    tree.path("first").mkdir()
    shutil.copy(tree.path("models/a.onnx"), tree.path("first/a.onnx"))
    shutil.copy(tree.engine("a"), tree.path("first/a.engine"))
    make_model(tree.path("models/a.onnx"), seed=3)
    assert tree.scons().built == ["a"]
    return tree


@pytest.fixture
def edited(edited_once: Tree, tmp_path: Path) -> Tree:
    return edited_once.twin(tmp_path / "tree")


def revert(tree: Tree) -> None:
    shutil.copy(tree.path("first/a.onnx"), tree.path("models/a.onnx"))


def kept(tree: Tree) -> list[str]:
    """The sha256 of each kept engine."""
    return sorted(sha256(path) for path in tree.path(".trt/kept").glob("*"))


def command(tree: Tree, *arguments: str) -> str:
    """What the command line prints."""
    return tree.cli(*arguments).out


def test_a_change_that_is_undone_compiles_nothing(edited: Tree) -> None:
    first, second = sha256(edited.path("first/a.engine")), sha256(edited.engine("a"))
    assert kept(edited) == [first]
    changed = edited.path("models/a.onnx").read_bytes()
    revert(edited)

    before = edited.snapshot("engines", ".trt")
    dry = edited.scons("-n", "engines")
    assert "__sm" in dry.lines("WOULD REUSE")[0]
    assert " (kept) (" in dry.lines("WOULD REUSE")[0]
    assert dry.summary.endswith("(dry run: 0 would be built)")
    assert "; the next build reuses one (kept)" in command(edited, "status")
    assert "the next build reuses an engine (kept)" in command(edited, "explain", "a")
    assert edited.snapshot("engines", ".trt") == before

    run = edited.scons(TRT_VERBOSE="0")
    assert (run.status, run.built, run.reused) == (0, [], ["a"])
    [line] = run.lines("REUSED")
    assert " (kept) (" in line
    assert "because the engine is from another build: models/a.onnx changed: " in line
    assert "engines: 1 reused, 0 built, 0 failed" in run.summary
    hit = next(event for event in edited.events()[::-1] if event["event"] == "engine.cache.hit")
    assert (hit["outcome"], hit["reason"]) == ("reused", "kept")
    assert hit["reason_text"].startswith("kept; the engine is from another build: ")
    assert sound(edited.engine("a"))
    assert (sha256(edited.engine("a")), kept(edited)) == (first, [second])
    assert edited.engine("a").stat().st_nlink == 1

    edited.scons("engines-report")
    report = json.loads(edited.path(".trt/report/report.json").read_text())
    assert report["kept"] == {"engines": 1, "size": edited.engine("a").stat().st_size}
    assert "1 replaced engine kept in .trt/kept/ (" in command(edited, "status")

    edited.path("models/a.onnx").write_bytes(changed)
    run = edited.scons()
    assert (run.built, run.reused) == ([], ["a"])
    assert (sha256(edited.engine("a")), kept(edited)) == (second, [first])


def test_a_damaged_kept_engine_is_removed_and_compiled(edited: Tree) -> None:
    [place] = edited.path(".trt/kept").iterdir()
    flip_last_bit(place)
    second = sha256(edited.engine("a"))
    revert(edited)
    run = edited.scons()
    assert (run.status, run.built) == (0, ["a"])
    assert f"engines: the kept engine .trt/kept/{place.name} is damaged and was removed" in run.out
    assert (sha256(edited.engine("a")), kept(edited)) == (sha256(edited.path("first/a.engine")), [second])


def test_an_engine_that_was_altered_is_not_kept_and_a_size_of_0_keeps_and_uses_nothing(edited: Tree) -> None:
    before = kept(edited)
    flip_last_bit(edited.engine("a"))
    revert(edited)
    run = edited.scons("engines", "CACHE_SIZE=0")
    assert (run.built, run.reused) == (["a"], [])
    assert kept(edited) == before
    flip_last_bit(edited.engine("a"))
    make_model(edited.path("models/a.onnx"), seed=4)
    assert edited.scons().built == ["a"]
    assert kept(edited) == before


@pytest.mark.parametrize("size", ["5x", "-1", "1e9", "G", "nan"])
def test_a_wrong_size_is_one_line(two: Tree, size: str) -> None:
    run = two.scons("engines", f"CACHE_SIZE={size}")
    assert run.status == 2
    assert f"SConstruct:5: CACHE_SIZE={size}: write a size such as 5G, or 0 to keep nothing" in run.out


def test_two_equal_engines_of_one_run_are_compiled_once(two: Tree) -> None:
    two.write(
        """
        env.Engine("b", "models/a.onnx")
        env.Clone(TRT_ENGINE_DIR="engines/other").Engine("a", "models/a.onnx")
        env.Engine("a", "models/a.onnx")
        """
    )
    run = two.scons("-j3", "engines")
    assert (run.status, len(run.built), len(run.reused)) == (0, 1, 2), run.out
    assert all("(copied from " in line for line in run.lines("REUSED"))
    assert len({sha256(path) for path in two.root.rglob("*.engine")}) == 1
    assert two.scons("-q", "engines").status == 0


@pytest.mark.parametrize("jobs", ["-j1", "-j3"])
def test_equal_engines_that_change_are_compiled_once_wherever_they_are(two: Tree, jobs: str) -> None:
    two.write(
        """
        env.Engine("b", "models/a.onnx")
        env.Clone(TRT_ENGINE_DIR="out/far/away").Engine("c", "models/a.onnx")
        env.Clone(TRT_ENGINE_DIR="engines/other").Engine("b", "models/a.onnx")
        """
    )
    assert two.scons(jobs, "engines").status == 0
    make_model(two.path("models/a.onnx"), seed=9)
    run = two.scons(jobs, "engines")
    assert (run.status, len(run.built), len(run.reused)) == (0, 1, 2), run.out
    assert len({sha256(path) for top in ("engines", "out") for path in two.path(top).rglob("*.engine")}) == 1
    assert two.scons("-q", "engines").status == 0


TWO_AT_ONCE = """
end, calls = time.time() + 10, os.path.join(FOLDER, "compiled")
while len(open(calls).readlines()) < 2:
    time.sleep(0.02)
    assert time.time() < end
done(write())
"""


def test_an_engine_that_waits_for_an_equal_one_holds_no_job_that_another_could_have(tree: Tree) -> None:
    python = fake_compiler(tree.root / "fake", TWO_AT_ONCE, "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    for seed, name in enumerate("ab"):
        make_model(tree.path(f"models/{name}.onnx"), seed)
    tree.write(
        """
        for name in ("a1", "a2", "a3"):
            env.Engine(name, "models/a.onnx")
        env.Engine("b", "models/b.onnx")
        """
    )
    run = tree.scons("-j2", "engines")
    assert (run.status, len(run.built), len(run.reused)) == (0, 2, 2), run.out


def test_what_the_runtime_always_refuses_is_tried_once(tree: Tree) -> None:
    """Equal engines wait for each other: each would be refused after the other, which takes longer."""
    save(REFUSED["TensorRT has no sequences"][0](), tree.path("models/a.onnx"))
    tree.write("for name in 'abc': env.Engine(name, 'models/a.onnx')")
    run = tree.scons("-j3", "-k", "engines")
    assert (run.status, run.failed) == (2, ["a", "b", "c"]), run.out
    assert run.out.count("the parser refused node") == 1
    assert len(list(tree.path(".trt/logs").iterdir())) == 1


def test_the_same_engine_for_another_folder_or_model_is_copied(edited: Tree) -> None:
    digest = sha256(edited.engine("a"))
    run = edited.scons("engines", "HARDWARE=rtx_portable", TRT_VERBOSE="0")
    assert (run.built, run.reused) == ([], ["a"])
    source = edited.engines()["a"].name
    assert f"/rtx_portable/{source} (copied from engines/{source}) (" in run.lines("REUSED")[0]

    edited.write('env.Engine("renamed", "models/a.onnx")')
    dry = edited.scons("-n", "engines")
    run = edited.scons()
    assert (run.built, run.reused) == ([], ["renamed"])
    for line in (dry.lines("WOULD REUSE")[0], run.lines("REUSED")[0]):
        assert f"(copied from engines/{source}) (" in line
    assert sha256(edited.engine("renamed")) == digest
    assert sound(edited.engine("renamed"))
    assert {path.stat().st_nlink for path in edited.path("engines").rglob("*.engine")} == {1}
    receipt = edited.path(".trt/receipts").glob("renamed__*/*.json")
    details = json.loads(next(receipt).read_text())
    assert details["copied"] == {"from": source}
    assert (
        f"  copied from         {source}, which was built as follows\n"
        in edited.cli("explain", "renamed").out
    )
    assert details["inputs"][0]["name"] == "models/a.onnx"
    assert edited.scons("-q", "engines").status == 0


def test_a_tampered_engine_is_compiled_though_another_folder_has_it(edited: Tree) -> None:
    edited.scons("engines", "HARDWARE=rtx_portable")
    other = edited.path("engines/rtx_portable").glob("*.engine")
    flip_last_bit(next(other))
    run = edited.scons("engines", "HARDWARE=rtx_portable")
    assert run.built == ["a"]
    assert run.reason("a").startswith("the engine was modified after it was built")


def test_prune_lists_and_removes_kept_engines(edited: Tree) -> None:
    [place] = edited.path(".trt/kept").iterdir()
    assert place.name.startswith("a__")
    dry = edited.scons("engines-prune")
    [line] = [line for line in dry.lines("WOULD PRUNE") if "/kept/" in line]
    assert line.startswith(f"WOULD PRUNE .trt/kept/{place.name} (0.")
    assert line.endswith(" MB): another build replaced it")
    assert "2 kept by KEEP= or OLDER=" in edited.scons("engines-prune", "OLDER=1", "PRUNE=yes").out
    assert place.exists()
    run = edited.scons("engines-prune", "PRUNE=yes")
    assert any("/kept/" in line for line in run.lines("PRUNED"))
    assert not place.exists()
    assert edited.scons().reused == ["a"]
    revert(edited)
    assert edited.scons("-n", "engines").names("WOULD BUILD") == ["a"]
