"""By which path a state folder outside names the files of a tree."""

import json
import os

import pytest

from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.artifact.tree_paths import hash_of, known_as, register


@pytest.fixture
def paths(tmp_path):
    """Two paths of one tree."""
    (tmp_path / "b").mkdir()
    (tmp_path / "state").mkdir()
    os.symlink("b", tmp_path / "a")
    return tmp_path / "state", tmp_path / "a", tmp_path / "b"


def test_one_tree_has_one_lock_under_two_paths(paths):
    root, one, two = paths
    StateFolder(root, two).register()
    locks = {StateFolder(root, top).lock(top / "engines/x.engine") for top in (one, two)}
    assert len(locks) == 1


def test_first_runs_that_began_at_once_agree_in_the_next(paths):
    root, one, two = paths
    register(root, one, one)
    register(root, two, two)
    assert known_as(root, one) == known_as(root, two)


def test_an_engine_outside_of_its_tree_keeps_its_lock(paths, tmp_path):
    root, one, two = paths
    engine = tmp_path / "elsewhere/x.engine"
    StateFolder(root, two).register()
    assert {StateFolder(root, top).path_id(engine) for top in (one, two)} == {hash_of(engine)}


def test_the_first_path_names_files_as_an_earlier_version_did(paths):
    root, _, two = paths
    StateFolder(root, two).register()
    assert StateFolder(root, two).onnx == root / "onnx" / hash_of(two)
    assert StateFolder(root, two).path_id(two / "engines/x") == hash_of(two / "engines/x")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"as": 1, "tree": [], "past": []}', "[" * 100_000])
def test_a_damaged_record_counts_as_none(paths, text):
    root, _, two = paths
    StateFolder(root, two).register()
    (root / "trees" / f"{hash_of(two)}.json").write_text(text)
    assert known_as(root, two) == two
    StateFolder(root, two).register()
    assert json.loads((root / "trees" / f"{hash_of(two)}.json").read_text())["as"] == str(two)


def test_reading_registers_nothing(paths):
    root, one, _ = paths
    state = StateFolder(root, one)
    assert state.declared.parent == root / "declared"
    assert not (root / "trees").exists()
