"""Removing is cut off at each of its steps: what is left tells no lie, and the next run ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from handing import A, plan, sha

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.sensitivity_file import keep
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.errors import HandoffError
from scons_tensorrt.files.digest_cache import DigestCache
from scons_tensorrt.release import remove_pruned
from scons_tensorrt.release.prune_candidates import Folder, Item, choose, find
from scons_tensorrt.release.remove_pruned import remove

pytest_plugins = ["handing"]


class Killed(BaseException):
    """As SIGKILL: nothing after it runs."""


def make(top: Path) -> tuple[StateFolder, Path]:
    """A tree with one engine that nobody wants, and everything that stands beside one."""
    state, engine = StateFolder(top / ".trt", top), top / "engines" / A
    engine.parent.mkdir(parents=True)
    engine.write_bytes(plan(b"x"))
    Path(f"{engine}.sha256").write_text(sha(plan(b"x")))
    ingredients = {"option precision": "fp16"}
    receipt = Receipt(A, make_key(A, ingredients), sha(plan(b"x")), 65, ingredients, {})
    state.receipts.put(receipt)
    for path in (state.lock(engine), state.log(engine), state.partial(engine) / "x.engine"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return state, engine


def left(top: Path) -> list[Path]:
    return sorted(path for path in top.rglob("*") if path.is_file())


def run(state: StateFolder, engine: Path) -> None:
    folder = Folder(engine.parent, frozenset(), "nobody wants it")
    digest_cache = DigestCache(state.digests, state.top)
    items, _ = find(state, [folder], frozenset(), frozenset(), frozenset(), digest_cache)
    for item in items:
        remove(item, state, lambda name: None, digest_cache)


class Steps:
    """Counts what removes anything, and dies at the `at`th."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.count, self._at = 0, at
        for owner, name in (
            (Path, "unlink"),
            (Path, "rmdir"),
            (remove_pruned, "sync_folder"),
            (remove_pruned, "remove_tree"),
        ):
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, real):
        def call(*arguments, **more):
            self.count += 1
            if self.count == self._at:
                raise Killed
            return real(*arguments, **more)

        return call


def killed_at(at: int, top: Path, patch: pytest.MonkeyPatch) -> bool:
    """Whether a run that was to die at its `at`th step did; what it left is looked at."""
    state, engine = make(top)
    died = False
    with patch.context() as inner:
        Steps(inner, at)
        try:
            run(state, engine)
        except Killed:
            died = True
    sidecar = Path(f"{engine}.sha256")
    if sidecar.exists():
        assert sha(engine.read_bytes()) == sidecar.read_text()
    if engine.exists():  # else nothing would find it again
        assert list(state.receipts.of_file(A))
    run(state, engine)
    assert not engine.exists()
    assert not sidecar.exists()
    assert not list(state.receipts.of_file(A))
    if not died:
        assert left(top) == []
    return died


def test_wherever_it_is_cut_off_nothing_lies_and_the_next_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 1
    while killed_at(at, tmp_path / str(at), monkeypatch):
        at += 1
    assert at > 6


def item(name: str, group: str, age_s: float) -> Item:
    return Item(Path(name), "", (group,), 1, age_s)


def test_the_last_of_each_group_are_kept() -> None:
    items = [item("old", "a", 30), item("new", "a", 10), item("mid", "a", 20), item("other", "b", 99)]
    assert [i.path.name for i in choose(items, 0, 0)] == ["mid", "new", "old", "other"]
    assert [i.path.name for i in choose(items, 1, 0)] == ["mid", "old"]
    assert [i.path.name for i in choose(items, 2, 0)] == ["old"]
    assert [i.path.name for i in choose(items, 0, 25)] == ["old", "other"]


