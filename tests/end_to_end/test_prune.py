"""`scons engines-prune`: what nobody wants is listed, removed when that is asked for; nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, hardware, make_model, sha256

ALL = """
env.Engine("a", "models/a.onnx")
env.Engine("b", "models/b.onnx")
"""
ONE = 'env.Engine("a", "models/a.onnx")'


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Two engines on each of two boards, built once by a stand-in."""
    tree = Tree(tmp_path_factory.mktemp("origin") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    tree.write(ALL)
    hardware(tree.path("hardware/orin_nx.json"))
    hardware(tree.path("hardware/agx_orin.json"), sm_count=16, memory_gib=64)
    tree.environment["TRT_PYTHON"] = str(fake_compiler(tree.path("fake")))
    tree.environment["TRT_HARDWARE"] = "orin_nx"
    assert tree.scons("engines", "HARDWARE=orin_nx,agx_orin").status == 0
    return tree


@pytest.fixture
def boards(origin: Tree, tmp_path: Path) -> Tree:
    """A clone of it in which b is declared no more."""
    tree = origin.copy(tmp_path / "clone", "models", "hardware", "fake", "engines", ".trt")
    tree.write(ONE)
    return tree


def traces(tree: Tree, word: str) -> list[str]:
    """Files of the tree, and rows of the memo, whose name holds `word`."""
    files = [str(p.relative_to(tree.root)) for p in tree.root.rglob("*") if word in p.name]
    digest_cache = json.loads(tree.path(".trt/digests.json").read_text())["files"]
    return sorted(files) + sorted(f"memo: {name}" for name in digest_cache if word in name)


def listed(run) -> list[str]:
    return sorted(line.split()[2] for line in run.lines("WOULD PRUNE"))


B = [
    "engines/agx_orin/b__sm87_jp6.2_trt10.3_fp32.engine",
    "engines/orin_nx/b__sm87_jp6.2_trt10.3_fp32.engine",
]


def test_it_lists_first_and_removes_all_traces_when_asked(boards: Tree) -> None:
    before = boards.snapshot("engines", ".trt/receipts")
    run = boards.scons("engines-prune")
    assert (run.status, listed(run)) == (0, B)
    assert "engines: 2 to prune, " in run.out
    assert "PRUNE=yes removes them" in run.out
    assert boards.snapshot("engines", ".trt/receipts") == before
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert (run.status, run.names("PRUNED")) == (0, ["b", "b"])
    assert traces(boards, "b__") == []
    assert boards.scons("engines", "HARDWARE=orin_nx,agx_orin").reused == ["a", "a"]
    assert boards.scons("engines-prune").lines("WOULD PRUNE") == []


def test_dry_run_only_lists(boards: Tree) -> None:
    before = boards.snapshot(".")
    run = boards.scons("-n", "engines-prune", "PRUNE=yes")
    assert (run.status, listed(run)) == (0, B)
    assert boards.snapshot(".") == before


def test_a_board_that_has_no_hardware_file_any_more_wants_nothing(boards: Tree) -> None:
    boards.write(ALL)
    boards.path("hardware/agx_orin.json").unlink()
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert run.names("PRUNED") == ["a", "b"]
    assert "no hardware has the name agx_orin" in run.out
    assert sorted(p.name for p in boards.path("engines").iterdir()) == ["agx_orin", "orin_nx"]
    assert not list(boards.path("engines/agx_orin").iterdir())
    # The same filenames: receipts of the other board's stay.
    assert boards.scons("engines").reused == ["a", "b"]


def test_an_older_tensorrts_engines_go_and_the_current_ones_stay(boards: Tree) -> None:
    boards.write(ALL)
    boards.path("fake/python").unlink()
    new = fake_compiler(boards.path("fake"), version="10.7.0.23")
    hardware(boards.path("hardware/orin_nx.json"), runtime_version="10.7.0.23")
    assert boards.scons("engines", TRT_PYTHON=str(new)).built == ["a", "b"]
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert run.names("PRUNED") == ["a", "b"]
    assert all("trt10.3" in line and "/orin_nx/" in line for line in run.lines("PRUNED"))
    assert boards.scons("engines").reused == ["a", "b"]
    assert boards.scons("engines", "HARDWARE=agx_orin").reused == ["a", "b"]


def test_a_wanted_engine_stays_even_if_it_is_not_right(boards: Tree) -> None:
    for engine in boards.path("engines").rglob("a__*.engine"):
        engine.write_bytes(b"tampered")
    make_model(boards.path("models/a.onnx"), seed=9)
    assert not any("a__" in line for line in boards.scons("engines-prune").lines("WOULD PRUNE"))


def test_hardware_whose_runtime_is_not_known_here_keeps_its_folder(boards: Tree) -> None:
    fields = json.loads(boards.path("hardware/agx_orin.json").read_text())
    del fields["runtime_version"]
    boards.path("hardware/agx_orin.json").write_text(json.dumps(fields))
    run = boards.scons("engines-prune", TRT_PYTHON="/no/such/python")
    assert "engines/agx_orin/ is kept: the engines for agx_orin are unknown" in run.out
    assert listed(run) == B[1:]


def test_what_no_receipt_knows_is_told_and_kept(boards: Tree) -> None:
    stray = boards.path("engines/orin_nx/stray__sm87_jp6.2_trt10.3_fp32.engine")
    stray.write_bytes(b"x")
    boards.path("engines/orin_nx/notes.txt").write_bytes(b"x")
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert "no receipt matches it" in run.out
    assert stray.exists()
    assert boards.path("engines/orin_nx/notes.txt").exists()


def test_keep_and_older_hold_back(boards: Tree) -> None:
    run = boards.scons("engines-prune", "KEEP=1")
    assert (run.lines("WOULD PRUNE"), "2 kept by KEEP= or OLDER=" in run.out) == ([], True)
    assert boards.scons("engines-prune", "OLDER=1").lines("WOULD PRUNE") == []
    old = time.time() - 40 * 86400
    for path in boards.path("engines/orin_nx").glob("b__*"):
        os.utime(path, (old, old))
    assert listed(boards.scons("engines-prune", "OLDER=30")) == B[1:]
    assert boards.scons("engines-prune", "OLDER=30", "KEEP=1").lines("WOULD PRUNE") == []


@pytest.mark.parametrize("argument", ["KEEP=x", "KEEP=0.5", "OLDER=-1", "OLDER=nan", "PRUNE=maybe"])
def test_a_wrong_argument_is_one_line(boards: Tree, argument: str) -> None:
    run = boards.scons("engines-prune", argument)
    assert run.status == 2
    assert f"{argument}: write" in run.out
    assert not run.lines("PRUNED")


def test_without_a_declared_engine_nothing_tells_what_is_wanted(boards: Tree) -> None:
    boards.write("")
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert run.status == 2
    assert "no engine is declared" in run.out
    assert len(list(boards.path("engines").rglob("*.engine"))) == 4


def test_receipts_of_engines_that_are_gone_go_when_nobody_declares_them(boards: Tree) -> None:
    boards.write(ALL)
    assert boards.scons("-c", "engines", "HARDWARE=orin_nx,agx_orin").status == 0
    assert boards.scons("engines-prune").lines("WOULD PRUNE") == []  # they may come back
    boards.write(ONE)
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert len(run.lines("PRUNED")) == 1
    assert "its engine is gone and not declared" in run.out
    assert traces(boards, "b__") == []
    assert traces(boards, "a__")


def test_what_another_process_is_at_work_on_is_left(boards: Tree) -> None:
    import fcntl

    (lock,) = (p for p in boards.path(".trt/locks").glob("b__*.lock") if p.exists() and _is_of(boards, p))
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = boards.scons("engines-prune", "PRUNE=yes")
    assert run.status == 2
    assert len(run.lines("FAILED")) == 1
    assert "it is not removed: " in run.lines("FAILED")[0]
    assert [str(p.relative_to(boards.root)) for p in boards.path("engines").rglob("b__*.engine")] == B[1:]
    assert boards.scons("engines-prune", "PRUNE=yes").status == 0


def _is_of(tree: Tree, lock: Path) -> bool:
    from scons_tensorrt.artifact.state_folder import StateFolder

    return lock == StateFolder(tree.path(".trt"), tree.root).lock(tree.path(B[1]))


def test_files_made_for_models_that_are_gone_go_and_those_of_declared_ones_stay(boards: Tree) -> None:
    from scons_tensorrt.artifact.cache_key import make_key
    from scons_tensorrt.artifact.receipt import Receipt
    from scons_tensorrt.artifact.state_folder import StateFolder

    boards.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    folder = boards.path(".trt/onnx")
    folder.mkdir(exist_ok=True)
    book = StateFolder(boards.path(".trt"), boards.root).receipts
    for name in ("a.fp16.onnx", "a.fp16.onnx.data", "a.int8.onnx", "b.fp16.onnx", "b.fp16.onnx.data"):
        (folder / name).write_bytes(name.encode())
        details = {"data_sha256": sha256(folder / name)}
        onnx = name.removesuffix(".data")
        size = (folder / onnx).stat().st_size
        book.put(Receipt(onnx, make_key(onnx, {}), sha256(folder / onnx), size, {}, details))
    (folder / "foreign.onnx").write_bytes(b"not made here")
    (folder / "a.int4.onnx").symlink_to("foreign.onnx")
    boards.path(".trt/calibration").mkdir()
    cache = boards.path(".trt/calibration/b.0123456789abcdef.cache")
    cache.write_bytes(b"x")
    cache.with_name("b.0123456789abcdef.cache.sha256").write_text(sha256(cache))
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.fp16.onnx",
        "a.fp16.onnx.data",
        "a.int4.onnx",
        "foreign.onnx",
    ]
    assert ".trt/onnx/foreign.onnx is kept: no receipt matches it" in run.out
    assert not list(boards.path(".trt/calibration").iterdir())


