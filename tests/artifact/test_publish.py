"""Publishing: whatever is cut off leaves nothing, the old pair, or what a later run finishes.

A crash is a Publication that nobody speaks to any more; a new one, as a later run makes it,
then judges what is on disk. Each test runs with the state folder on the engine's filesystem
and on another one.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from scons_tensorrt.artifact import publish
from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.publish import Publication
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.sidecar import sidecar_of
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.artifact.verify_pair import fault_of
from scons_tensorrt.errors import PublishError
from scons_tensorrt.files import digest_cache
from scons_tensorrt.files.reading import open_file

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
OLD, NEW = b"old engine" * 50, b"new engine, longer" * 70
SHM = Path("/dev/shm")


class Site:
    """A tree with its state folder, and what a run does there."""

    def __init__(self, top, root):
        self.state = StateFolder(root, top)
        self.engine = top / "engines" / NAME

    def receipt(self, data):
        ingredients = {"input onnx": hashlib.sha256(b"of " + data).hexdigest()}
        key = make_key(NAME, ingredients)
        return Receipt(NAME, key, hashlib.sha256(data).hexdigest(), len(data), ingredients, {})

    def publication(self, data):
        return Publication(self.state, self.engine, self.receipt(data).key)

    def compile(self, data, upto="finish"):
        """Compile and publish `data`, up to and with a step."""
        publication = self.publication(data)
        publication.open().write_bytes(data)
        if upto == "write":
            return publication
        publication.commit(self.receipt(data), self.state.receipts)
        if upto == "commit":
            return publication
        publication.finish()
        return publication

    def pending(self, data):
        return self.publication(data).pending(self.receipt(data))

    def recover(self, data):
        """As the next run does: finish what the receipt says is unfinished."""
        publication = self.publication(data)
        assert publication.pending(self.receipt(data))
        publication.finish()

    def pair(self):
        """The engine and what its sidecar says, None for what is missing."""
        side = sidecar_of(self.engine)
        return (
            self.engine.read_bytes() if self.engine.exists() else None,
            side.read_text() if side.exists() else None,
        )

    def holds(self, data):
        return self.pair() == (data, hashlib.sha256(data).hexdigest())

    def leftovers(self):
        """All that lies about of unfinished publishing, in the state folder and beside the engine."""
        inside = [p for p in (self.state.root / "partial").rglob("*") if p.is_file()]
        beside = [p for p in self.engine.parent.iterdir() if p.name.startswith(".")]
        return inside + beside

    def partial(self, suffix):
        return next(p for p in self.leftovers() if suffix in p.name)


@pytest.fixture
def here(tmp_path):
    """The state folder on the engine's filesystem."""
    return Site(tmp_path, tmp_path / ".trt")


@pytest.fixture
def there(tmp_path):
    """The state folder on another filesystem."""
    if not SHM.is_dir() or SHM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem here")
    root = Path(tempfile.mkdtemp(dir=SHM))
    yield Site(tmp_path, root)
    shutil.rmtree(root)


@pytest.fixture(params=["here", "there"])
def site(request):
    return request.getfixturevalue(request.param)


