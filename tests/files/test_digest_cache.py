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

from scons_tensorrt.build.input_digests import Inputs
from scons_tensorrt.errors import EngineBuildError
from scons_tensorrt.files import digest_cache as module
from scons_tensorrt.files import mounts
from scons_tensorrt.files.digest_cache import FINE_TICK_NS, DigestCache, sha256_file, sha256_of

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

    def digest_cache(self, full=False):
        return DigestCache(self.store, self.top, full)

    def settle(self):
        """Let the file's ctime grow older than the racy window."""
        age = time.time_ns() - self.file.stat().st_ctime_ns
        time.sleep(max(0, 1.3 * FINE_TICK_NS - age) / 1e9)

    def planted(self):
        """Remember `f`, then make the memory false."""
        self.settle()
        digest_cache = self.digest_cache()
        digest_cache.sha256(self.file)
        digest_cache.save()
        saved = json.loads(self.store.read_bytes())
        assert list(saved["files"]) == ["f"]
        saved["files"]["f"]["sha256"] = FALSE
        self.store.write_text(json.dumps(saved))


@pytest.fixture(autouse=True)
def as_on_a_disk(monkeypatch):
    """The temporary folder may be in memory, where nothing is remembered."""
    monkeypatch.setattr(mounts, "IN_MEMORY", ())