def test_a_folder_of_the_state_that_is_a_link_is_not_looked_into(boards: Tree, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "old.onnx").write_bytes(b"x")
    boards.path(".trt/onnx").symlink_to(treasure)
    assert boards.scons("engines-prune", "PRUNE=yes").status == 0
    assert (treasure / "old.onnx").exists()


def test_a_foreign_engine_under_a_name_that_was_built_here_is_kept(boards: Tree) -> None:
    engine = boards.path(B[1])
    engine.write_bytes(b"somebody put it here")
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert f"{B[1]} is kept: no receipt matches it" in run.out
    assert engine.read_bytes() == b"somebody put it here"


def test_a_first_run_that_only_reuses_declares_its_engines_before_it_says_so(
    boards: Tree, tmp_path: Path
) -> None:
    state = tmp_path / "shared"
    boards.environment["TRT_STATE_DIR"] = str(state)
    boards.environment["TRT_ENGINE_DIR"] = str(tmp_path / "engines")
    boards.write(ALL)
    assert boards.scons("engines").status == 0
    other = boards.copy(tmp_path / "other", "models", "hardware", "fake")
    # Looks at its own declaration when the run checks its first engine.
    other.write(
        """
        import glob
        from scons_tensorrt.scons_tool import engine_target
        check = engine_target.check_up_to_date
        def watched(*given):
            print("DECLARED", len(glob.glob(STATE + "/declared/*.json")))
            return check(*given)
        engine_target.check_up_to_date = watched
        env.Engine("b", "models/b.onnx")
        """.replace("STATE", repr(str(state)))
    )
    run = other.scons("engines")
    assert run.reused == ["b"], run.out
    assert "DECLARED 2" in run.out


