"""What stands under a name may be a pipe, a device, a link or too much: reading neither waits nor
swells."""

import os
import threading

import pytest

from scons_tensorrt.files.reading import open_file, read_small


def within(seconds, call):
    """What `call` returns or raises; a test that hangs is a failure."""
    found = []

    def run():
        try:
            found.append(call())
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    return found[0]


def read(path, follow=True):
    with open_file(path, follow) as source:
        return source.readall()


def test_a_file_is_read(tmp_path):
    (tmp_path / "f").write_bytes(b"bytes")
    assert read(tmp_path / "f") == b"bytes"
    assert read(str(tmp_path / "f"), follow=False) == b"bytes"


@pytest.mark.parametrize("follow", [True, False])
def test_a_pipe_is_refused_at_once(tmp_path, follow):
    os.mkfifo(tmp_path / "f")
    error = within(5, lambda: read(tmp_path / "f", follow))
    assert (error.strerror, error.filename) == ("not a regular file", tmp_path / "f")


def test_a_device_is_refused():
    assert within(5, lambda: read("/dev/zero")).strerror == "not a regular file"


def test_a_folder_is_refused_as_one(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)


def test_a_link_is_followed_unless_it_must_not_be(tmp_path):
    (tmp_path / "f").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("f")
    assert read(tmp_path / "link") == b"bytes"
    with pytest.raises(OSError, match="a symbolic link, which is never followed"):
        open_file(tmp_path / "link", follow=False)


def test_a_link_in_the_way_to_a_file_is_followed_all_the_same(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "f").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("folder")
    assert read(tmp_path / "link" / "f", follow=False) == b"bytes"


def test_nothing_stays_open_of_what_is_refused(tmp_path):
    os.mkfifo(tmp_path / "f")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError):
            open_file(tmp_path / "f")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_small_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert read_small(tmp_path / "f", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_small(tmp_path / "f", 4)


def test_a_hole_of_a_terabyte_is_not_read(tmp_path):
    with open(tmp_path / "f", "wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(OSError, match="more than"):
        read_small(tmp_path / "f", 1 << 20)
