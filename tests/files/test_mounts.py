"""What a stat proves depends on the file system and the mount, and on who has the file open."""

import contextlib
import mmap
import os
import shutil
import subprocess
import time

import pytest

from scons_tensorrt.files import mounts as module
from scons_tensorrt.files.digest_cache import COARSE_TICK_NS, FINE_TICK_NS, DigestCache
from scons_tensorrt.files.mounts import Mounts

OLD, NEW = b"the first image's model", b"the other image's model"


def sum_of(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def images(tmp_path):
    """Two ext4 images that differ in one file's bytes alone."""
    if os.geteuid() != 0 or not shutil.which("mke2fs"):
        pytest.skip("needs root and mke2fs")
    (tmp_path / "content").mkdir()
    (tmp_path / "content/f").write_bytes(OLD)
    make = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tmp_path / "content"]
    subprocess.run([*make, tmp_path / "one.img", "2M"], check=True)
    data = (tmp_path / "one.img").read_bytes()
    assert data.count(OLD) == 1
    (tmp_path / "two.img").write_bytes(data.replace(OLD, NEW))
    (tmp_path / "at").mkdir()
    return tmp_path


@contextlib.contextmanager
def mounted(images, name, options):
    """The stat of `f` while the image is mounted at `at`."""
    done = subprocess.run(["mount", "-o", options, images / name, images / "at"], capture_output=True)
    if done.returncode:
        pytest.skip("no loop mounts here")
    try:
        yield os.stat(images / "at/f")
    finally:
        subprocess.run(["umount", images / "at"], check=True)


def same(one, two):
    return all(
        getattr(one, name) == getattr(two, name)
        for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    )


def settle(path):
    """Let the file's ctime grow older than the racy window."""
    changed = os.stat(path).st_ctime_ns
    tick = FINE_TICK_NS if changed % 1_000_000_000 else COARSE_TICK_NS
    time.sleep(max(0, 1.1 * tick - (time.time_ns() - changed)) / 1e9)


@pytest.mark.parametrize("options", ["loop,ro", "loop"])
@pytest.mark.parametrize("old_kernel", [False, True])
def test_two_images_at_one_place_with_one_stat(images, monkeypatch, options, old_kernel):
    if old_kernel:
        monkeypatch.setattr(module, "_unique_id", lambda place: None)
    store, file = images / "digests.json", images / "at/f"
    with mounted(images, "one.img", options) as first:
        settle(file)
        digest_cache = DigestCache(store, images)
        assert digest_cache.sha256(file) == sum_of(OLD)
        digest_cache.save()
    with mounted(images, "two.img", options) as second:
        if not same(first, second):
            pytest.skip("the kernel gave another loop device")
        assert DigestCache(store, images).sha256(file) == sum_of(NEW)


def test_an_image_that_stays_mounted_is_hashed_once(images):
    with mounted(images, "one.img", "loop,ro"):
        file, store = images / "at/f", images / "digests.json"
        settle(file)
        if module._unique_id(str(file)) is None:
            pytest.skip("this kernel has no unique mount ids")
        digest_cache = DigestCache(store, images)
        digest_cache.sha256(file)
        digest_cache.save()
        assert DigestCache(store, images).stamp(file) is not None


LINES = {
    "ext4": ("rw,relatime shared:1 - ext4 /dev/sda1 rw", True),
    "a read-only bind mount": ("ro,relatime - ext4 /dev/sda1 rw", True),
    "nfs4": ("rw - nfs4 server:/x rw,vers=4.2", True),
    "virtiofs": ("rw - virtiofs tag rw", True),
    "sshfs": ("rw - fuse.sshfs me@host: rw,user_id=0", False),
    "ntfs-3g": ("rw - fuseblk /dev/sdb1 rw", False),
    "a USB stick": ("rw - vfat /dev/sdb1 rw", False),
    "memory": ("rw - tmpfs tmpfs rw,size=8g", False),
    "memory without a limit": ("rw - ramfs none rw", False),
    "a Windows share": ("rw - cifs //host/x rw", False),
}


@pytest.mark.parametrize("name", LINES)
def test_the_file_system_decides_whether_a_stat_is_remembered(tmp_path, monkeypatch, name):
    text, remembered = LINES[name]
    device = os.stat(tmp_path).st_dev
    line = f"30 1 {os.major(device)}:{os.minor(device)} / / {text}"
    (tmp_path / "mountinfo").write_text(f"{line}\n")
    monkeypatch.setattr(module, "MOUNT_TABLE", str(tmp_path / "mountinfo"))
    file, store = tmp_path / "f", tmp_path / "digests.json"
    file.write_bytes(OLD)
    settle(file)
    digest_cache = DigestCache(store, tmp_path)
    digest_cache.sha256(file)
    assert digest_cache.stamp(file) is not None  # in one run, it is hashed once
    digest_cache.save()
    assert (DigestCache(store, tmp_path).stamp(file) is not None) == remembered


def test_a_device_that_the_table_does_not_name_is_looked_up_by_its_place(tmp_path, monkeypatch):
    (tmp_path / "m n").mkdir()
    table = f"30 1 0:9998 / / rw - ext4 /dev/sda1 rw\n31 30 0:9999 / {tmp_path}/m\\040n rw - vfat x rw\n"
    (tmp_path / "mountinfo").write_text(table)
    monkeypatch.setattr(module, "MOUNT_TABLE", str(tmp_path / "mountinfo"))
    device = os.makedev(0, 4711)
    assert Mounts().identity(device, tmp_path / "m n") is None
    assert Mounts().identity(device, tmp_path) == ""


def test_without_a_mount_table_only_this_mount_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOUNT_TABLE", str(tmp_path / "none"))
    found = Mounts().identity(os.stat(tmp_path).st_dev, tmp_path)
    assert found != ""


def test_a_write_through_a_mapping_that_moves_no_time_is_seen(tmp_path):
    file, store = tmp_path / "f", tmp_path / "digests.json"
    file.write_bytes(b"a" * 4096)
    with open(file, "r+b") as source, mmap.mmap(source.fileno(), 4096) as mapping:
        mapping[0:1] = b"b"  # the page is dirty now
        settle(file)
        before = file.stat()
        digest_cache = DigestCache(store, tmp_path)
        digest_cache.sha256(file)
        digest_cache.save()
        mapping[0:1] = b"c"
        if not same(before, file.stat()):
            pytest.skip("the page was written out meanwhile")
        engine_spec = sum_of(file.read_bytes())
        assert digest_cache.sha256(file) == engine_spec
    assert DigestCache(store, tmp_path).sha256(file) == engine_spec


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "ext4"])
def test_where_a_write_through_a_mapping_moves_no_time(tmp_path, monkeypatch, kind):
    device = os.stat(tmp_path).st_dev
    line = f"30 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} x rw"
    (tmp_path / "mountinfo").write_text(f"{line}\n")
    monkeypatch.setattr(module, "MOUNT_TABLE", str(tmp_path / "mountinfo"))
    assert Mounts().hides_writes(device, tmp_path) == (kind != "ext4")