def test_what_another_tree_builds_just_now_is_not_removed(boards: Tree, tmp_path: Path) -> None:
    """It is declared before its first compile, not when the run ends."""
    state = tmp_path / "shared"
    boards.environment["TRT_STATE_DIR"] = str(state)
    boards.environment["TRT_ENGINE_DIR"] = str(tmp_path / "engines")
    boards.write(ONE)
    assert boards.scons("engines").status == 0
    other = boards.copy(tmp_path / "other", "models", "hardware")
    ready, go = tmp_path / "ready", tmp_path / "go"
    act = f"""
import pathlib
data = write()
if "b" in job["recipe"]["model"] if "model" in job["recipe"] else True:
    pathlib.Path({str(ready)!r}).touch()
    while not pathlib.Path({str(go)!r}).exists():
        time.sleep(0.02)
done(data)
"""
    other.environment["TRT_PYTHON"] = str(fake_compiler(tmp_path / "slow", act))
    other.write('env.Engine("b", "models/b.onnx")')
    building = other.start("engines")
    try:
        while not ready.exists() and building.poll() is None:
            time.sleep(0.05)
        declared = [p for p in (state / "declared").glob("*.json") if "b__" in p.read_text()]
        assert declared
    finally:
        go.touch()
        building.communicate(timeout=60)
    assert building.returncode == 0
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert not run.names("PRUNED")
    assert other.scons("engines").reused == ["b"]


