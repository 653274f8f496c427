"""A reader, or a crash, finds the old bytes or the new ones."""

import contextlib
import errno
import os
import stat
import threading
import time

import pytest

from scons_tensorrt.files import writing
from scons_tensorrt.files.writing import (
    STALE_SECONDS,
    cause,
    new_file,
    remove_tree,
    sync_file,
    sync_folder,
    write_atomic,
)

both = pytest.mark.parametrize("durable", [True, False])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@both
def test_a_new_file_has_the_bytes(tmp_path, durable):
    write_atomic(tmp_path / "f", b"new", durable)
    assert (tmp_path / "f").read_bytes() == b"new"


@both
def test_an_old_file_is_replaced(tmp_path, durable):
    (tmp_path / "f").write_bytes(b"old and longer")
    write_atomic(tmp_path / "f", b"new", durable)
    assert (tmp_path / "f").read_bytes() == b"new"


def test_missing_folders_are_made(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "f", b"new")
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"new"


def test_nothing_but_the_file_is_left(tmp_path):
    write_atomic(tmp_path / "f", b"new")
    assert names(tmp_path) == ["f"]


def test_a_replacement_is_another_file_so_that_an_open_reader_keeps_the_old_one(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    with open(tmp_path / "f", "rb") as reader:
        write_atomic(tmp_path / "f", b"new")
        assert reader.read() == b"old"


def test_a_target_that_cannot_be_replaced_leaves_no_temporary(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "f", b"new")
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize(
    "write", [lambda path: write_atomic(path, b"x"), lambda path: new_file(path).close()]
)
def test_a_device_and_a_link_to_an_open_file_are_not_replaced(tmp_path, write):
    link, device = tmp_path / "stdout", tmp_path / "null"
    link.symlink_to("/proc/self/fd/1")
    places = [link]
    with contextlib.suppress(PermissionError):
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        places.append(device)
    for place in places:
        with pytest.raises(OSError, match="a device is not replaced"):
            write(place)
    assert sorted(tmp_path.iterdir()) == sorted(places)
    assert link.is_symlink()


def test_a_rename_that_fails_leaves_the_old_bytes_and_no_temporary(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"old")

    def refuse(source, target):
        raise OSError(5, "Input/output error", source)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError):
        write_atomic(tmp_path / "f", b"new")
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_ctrl_c_in_the_middle_leaves_the_old_bytes_and_no_temporary(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "f", b"new")
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_folder_that_is_a_file_is_an_os_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError):
        write_atomic(tmp_path / "a" / "f", b"new")


def test_a_reader_never_sees_half_a_file(tmp_path):
    texts = (b"a" * 50_000, b"b" * 70_000)
    write_atomic(tmp_path / "f", texts[0])

    def write():
        for turn in range(200):
            write_atomic(tmp_path / "f", texts[turn % 2], durable=False)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {(tmp_path / "f").read_bytes() for _ in range(200)}
    writer.join()
    assert seen <= set(texts)


def test_two_writers_of_one_file_leave_the_bytes_of_one_of_them(tmp_path):
    texts = [bytes([65 + n]) * 10_000 for n in range(4)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "f", text, False)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_bytes() in texts
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("sync", [sync_file, sync_folder])
def test_what_is_not_there_cannot_be_flushed(tmp_path, sync):
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "missing")


def test_flushing_a_file_as_a_folder_is_an_error(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "f")


@both
def test_what_a_killed_writer_left_goes_after_a_day_and_a_living_ones_stays(tmp_path, durable):
    for name, age in ((".f.1.a.tmp", STALE_SECONDS + 9), (".g.2.b.tmp", 60)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_atomic(tmp_path / "f", b"new", durable)
    assert names(tmp_path) == [".g.2.b.tmp", "f"]


def test_a_folder_is_searched_for_leftovers_once_in_a_process(tmp_path, monkeypatch):
    """Else installing 10,000 engines would list a folder of 10,000 engines 10,000 times."""
    searched = []
    monkeypatch.setattr(writing, "remove_stale", searched.append)
    for name in ("a", "b"):
        write_atomic(tmp_path / name, b"", durable=False)
    assert searched == [tmp_path]


def test_a_very_deep_tree_is_removed_and_no_link_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    where = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("dd", dir_fd=where)
        os.symlink(outside, "link", dir_fd=where)
        inner = os.open("dd", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = inner
    os.close(where)
    remove_tree(folder)
    assert not folder.exists()
    assert (outside / "kept").exists()
    folder.symlink_to(outside)
    remove_tree(folder)
    assert (outside / "kept").exists()
    remove_tree(tmp_path / "none")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_who_lacks_room_is_told_to_make_room(number):
    text = cause(OSError(number, os.strerror(number)), "make it writable")
    assert text == f"{os.strerror(number)}; make room, then run again"
