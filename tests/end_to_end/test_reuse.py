"""What is unchanged is reused: no compile, no process, no byte touched."""

import json
import shutil
import subprocess

import pytest

from conftest import REPO, Tree, make_model, sha256, sound


def test_first_run_builds_real_plans_with_right_sidecars(two: Tree) -> None:
    run = two.scons()
    assert (run.status, run.built) == (0, ["a", "b"])
    assert run.reason("a") == "not built before"
    assert run.summary.startswith("engines: 0 reused, 2 built, 0 failed in ")
    for engine in two.engines().values():
        assert sound(engine)
        assert engine.name.endswith("__sm80plus_cu13.0_rtx1.7_fp32.engine")
    left = {path.name for path in two.path("engines").iterdir()}
    assert left == {f"{e.name}{s}" for e in two.engines().values() for s in ("", ".sha256")}


def test_second_run_compiles_nothing_and_touches_nothing(built: Tree) -> None:
    before = built.snapshot("engines", ".trt/receipts")
    run = built.scons()
    assert (run.status, run.built, run.reused) == (0, [], ["a", "b"])
    assert run.summary.startswith("engines: 2 reused, 0 built, 0 failed in ")
    assert built.snapshot("engines", ".trt/receipts") == before
    assert built.scons("-q", "engines").status == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_warm_run_starts_no_process(built: Tree) -> None:
    trace = built.path("trace")
    subprocess.run(
        ["strace", "-f", "-e", "trace=execve,vfork,fork", "-o", trace, *built.command("engines")],
        cwd=built.root,
        env=built.env(),
        check=True,
        capture_output=True,
    )
    calls = [line for line in trace.read_text().splitlines() if "exec" in line or "fork" in line]
    assert len([line for line in calls if "= 0" in line]) == 1, calls  # scons itself


def test_lost_sconsign_compiles_nothing(built: Tree) -> None:
    before = built.snapshot()
    built.path(".sconsign.dblite").unlink()
    run = built.scons()
    assert (run.status, run.built, run.reused) == (0, [], ["a", "b"])
    assert built.snapshot() == before


def test_second_clone_with_engines_and_state_compiles_nothing(built: Tree, tmp_path) -> None:
    clone = built.copy(tmp_path / "clone", "models", "SConstruct", "engines", ".trt")
    run = clone.scons()
    assert (run.status, run.built, run.reused) == (0, [], ["a", "b"])
    assert clone.scons("-q", "engines").status == 0


def test_lost_state_folder_reuses_nothing_wrongly(built: Tree) -> None:
    shutil.rmtree(built.path(".trt"))
    run = built.scons()
    assert (run.status, run.built) == (0, ["a", "b"])
    assert run.reason("a") == "the engine has no receipt"


def test_lost_state_and_swapped_engines_are_not_called_current(built: Tree) -> None:
    shutil.rmtree(built.path(".trt"))
    first, second = built.engine("a").read_bytes(), built.engine("b").read_bytes()
    built.engine("a").write_bytes(second)
    built.engine("b").write_bytes(first)
    run = built.scons()
    assert run.built == ["a", "b"]
    assert built.engine("a").read_bytes() == first


def test_touching_the_model_rebuilds_nothing(built: Tree) -> None:
    built.path("models/a.onnx").touch()
    assert built.scons().built == []


def test_full_verification_reuses_too(built: Tree) -> None:
    run = built.scons("engines", "VERIFY=full")
    assert (run.status, run.reused) == (0, ["a", "b"])
    assert built.scons(TRT_VERIFY="full").reused == ["a", "b"]


def test_events_tell_the_same_as_the_lines(built: Tree) -> None:
    built.scons()
    events = built.events()
    assert [e["event"] for e in events] == [
        "engine.cache.miss",
        "engine.cache.miss",
        "engine.compile.summary",
        "engine.cache.hit",
        "engine.cache.hit",
        "engine.compile.summary",
    ]
    miss, hit = events[0], events[3]
    assert (miss["model_name"], miss["outcome"], miss["reason"]) == ("a", "built", "new")
    assert miss["compile_duration_s"] > 0
    assert (hit["outcome"], hit["compile_duration_s"], hit["error_class"]) == ("reused", None, None)
    assert (events[2]["built"], events[5]["reused"]) == (2, 2)


def test_receipt_tells_what_it_was_made_from(built: Tree) -> None:
    receipt = built.receipt("a")
    assert receipt["schema"] == 1
    assert receipt["reproducible"] is True
    assert receipt["inputs"] == [
        {"role": "onnx", "name": "models/a.onnx", "sha256": sha256(built.path("models/a.onnx"))}
    ]
    assert receipt["size"] == built.engine("a").stat().st_size
    assert receipt["peak_memory_bytes"] > 1 << 20
    assert str(built.root) not in json.dumps(receipt)


def test_no_engine_declared_counts_zero(tree: Tree) -> None:
    tree.write("")
    tree.path("engines").mkdir()
    run = tree.scons()
    assert run.status == 0
    assert run.summary.startswith("engines: 0 reused, 0 built, 0 failed in ")


def test_a_consumer_of_an_engine_is_up_to_date_too(two: Tree) -> None:
    two.write(
        """
        a = env.Engine("a", "models/a.onnx")
        env.Command("image", a, Copy("$TARGET", "$SOURCE"))
        """
    )
    assert two.scons("image").status == 0
    assert two.scons("-q", "image").status == 0
    two.path(".sconsign.dblite").unlink()
    two.scons("image")
    assert two.path("image").read_bytes() == two.engine("a").read_bytes()


def test_unrelated_targets_do_not_touch_engines(two: Tree) -> None:
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("hello", [], "echo hi > $TARGET")
        """
    )
    run = two.scons("hello")
    assert run.status == 0
    assert "engines:" not in run.out
    assert not two.path("engines").exists()


def test_the_example_in_this_repo_uses_the_in_tree_door(tmp_path) -> None:
    tree = Tree(tmp_path / "tree")
    tree.path("site_scons").symlink_to(REPO / "site_scons")
    make_model(tree.path("models/a.onnx"))
    tree.write('env = Environment(tools=["trt_engines"])\nenv.Engine("a", "models/a.onnx")\n', header="")
    run = tree.scons("engines", PYTHONPATH="")
    assert (run.status, run.built) == (0, ["a"])


def test_an_engine_of_many_megabytes_is_streamed_to_disk(tree: Tree) -> None:
    """Below 64 MiB the engine is written from memory; the rest of the tests are there."""
    model = make_model(tree.path("models/a.onnx"), shape=(1, 8, 8, 8), width=256, depth=32)
    assert model.stat().st_size > 64 << 20
    tree.write('env.Engine("a", "models/a.onnx")')
    run = tree.scons()
    assert run.built == ["a"], run.out
    assert sound(tree.engine("a"))
    assert tree.engine("a").stat().st_size > 64 << 20