@pytest.fixture
def context(tmp_path):
    return Shop(tmp_path)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_files_sum_is_that_of_its_bytes(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha(data)


def test_a_new_file_is_hashed(context):
    assert context.digest_cache().sha256(context.file) == sha(b"first")


def test_a_missing_file_is_an_os_error(context):
    with pytest.raises(FileNotFoundError):
        context.digest_cache().sha256(context.top / "missing")


def test_a_file_that_was_left_alone_is_believed(context):
    context.planted()
    assert context.digest_cache().sha256(context.file) == FALSE


def test_a_file_that_was_left_alone_is_believed_in_the_same_run_too(context, monkeypatch):
    context.settle()
    digest_cache = context.digest_cache()
    digest_cache.sha256(context.file)
    monkeypatch.setattr(module, "sha256_file", lambda path, follow: FALSE)
    assert digest_cache.sha256(context.file) == sha(b"first")


def test_a_write_is_seen(context):
    context.planted()
    context.file.write_bytes(b"second, longer")
    assert context.digest_cache().sha256(context.file) == sha(b"second, longer")


def test_a_same_size_rewrite_with_restored_mtime_is_seen(context):
    context.planted()
    before = context.file.stat()
    context.file.write_bytes(b"fIrst")
    os.utime(context.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = context.file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert context.digest_cache().sha256(context.file) == sha(b"fIrst")


def test_another_file_moved_to_its_place_with_its_mtime_is_seen(context):
    context.planted()
    before = context.file.stat()
    other = context.top / "other"
    other.write_bytes(b"fIrst")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, context.file)
    assert context.digest_cache().sha256(context.file) == sha(b"fIrst")


def test_a_touched_file_is_hashed_and_then_believed_again(context):
    context.planted()
    os.utime(context.file)
    assert context.digest_cache().sha256(context.file) == sha(b"first")
    context.planted()
    assert context.digest_cache().sha256(context.file) == FALSE


def test_a_file_changed_a_moment_ago_is_told_but_not_remembered(context, monkeypatch):
    monkeypatch.setattr(module, "FINE_TICK_NS", 10**12)  # however slow this machine is
    context.file.write_bytes(b"just now")
    digest_cache = context.digest_cache()
    assert digest_cache.sha256(context.file) == sha(b"just now")
    digest_cache.save()
    assert not context.store.exists()


def test_a_file_changed_again_within_the_racy_window_is_seen_in_one_run(context):
    digest_cache = context.digest_cache()
    context.file.write_bytes(b"one")
    first = digest_cache.sha256(context.file)
    context.file.write_bytes(b"two")
    assert (first, digest_cache.sha256(context.file)) == (sha(b"one"), sha(b"two"))


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(context, monkeypatch):
    context.settle()

    def hash_and_change(source):
        digest = sha256_of(source)
        context.file.write_bytes(b"while it was read")
        return digest

    digest_cache = context.digest_cache()
    monkeypatch.setattr(module, "sha256_of", hash_and_change)
    digest_cache.sha256(context.file)
    monkeypatch.undo()
    assert digest_cache.sha256(context.file) == sha(b"while it was read")


def test_an_mtime_in_the_future_does_not_keep_a_file_from_being_remembered(context):
    later = time.time_ns() + 10**15
    os.utime(context.file, ns=(later, later))
    context.planted()
    assert context.digest_cache().sha256(context.file) == FALSE


def test_a_ctime_of_whole_seconds_needs_two_seconds(context):
    stamp = [1, 2, 3, 5_000_000_000, 5_000_000_000]  # as FAT and old NFS tell it
    assert module._changed_too_recently(stamp, 6_900_000_000)
    assert not module._changed_too_recently(stamp, 7_200_000_000)


def test_full_believes_nothing(context):
    context.planted()
    assert context.digest_cache(full=True).sha256(context.file) == sha(b"first")


def test_full_hashes_a_file_once_a_run(context, monkeypatch):
    context.settle()
    hashed = []
    monkeypatch.setattr(module, "sha256_of", lambda source: hashed.append(source) or sha256_of(source))
    digest_cache = context.digest_cache(full=True)
    digest_cache.sha256(context.file)
    digest_cache.sha256(context.file)
    assert len(hashed) == 1


def test_what_full_finds_is_remembered(context):
    context.planted()
    digest_cache = context.digest_cache(full=True)
    digest_cache.sha256(context.file)
    digest_cache.save()
    assert context.digest_cache().sha256(context.file) == sha(b"first")


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
def test_a_damaged_memo_counts_as_unknown(context, data):
    context.settle()
    context.store.parent.mkdir()
    context.store.write_bytes(data)
    assert context.digest_cache().sha256(context.file) == sha(b"first")


def test_a_damaged_memo_is_mended_by_the_next_save(context):
    context.settle()
    context.store.parent.mkdir()
    context.store.write_bytes(b"{")
    digest_cache = context.digest_cache()
    digest_cache.sha256(context.file)
    digest_cache.save()
    assert list(json.loads(context.store.read_bytes())["files"]) == ["f"]


def test_nothing_is_written_when_nothing_changed(context):
    context.planted()
    before = context.store.stat().st_mtime_ns, context.store.stat().st_ino
    digest_cache = context.digest_cache()
    digest_cache.sha256(context.file)
    digest_cache.save()
    assert (context.store.stat().st_mtime_ns, context.store.stat().st_ino) == before


def test_saving_joins_with_what_another_process_saved(context):
    (context.top / "g").write_bytes(b"other")
    context.settle()
    time.sleep(1.3 * FINE_TICK_NS / 1e9)
    mine, others = context.digest_cache(), context.digest_cache()
    mine.sha256(context.file)
    others.sha256(context.top / "g")
    others.save()
    mine.save()
    assert sorted(json.loads(context.store.read_bytes())["files"]) == ["f", "g"]


def test_saving_does_not_undo_what_another_process_learned_meanwhile(context):
    context.planted()
    (context.top / "g").write_bytes(b"other")
    context.settle()
    mine = context.digest_cache()  # has read an old entry of f, and does not ask for f
    context.file.write_bytes(b"newer")
    context.settle()
    others = context.digest_cache()
    others.sha256(context.file)
    others.save()
    mine.sha256(context.top / "g")
    mine.save()
    assert json.loads(context.store.read_bytes())["files"]["f"]["sha256"] == sha(b"newer")


def test_names_are_relative_to_the_top(context):
    context.settle()
    digest_cache = context.digest_cache()
    digest_cache.sha256(str(context.file))
    digest_cache.save()
    assert list(json.loads(context.store.read_bytes())["files"]) == ["f"]


def test_a_file_outside_the_top_is_known_by_its_whole_path(context, tmp_path):
    context.settle()
    digest_cache = DigestCache(context.store, tmp_path / "elsewhere")
    digest_cache.sha256(context.file)
    digest_cache.save()
    assert list(json.loads(context.store.read_bytes())["files"]) == [str(context.file)]


def test_a_fact_is_computed_once(context):
    context.settle()
    digest_cache = context.digest_cache()
    first = digest_cache.fact(context.file, "inputs", lambda source: [1])
    assert (first, digest_cache.fact(context.file, "inputs", lambda source: [2])) == ([1], [1])


def test_a_fact_is_remembered_for_the_next_run(context):
    context.settle()
    digest_cache = context.digest_cache()
    digest_cache.fact(context.file, "inputs", lambda source: {"x": [1, None]})
    digest_cache.save()
    assert context.digest_cache().fact(context.file, "inputs") == {"x": [1, None]}


def test_a_fact_that_nobody_told_is_none(context):
    assert context.digest_cache().fact(context.file, "inputs") is None


def test_a_fact_of_a_racy_file_is_computed_all_the_same(context):
    context.file.write_bytes(b"just now")
    assert context.digest_cache().fact(context.file, "inputs", lambda source: [1]) == [1]


def test_facts_are_dropped_when_the_bytes_change(context):
    context.settle()
    digest_cache = context.digest_cache()
    digest_cache.fact(context.file, "inputs", lambda source: [1])
    context.file.write_bytes(b"other")
    context.settle()
    assert digest_cache.fact(context.file, "inputs", lambda source: [2]) == [2]


def test_facts_outlive_a_touch(context):
    context.settle()
    digest_cache = context.digest_cache()
    digest_cache.fact(context.file, "inputs", lambda source: [1])
    os.utime(context.file)
    context.settle()
    assert digest_cache.fact(context.file, "inputs", lambda source: [2]) == [1]


def test_a_fact_read_off_other_bytes_is_not_one_of_these(context):
    context.settle()
    digest_cache = context.digest_cache()

    def changed_meanwhile(source):
        context.file.write_bytes(b"other")
        return "of other"

    digest_cache.fact(context.file, "inputs", changed_meanwhile)
    context.file.write_bytes(b"first")
    context.settle()
    assert digest_cache.fact(context.file, "inputs", lambda source: "of first") == "of first"


def test_a_fact_is_read_off_the_file_that_was_hashed(context):
    """A link that leads elsewhere while the fact is read, and back before the file is looked at again."""
    context.settle()
    first, other, link = context.file, context.file.with_name("other"), context.file.with_name("link")
    other.write_bytes(b"other")
    link.symlink_to(first)
    digest_cache = context.digest_cache()

    def flipped(source):
        link.unlink()
        link.symlink_to(other)
        data = source.read().decode()
        link.unlink()
        link.symlink_to(first)
        return data

    assert digest_cache.fact(link, "inputs", flipped) == first.read_text()
    assert digest_cache.last_fact(link, "inputs") == first.read_text()


def test_a_fact_of_a_file_that_took_the_place_of_the_hashed_one_is_not_stored(context, monkeypatch):
    context.settle()
    other, link = context.file.with_name("other"), context.file.with_name("link")
    other.write_bytes(b"other")
    link.symlink_to(context.file)
    digest_cache = context.digest_cache()
    digest_cache.sha256(link)
    hashed = digest_cache._sha256

    def replaced_once_hashed(*given, **more):
        digest = hashed(*given, **more)
        link.unlink()
        link.symlink_to(other)
        return digest

    monkeypatch.setattr(digest_cache, "_sha256", replaced_once_hashed)
    digest_cache.fact(link, "inputs", lambda source: source.read().decode())
    assert digest_cache.last_fact(link, "inputs") is None


def test_a_memo_that_cannot_be_written_is_an_os_error(context):
    context.settle()
    (context.top / ".trt").write_bytes(b"a file where the folder should be")
    digest_cache = context.digest_cache()
    digest_cache.sha256(context.file)
    with pytest.raises(OSError):
        digest_cache.save()


def test_a_file_that_grows_without_end_is_read_no_further_than_its_size(context, monkeypatch):
    class Growing(io.FileIO):
        reads = 0

        def readinto(self, buffer):
            Growing.reads += 1
            assert Growing.reads < 10, "read for ever"
            with open(context.file, "ab") as more:
                more.write(b"x" * len(buffer))
            return super().readinto(buffer)

    def grows(path, follow=True):
        Growing.reads = 0
        return Growing(path)

    monkeypatch.setattr(module, "open_file", grows)
    for hashes in (context.digest_cache().sha256, sha256_file):
        with pytest.raises(OSError, match="it changed while it was read"):
            hashes(context.file)
    with grows(context.file) as source, pytest.raises(OSError, match="it changed while it was read"):
        context.digest_cache().sha256_open(source, context.file)
    with pytest.raises(EngineBuildError, match="models/a changed while it was read; run again"):
        Inputs(context.digest_cache()).digest(context.file, "models/a")
