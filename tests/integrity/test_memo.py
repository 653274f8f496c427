"""The digest memo: believed while a file's stat is unchanged, and never otherwise.

Whether the memo believed is seen by `planted`: the sum it holds is replaced by a false one, so
that an answer from memory and an answer from the bytes differ.
"""

import hashlib
import io
import json
import os
import time

import pytest

from scons_tensorrt.compile.inputs import Inputs
from scons_tensorrt.errors import EngineBuildError
from scons_tensorrt.integrity import memo as module
from scons_tensorrt.integrity.memo import FINE_TICK_NS, DigestMemo, sha256_file, sha256_of

FALSE = "f" * 64


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Shop:
    """A folder with one file, `f`, whose last change is out of the racy window."""

    def __init__(self, top):
        self.top = top
        self.store = top / ".trt" / "digests.json"
        self.file = top / "f"
        self.file.write_bytes(b"first")

    def memo(self, full=False):
        return DigestMemo(self.store, self.top, full)

    def settle(self):
        """Let the file's ctime grow older than the racy window."""
        age = time.time_ns() - self.file.stat().st_ctime_ns
        time.sleep(max(0, 1.3 * FINE_TICK_NS - age) / 1e9)

    def planted(self):
        """Remember `f`, then make the memory false."""
        self.settle()
        memo = self.memo()
        memo.sha256(self.file)
        memo.save()
        saved = json.loads(self.store.read_bytes())
        assert list(saved["files"]) == ["f"]
        saved["files"]["f"]["sha256"] = FALSE
        self.store.write_text(json.dumps(saved))


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_files_sum_is_that_of_its_bytes(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha(data)


def test_a_new_file_is_hashed(shop):
    assert shop.memo().sha256(shop.file) == sha(b"first")


def test_a_missing_file_is_an_os_error(shop):
    with pytest.raises(FileNotFoundError):
        shop.memo().sha256(shop.top / "missing")


def test_a_file_that_was_left_alone_is_believed(shop):
    shop.planted()
    assert shop.memo().sha256(shop.file) == FALSE


def test_a_file_that_was_left_alone_is_believed_in_the_same_run_too(shop, monkeypatch):
    shop.settle()
    memo = shop.memo()
    memo.sha256(shop.file)
    monkeypatch.setattr(module, "sha256_file", lambda path, follow: FALSE)
    assert memo.sha256(shop.file) == sha(b"first")


def test_a_write_is_seen(shop):
    shop.planted()
    shop.file.write_bytes(b"second, longer")
    assert shop.memo().sha256(shop.file) == sha(b"second, longer")


def test_a_same_size_rewrite_with_restored_mtime_is_seen(shop):
    shop.planted()
    before = shop.file.stat()
    shop.file.write_bytes(b"fIrst")
    os.utime(shop.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = shop.file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert shop.memo().sha256(shop.file) == sha(b"fIrst")


def test_another_file_moved_to_its_place_with_its_mtime_is_seen(shop):
    shop.planted()
    before = shop.file.stat()
    other = shop.top / "other"
    other.write_bytes(b"fIrst")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, shop.file)
    assert shop.memo().sha256(shop.file) == sha(b"fIrst")


def test_a_touched_file_is_hashed_and_then_believed_again(shop):
    shop.planted()
    os.utime(shop.file)
    assert shop.memo().sha256(shop.file) == sha(b"first")
    shop.planted()
    assert shop.memo().sha256(shop.file) == FALSE


def test_a_file_changed_a_moment_ago_is_told_but_not_remembered(shop, monkeypatch):
    monkeypatch.setattr(module, "FINE_TICK_NS", 10**12)  # however slow this machine is
    shop.file.write_bytes(b"just now")
    memo = shop.memo()
    assert memo.sha256(shop.file) == sha(b"just now")
    memo.save()
    assert not shop.store.exists()


def test_a_file_changed_again_within_the_racy_window_is_seen_in_one_run(shop):
    memo = shop.memo()
    shop.file.write_bytes(b"one")
    first = memo.sha256(shop.file)
    shop.file.write_bytes(b"two")
    assert (first, memo.sha256(shop.file)) == (sha(b"one"), sha(b"two"))


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(shop, monkeypatch):
    shop.settle()

    def hash_and_change(source):
        digest = sha256_of(source)
        shop.file.write_bytes(b"while it was read")
        return digest

    memo = shop.memo()
    monkeypatch.setattr(module, "sha256_of", hash_and_change)
    memo.sha256(shop.file)
    monkeypatch.undo()
    assert memo.sha256(shop.file) == sha(b"while it was read")


def test_an_mtime_in_the_future_does_not_keep_a_file_from_being_remembered(shop):
    later = time.time_ns() + 10**15
    os.utime(shop.file, ns=(later, later))
    shop.planted()
    assert shop.memo().sha256(shop.file) == FALSE


def test_a_ctime_of_whole_seconds_needs_two_seconds(shop):
    stamp = [1, 2, 3, 5_000_000_000, 5_000_000_000]  # as FAT and old NFS tell it
    assert module._racy(stamp, 6_900_000_000)
    assert not module._racy(stamp, 7_200_000_000)


def test_full_believes_nothing(shop):
    shop.planted()
    assert shop.memo(full=True).sha256(shop.file) == sha(b"first")


def test_full_hashes_a_file_once_a_run(shop, monkeypatch):
    shop.settle()
    hashed = []
    monkeypatch.setattr(module, "sha256_of", lambda source: hashed.append(source) or sha256_of(source))
    memo = shop.memo(full=True)
    memo.sha256(shop.file)
    memo.sha256(shop.file)
    assert len(hashed) == 1


def test_what_full_finds_is_remembered(shop):
    shop.planted()
    memo = shop.memo(full=True)
    memo.sha256(shop.file)
    memo.save()
    assert shop.memo().sha256(shop.file) == sha(b"first")


DAMAGED = [
    b"",  # empty
    b"{",  # cut off
    b"\0" * 64,  # zeros
    b"\xff\xfe\xfd",  # not text
    b"[]",  # not an object
    b"null",  # not an object
    b"{}",  # no schema
    b'{"schema": 2, "files": {}}',  # of a later version
    b'{"schema": 1}',  # no files
    b'{"schema": 1, "files": []}',  # not a map
    b'{"schema": 1, "files": {"f": null}}',  # an entry of nothing
    b'{"schema": 1, "files": {"f": {}}}',  # an entry without fields
    b'{"schema": 1, "files": {"f": {"stat": 1, "sha256": "", "facts": {}}}}',  # no stat
    b'{"schema": 1, "files": {"f": {"stat": [], "sha256": 1, "facts": {}}}}',  # no sum
    b'{"schema": 1, "files": {"f": {"stat": [], "sha256": "", "facts": []}}}',  # no facts
    b"[" * 100_000,  # nested past what Python's parser takes
]


@pytest.mark.parametrize("data", DAMAGED, ids=[repr(d[:60]) for d in DAMAGED])
def test_a_damaged_memo_counts_as_unknown(shop, data):
    shop.settle()
    shop.store.parent.mkdir()
    shop.store.write_bytes(data)
    assert shop.memo().sha256(shop.file) == sha(b"first")


def test_a_damaged_memo_is_mended_by_the_next_save(shop):
    shop.settle()
    shop.store.parent.mkdir()
    shop.store.write_bytes(b"{")
    memo = shop.memo()
    memo.sha256(shop.file)
    memo.save()
    assert list(json.loads(shop.store.read_bytes())["files"]) == ["f"]


def test_nothing_is_written_when_nothing_changed(shop):
    shop.planted()
    before = shop.store.stat().st_mtime_ns, shop.store.stat().st_ino
    memo = shop.memo()
    memo.sha256(shop.file)
    memo.save()
    assert (shop.store.stat().st_mtime_ns, shop.store.stat().st_ino) == before


def test_saving_joins_with_what_another_process_saved(shop):
    (shop.top / "g").write_bytes(b"other")
    shop.settle()
    time.sleep(1.3 * FINE_TICK_NS / 1e9)
    mine, others = shop.memo(), shop.memo()
    mine.sha256(shop.file)
    others.sha256(shop.top / "g")
    others.save()
    mine.save()
    assert sorted(json.loads(shop.store.read_bytes())["files"]) == ["f", "g"]


def test_saving_does_not_undo_what_another_process_learned_meanwhile(shop):
    shop.planted()
    (shop.top / "g").write_bytes(b"other")
    shop.settle()
    mine = shop.memo()  # has read an old entry of f, and does not ask for f
    shop.file.write_bytes(b"newer")
    shop.settle()
    others = shop.memo()
    others.sha256(shop.file)
    others.save()
    mine.sha256(shop.top / "g")
    mine.save()
    assert json.loads(shop.store.read_bytes())["files"]["f"]["sha256"] == sha(b"newer")


def test_names_are_relative_to_the_top(shop):
    shop.settle()
    memo = shop.memo()
    memo.sha256(str(shop.file))
    memo.save()
    assert list(json.loads(shop.store.read_bytes())["files"]) == ["f"]


def test_a_file_outside_the_top_is_known_by_its_whole_path(shop, tmp_path):
    shop.settle()
    memo = DigestMemo(shop.store, tmp_path / "elsewhere")
    memo.sha256(shop.file)
    memo.save()
    assert list(json.loads(shop.store.read_bytes())["files"]) == [str(shop.file)]


def test_a_fact_is_computed_once(shop):
    shop.settle()
    memo = shop.memo()
    first = memo.fact(shop.file, "inputs", lambda: [1])
    assert (first, memo.fact(shop.file, "inputs", lambda: [2])) == ([1], [1])


def test_a_fact_is_remembered_for_the_next_run(shop):
    shop.settle()
    memo = shop.memo()
    memo.fact(shop.file, "inputs", lambda: {"x": [1, None]})
    memo.save()
    assert shop.memo().fact(shop.file, "inputs") == {"x": [1, None]}


def test_a_fact_that_nobody_told_is_none(shop):
    assert shop.memo().fact(shop.file, "inputs") is None


def test_a_fact_of_a_racy_file_is_computed_all_the_same(shop):
    shop.file.write_bytes(b"just now")
    assert shop.memo().fact(shop.file, "inputs", lambda: [1]) == [1]


def test_facts_are_dropped_when_the_bytes_change(shop):
    shop.settle()
    memo = shop.memo()
    memo.fact(shop.file, "inputs", lambda: [1])
    shop.file.write_bytes(b"other")
    shop.settle()
    assert memo.fact(shop.file, "inputs", lambda: [2]) == [2]


def test_facts_outlive_a_touch(shop):
    shop.settle()
    memo = shop.memo()
    memo.fact(shop.file, "inputs", lambda: [1])
    os.utime(shop.file)
    shop.settle()
    assert memo.fact(shop.file, "inputs", lambda: [2]) == [1]


def test_a_fact_read_off_other_bytes_is_not_one_of_these(shop):
    shop.settle()
    memo = shop.memo()

    def changed_meanwhile():
        shop.file.write_bytes(b"other")
        return "of other"

    memo.fact(shop.file, "inputs", changed_meanwhile)
    shop.file.write_bytes(b"first")
    shop.settle()
    assert memo.fact(shop.file, "inputs", lambda: "of first") == "of first"


def test_a_fact_told_of_a_file_the_memo_does_not_know_is_forgotten(shop):
    memo = shop.memo()
    memo.tell(shop.file, "inputs", [1])
    assert memo.fact(shop.file, "inputs") is None


def test_a_fact_told_anew_replaces_the_old_one(shop):
    shop.settle()
    memo = shop.memo()
    memo.fact(shop.file, "csig", lambda: "1")
    memo.tell(shop.file, "csig", "2")
    assert memo.fact(shop.file, "csig") == "2"


def test_a_memo_that_cannot_be_written_is_an_os_error(shop):
    shop.settle()
    (shop.top / ".trt").write_bytes(b"a file where the folder should be")
    memo = shop.memo()
    memo.sha256(shop.file)
    with pytest.raises(OSError):
        memo.save()


def test_a_file_that_grows_without_end_is_read_no_further_than_its_size(shop, monkeypatch):
    class Growing(io.FileIO):
        reads = 0

        def readinto(self, buffer):
            Growing.reads += 1
            assert Growing.reads < 10, "read for ever"
            with open(shop.file, "ab") as more:
                more.write(b"x" * len(buffer))
            return super().readinto(buffer)

    def grows(path, follow=True):
        Growing.reads = 0
        return Growing(path)

    monkeypatch.setattr(module, "open_file", grows)
    for hashes in (shop.memo().sha256, sha256_file):
        with pytest.raises(OSError, match="it changed while it was read"):
            hashes(shop.file)
    with grows(shop.file) as source, pytest.raises(OSError, match="it changed while it was read"):
        shop.memo().sha256_open(source, shop.file)
    with pytest.raises(EngineBuildError, match="models/a changed while it was read; run again"):
        Inputs(shop.memo()).digest(shop.file, "models/a")