def cut_at(monkeypatch, turn):
    """Make the turn-th rename from now on fail, and all after it, as a crash would."""
    real, count = os.replace, iter(range(1, 1000))

    def replace(source, target):
        if next(count) >= turn:
            raise OSError(5, "Input/output error", str(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def crash_at(monkeypatch, turn, publication):
    """Finish as far as before the turn-th rename."""
    with monkeypatch.context() as patch:
        cut_at(patch, turn)
        with pytest.raises(PublishError):
            publication.finish()


def test_a_published_engine_is_at_its_place_with_its_sidecar(site):
    site.compile(NEW)
    assert site.holds(NEW)
    assert fault_of(site.engine) is None


def test_the_sidecar_is_exactly_64_characters(site):
    site.compile(NEW)
    assert len(sidecar_of(site.engine).read_bytes()) == 64


def test_publishing_leaves_nothing_behind(site):
    site.compile(NEW)
    assert site.leftovers() == []
    assert sorted(p.name for p in site.engine.parent.iterdir()) == [NAME, f"{NAME}.sha256"]


def test_publishing_leaves_no_empty_folder_in_the_state(site):
    site.compile(NEW)
    assert not site.state.partial(site.engine).exists()


def test_a_published_engine_has_its_receipt(site):
    site.compile(NEW)
    assert site.state.receipts.of_key(NAME, site.receipt(NEW).key) == [site.receipt(NEW)]


def test_a_published_engine_is_not_pending(site):
    site.compile(NEW)
    assert not site.pending(NEW)


def test_a_new_engine_replaces_the_old_pair(site):
    site.compile(OLD)
    site.compile(NEW)
    assert site.holds(NEW)


def test_while_it_compiles_the_old_pair_stands(site):
    site.compile(OLD)
    site.compile(NEW, upto="write")
    assert site.holds(OLD)


def test_an_engine_on_its_way_is_not_under_an_engines_name(site):
    site.compile(NEW, upto="write")
    assert list(site.engine.parent.glob("*.engine")) == []
    assert not any(p.name.endswith(".engine") for p in site.engine.parent.iterdir())


def test_where_a_rename_reaches_the_engine_the_way_leads_through_the_state_folder(here):
    assert here.state.root in here.publication(NEW).open().parents


def test_where_it_does_not_the_way_leads_past_a_dotfile_beside_the_engine(there):
    place = there.publication(NEW).open()
    assert place.parent == there.engine.parent
    assert place.name.startswith(".")


# Cut off before the commit: nothing happened.


def test_cut_off_while_it_compiles_nothing_is_pending(site):
    site.compile(NEW[:100], upto="write")
    assert not site.pending(NEW)
    assert site.pair() == (None, None)


def test_cut_off_before_the_receipt_nothing_is_pending_though_all_bytes_are_there(site):
    site.compile(NEW, upto="write")
    assert not site.pending(NEW)


def test_a_receipt_that_cannot_be_written_commits_nothing(site):
    site.compile(OLD)
    publication = site.compile(NEW, upto="write")
    folder = site.state.receipts.path(site.receipt(NEW)).parent
    shutil.rmtree(folder)
    folder.write_bytes(b"a file where the folder should be")
    with pytest.raises(PublishError):
        publication.commit(site.receipt(NEW), site.state.receipts)
    assert site.holds(OLD)


def test_an_engine_that_is_gone_cannot_be_committed(site):
    publication = site.publication(NEW)
    publication.open().unlink(missing_ok=True)
    with pytest.raises(PublishError):
        publication.commit(site.receipt(NEW), site.state.receipts)
    assert site.state.receipts.of_key(NAME, site.receipt(NEW).key) == []


# Cut off after the commit: a later run finishes it.


def test_cut_off_after_the_commit_the_old_pair_stands_and_the_new_is_pending(site):
    site.compile(OLD)
    site.compile(NEW, upto="commit")
    assert site.holds(OLD)
    assert site.pending(NEW)


def test_cut_off_after_the_commit_a_later_run_finishes(site):
    site.compile(OLD)
    site.compile(NEW, upto="commit")
    site.recover(NEW)
    assert site.holds(NEW)
    assert site.leftovers() == []
    assert not site.pending(NEW)


def test_a_first_engine_cut_off_after_the_commit_is_finished(site):
    site.compile(NEW, upto="commit")
    site.recover(NEW)
    assert site.holds(NEW)


def test_cut_off_before_the_first_rename_the_new_is_pending(site, monkeypatch):
    site.compile(OLD)
    publication = site.compile(NEW, upto="commit")
    crash_at(monkeypatch, 1, publication)
    assert site.holds(OLD)
    site.recover(NEW)
    assert site.holds(NEW)


def test_cut_off_between_the_renames_the_pair_disagrees_and_the_new_is_pending(site, monkeypatch):
    site.compile(OLD)
    publication = site.compile(NEW, upto="commit")
    crash_at(monkeypatch, 2, publication)
    assert site.pair() == (NEW, hashlib.sha256(OLD).hexdigest())
    assert fault_of(site.engine) is not None
    assert site.pending(NEW)


def test_cut_off_between_the_renames_a_later_run_finishes(site, monkeypatch):
    site.compile(OLD)
    publication = site.compile(NEW, upto="commit")
    crash_at(monkeypatch, 2, publication)
    site.recover(NEW)
    assert site.holds(NEW)
    assert site.leftovers() == []


def test_cut_off_between_the_renames_the_old_is_not_pending(site, monkeypatch):
    site.compile(OLD)
    publication = site.compile(NEW, upto="commit")
    crash_at(monkeypatch, 2, publication)
    assert not site.pending(OLD)


def test_the_error_of_a_rename_says_where_and_what_to_do(site, monkeypatch):
    publication = site.compile(NEW, upto="commit")
    cut_at(monkeypatch, 1)
    with pytest.raises(PublishError, match=r"Input/output error; make room"):
        publication.finish()


def test_finishing_twice_over_a_crash_is_finishing_once(site, monkeypatch):
    publication = site.compile(NEW, upto="commit")
    for turn in (1, 2):
        crash_at(monkeypatch, turn, publication)
    site.recover(NEW)
    assert site.holds(NEW)


def test_a_folder_of_engines_that_was_removed_meanwhile_is_made_again(here):
    publication = here.compile(NEW, upto="commit")
    here.engine.parent.rmdir()
    publication.finish()
    assert here.holds(NEW)


# What is pending is proven by bytes, not by names.


def test_a_committed_engine_that_was_tampered_with_is_not_pending(site):
    site.compile(NEW, upto="commit")
    data = bytearray(NEW)
    data[5] ^= 1
    site.partial(".engine").write_bytes(data)
    assert not site.pending(NEW)


def test_a_committed_engine_that_was_cut_is_not_pending(site):
    site.compile(NEW, upto="commit")
    site.partial(".engine").write_bytes(NEW[:-1])
    assert not site.pending(NEW)


def test_a_committed_engine_that_is_gone_is_not_pending(site):
    site.compile(NEW, upto="commit")
    site.partial(".engine").unlink()
    assert not site.pending(NEW)


@pytest.mark.parametrize("text", [b"", b"0" * 64, b"\xff" * 64], ids=["empty", "other", "garbage"])
def test_a_committed_sidecar_that_is_another_is_not_pending(site, text):
    site.compile(NEW, upto="commit")
    site.partial(".sha256").write_bytes(text)
    assert not site.pending(NEW)


def test_a_tampered_engine_is_not_taken_for_unfinished_publishing(site):
    site.compile(NEW)
    site.engine.write_bytes(OLD)
    assert not site.pending(NEW)


def test_a_missing_sidecar_is_not_taken_for_unfinished_publishing(site):
    site.compile(NEW)
    sidecar_of(site.engine).unlink()
    assert not site.pending(NEW)


@pytest.mark.parametrize("suffix", [".engine", ".sha256"])
def test_what_cannot_be_read_is_not_taken_for_finished(site, monkeypatch, suffix):
    """A failing disk: taken for finished, the engine would be compiled again."""
    site.compile(NEW, upto="commit")
    broken = site.partial(suffix)

    def refuse(path, follow=True):
        if os.fspath(path) == os.fspath(broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return open_file(path, follow)

    monkeypatch.setattr(publish, "open_file", refuse)
    monkeypatch.setattr(digest_cache, "open_file", refuse)
    with pytest.raises(PublishError, match=r"Input/output error; make room or"):
        site.pending(NEW)


@pytest.mark.parametrize("suffix", [".engine", ".sha256"])
def test_a_link_among_the_temporaries_is_none_of_ours(site, tmp_path, suffix):
    site.compile(NEW, upto="commit")
    path = site.partial(suffix)
    os.replace(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not site.pending(NEW)


def test_finishing_never_moves_other_bytes_over_the_right_ones(site):
    site.compile(NEW, upto="commit")
    site.engine.write_bytes(NEW)
    site.partial(".engine").write_bytes(b"half")
    if site.pending(NEW):
        site.recover(NEW)
    assert site.pair()[0] == NEW


# Leftovers.


def test_the_next_compile_sweeps_what_an_abandoned_one_left(site):
    site.compile(OLD, upto="write")
    site.compile(NEW)
    assert site.leftovers() == []


def test_sweeping_keeps_what_a_receipt_vouches_for(site):
    site.compile(OLD, upto="commit")
    site.compile(NEW)
    assert site.holds(NEW)
    assert site.pending(OLD)


def test_what_was_kept_can_be_finished_after_the_model_was_reverted(site):
    site.compile(OLD, upto="commit")
    site.compile(NEW)
    site.recover(OLD)
    assert site.holds(OLD)


def test_sweeping_keeps_another_engines_leftovers(site):
    other = Site(site.state.top, site.state.root)
    other.engine = site.engine.with_name("b" + NAME)
    other.compile(OLD, upto="write")
    site.compile(NEW)
    assert len(other.leftovers()) == 1


def test_sweeping_keeps_published_engines_beside_it(site):
    site.compile(OLD)
    neighbour = site.engine.with_name("b" + NAME)
    neighbour.write_bytes(b"neighbour")
    site.publication(NEW).open()
    assert site.holds(OLD)
    assert neighbour.read_bytes() == b"neighbour"


def test_sweeping_after_a_reuse_removes_what_a_killed_compile_left(site):
    site.compile(NEW)
    site.compile(OLD[:9], upto="write")
    site.publication(NEW).sweep()
    assert site.leftovers() == []
    assert site.holds(NEW)


def test_sweeping_after_a_reuse_removes_what_a_killed_compile_of_the_same_left(site):
    site.compile(NEW)
    site.compile(NEW[:9], upto="write")
    site.publication(NEW).sweep()
    assert site.leftovers() == []
    assert site.holds(NEW)


def test_sweeping_after_a_reuse_keeps_another_keys_finished_compile(site):
    site.compile(NEW)
    site.compile(OLD, upto="commit")
    site.publication(NEW).sweep()
    assert site.pending(OLD)


def test_the_journal_of_an_engine_that_was_moved_and_replaced_since_goes(site, monkeypatch):
    publication = site.compile(OLD, upto="commit")
    crash_at(monkeypatch, 2, publication)
    site.compile(NEW)
    assert site.holds(NEW)
    assert site.leftovers() == []


def test_two_trees_that_share_a_state_folder_do_not_share_a_way(there, tmp_path_factory):
    other = Site(tmp_path_factory.mktemp("other"), there.state.root)
    there.compile(OLD, upto="commit")
    other.compile(NEW)
    assert not other.pending(OLD)
    assert there.pending(OLD)


def test_a_failed_compile_leaves_nothing_behind(site):
    publication = site.compile(NEW, upto="write")
    publication.abandon()
    assert site.leftovers() == []
    assert not site.state.partial(site.engine).exists()


def test_a_failed_compile_leaves_the_old_pair(site):
    site.compile(OLD)
    site.compile(NEW, upto="write").abandon()
    assert site.holds(OLD)


def test_a_failed_compile_that_wrote_nothing_can_be_abandoned(site):
    publication = site.publication(NEW)
    publication.open()
    publication.abandon()
    assert site.leftovers() == []


def test_abandoning_keeps_another_keys_finished_compile(site):
    site.compile(OLD, upto="commit")
    site.compile(NEW, upto="write").abandon()
    assert site.pending(OLD)


def test_the_same_engine_compiled_again_after_a_crash_is_published(site):
    site.compile(NEW[:100], upto="write")
    site.compile(NEW)
    assert site.holds(NEW)


def test_an_engine_folder_that_is_a_file_is_an_error_with_the_next_step(site):
    site.engine.parent.write_bytes(b"")
    with pytest.raises(PublishError, match=r"engines is not a folder; remove it, or move it away"):
        site.publication(NEW).open()


def test_a_state_folder_that_is_a_file_is_an_error_with_the_next_step(here):
    here.state.root.write_bytes(b"")
    with pytest.raises(PublishError, match=r"\.trt is not a folder; remove it, or move it away"):
        here.publication(NEW).open()


def test_two_engines_of_one_name_in_two_folders_do_not_share_a_way(here):
    other = Site(here.state.top, here.state.root)
    other.engine = here.state.top / "engines" / "orin_nx" / NAME
    assert here.publication(NEW).open() != other.publication(NEW).open()


def test_a_copied_tree_knows_its_unfinished_engine(here, tmp_path_factory):
    here.compile(NEW, upto="commit")
    copy = tmp_path_factory.mktemp("clone") / "tree"
    shutil.copytree(here.state.top, copy)
    clone = Site(copy, copy / ".trt")
    clone.recover(NEW)
    assert clone.holds(NEW)


def test_the_folder_of_engines_is_listed_once_for_each_that_is_published(site, monkeypatch):
    listed, names = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: [listed.append(str(folder)), names(folder)][1])
    site.compile(NEW)
    assert listed.count(str(site.engine.parent)) == 1