def test_of_the_default_hosts_folder_another_hosts_engines_are_kept(two: Tree) -> None:
    """engines/ of a clone may hold a probed board's, which only the board can make again."""
    from scons_tensorrt.artifact.cache_key import make_key
    from scons_tensorrt.artifact.receipt import Receipt
    from scons_tensorrt.artifact.state_folder import StateFolder

    assert two.scons().status == 0
    book = StateFolder(two.path(".trt"), two.root).receipts
    for name in ("a__sm87_jp6.2_trt10.3_fp32.engine", "a__sm80plus_cu12.0_rtx1.6_fp32.engine"):
        two.path(f"engines/{name}").write_bytes(b"x")
        book.put(Receipt(name, make_key(name, {}), sha256(two.path(f"engines/{name}")), 1, {}, {}))
    run = two.scons("engines-prune", "PRUNE=yes")
    assert "engines/a__sm87_jp6.2_trt10.3_fp32.engine is kept: another host may need it" in run.out
    assert [line.split()[1] for line in run.lines("PRUNED")] == [
        "engines/a__sm80plus_cu12.0_rtx1.6_fp32.engine"
    ]
    assert two.scons().reused == ["a", "b"]


def test_another_trees_engines_in_a_shared_state_folder_are_its_own(boards: Tree, tmp_path: Path) -> None:
    state = tmp_path / "shared"
    boards.environment["TRT_STATE_DIR"] = str(state)
    boards.write(ALL)
    other = boards.copy(tmp_path / "other", "SConstruct", "models", "hardware")
    for tree in (boards, other):
        assert tree.scons("engines").status == 0
    boards.write(ONE)
    run = boards.scons("engines-prune", "PRUNE=yes")
    # What was copied here with engines/ has a name that was built here; no receipt is of its bytes.
    assert run.names("PRUNED") == ["b"]
    assert "engines/agx_orin/b__sm87_jp6.2_trt10.3_fp32.engine is kept" in run.out
    assert other.scons("engines").reused == ["a", "b"]


def test_a_copy_of_an_engine_without_its_sidecar_is_removed_after_the_engine(boards: Tree) -> None:
    """Its receipts, by which it is known as built here, stay until nothing of its bytes is left."""
    for name in ("mine", "zone"):  # before and after the folder of the board
        boards.path(f"engines/{name}").mkdir()
        copy = boards.path(f"engines/{name}/{Path(B[1]).name}")
        copy.write_bytes(boards.path(B[1]).read_bytes())
    run = boards.scons("engines-prune", "PRUNE=yes")
    assert (run.status, len(run.lines("PRUNED"))) == (0, 4), run.out
    assert not list(boards.path("engines").rglob("b__*"))
    assert not list(boards.path(".trt/receipts").glob("b__*"))