def test_a_link_that_stands_for_an_engine_is_left_alone_with_what_it_leads_to(tmp_path: Path) -> None:
    state, engine = make(tmp_path / "tree")
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    engine.unlink()
    engine.symlink_to(victim)
    run(state, engine)
    assert engine.is_symlink()
    assert victim.read_bytes() == b"mine"


def test_an_engine_that_was_exchanged_before_its_turn_is_left_alone(tmp_path: Path) -> None:
    state, engine = make(tmp_path / "tree")
    digest_cache = DigestCache(state.digests, state.top)
    folder = Folder(engine.parent, frozenset(), "nobody wants it")
    items, _ = find(state, [folder], frozenset(), frozenset(), frozenset(), digest_cache)
    engine.write_bytes(plan(b"fresh"))
    with pytest.raises(HandoffError, match="the file changed meanwhile"):
        remove(items[0], state, lambda name: None, digest_cache)
    assert engine.read_bytes() == plan(b"fresh")


def test_a_lock_without_a_slot_removes_no_other_engines_partial(tmp_path: Path) -> None:
    state, engine = make(tmp_path)
    for file in (engine, Path(f"{engine}.sha256")):
        file.unlink()
    other = state.root / "partial" / "0123456789abcdef" / "half.engine"
    other.parent.mkdir()
    other.write_bytes(b"half")
    (state.root / "locks" / f"{A}..lock").touch()
    run(state, engine)
    assert other.exists()
    assert not list(state.receipts.of_file(A))


def test_only_calibration_caches_with_their_sidecar_are_removed(tmp_path: Path) -> None:
    state, engine = make(tmp_path)
    state.calibration.mkdir()
    there = {
        "x.0123456789abcdef.cache": b"x",
        "x.0123456789abcdef.cache.sha256": sha(b"x").encode(),
        "y.0123456789abcdef.cache.sha256": sha(b"gone").encode(),
        "z.0123456789abcdef.cache": b"other bytes",
        "z.0123456789abcdef.cache.sha256": sha(b"z").encode(),
        "v.0123456789abcdef.cache.sha256": b"no digest",
        "notes.sha256": sha(b"mine").encode(),
        "mine.cache": b"mine",
        "mine.cache.sha256": sha(b"mine").encode(),
    }
    for name, data in there.items():
        (state.calibration / name).write_bytes(data)
    run(state, engine)
    left_there = {path.name for path in state.calibration.iterdir()}
    assert left_there == {name for name in there if not name.startswith(("x.", "y."))}


def test_the_size_decides_before_an_engine_is_read(tmp_path: Path, monkeypatch) -> None:
    state, engine = make(tmp_path)
    with open(engine, "r+b") as file:
        file.truncate(1 << 30)
    monkeypatch.setattr(DigestCache, "sha256", lambda *_, **__: pytest.fail("it was read"))
    run(state, engine)
    assert engine.exists()


def test_figures_of_layers_go_with_their_onnx(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / ".trt", tmp_path)
    onnx, folder = state.onnx / "a.fp16.onnx", state.root / "sensitivity"
    onnx.parent.mkdir(parents=True)
    onnx.write_bytes(b"an ONNX")
    keep(state, sha(b"an ONNX"), {})
    keep(state, sha(b"one that is gone"), {})
    (folder / "notes.txt").write_bytes(b"by hand")
    digest_cache = DigestCache(state.digests, state.top)
    declared = frozenset({("a", "fp16")}), frozenset({onnx}), frozenset[str]()
    items, _ = find(state, [], *declared, digest_cache)
    assert [(item.path.name, item.why) for item in items] == [
        (f"{sha(b'one that is gone')}.json", "the ONNX that it is of is gone")
    ]
    remove(items[0], state, lambda name: None, digest_cache)
    assert sorted(path.name for path in folder.iterdir()) == [f"{sha(b'an ONNX')}.json", "notes.txt"]
    onnx.unlink()
    for item in find(state, [], *declared, digest_cache)[0]:
        remove(item, state, lambda name: None, digest_cache)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
