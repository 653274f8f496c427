"""A copy out of a folder store: hashed as it lies in the tree, whatever happens to the source meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scons_tensorrt.cache.copy_and_hash import BUFFER, PIECE, DigestMismatch, copied
from scons_tensorrt.errors import StoreError

LARGE = 2 * PIECE + 12_345  # hashed beside the copy


@pytest.fixture(params=["this disk", "btrfs", "xfs"])
def disk(request, tmp_path) -> Iterator[Path]:
    """A folder on a file system of this kind; the latter two share the blocks of copies."""
    kind = request.param
    if kind == "this disk":
        yield tmp_path
        return
    if os.geteuid() or not shutil.which(f"mkfs.{kind}"):
        pytest.skip(f"only root may mount, and mkfs.{kind} makes the file system")
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as out:
        out.truncate(400 << 20)
    place.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine cannot mount {kind}: {done.stderr}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def source_in(folder: Path, size: int) -> tuple[Path, str]:
    data = os.urandom(size)
    path = folder / "source"
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return path, hashlib.sha256(data).hexdigest()


def copy(source: Path, sha256: str, size: int, to: Path, progress=lambda done: None) -> bool:
    with to.open("wb") as out:
        return copied(source, sha256, size, out, progress)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_of_any_size_arrive_and_share_their_blocks_where_that_is_possible(disk, request) -> None:
    shares = request.node.callspec.params["disk"] != "this disk"
    for size in (0, 1, BUFFER + 1, 2 * PIECE, LARGE, *[64 << 20] * shares):
        source, sha256 = source_in(disk, size)
        before = os.statvfs(disk).f_bfree
        seen: list[int] = []
        assert copy(source, sha256, size, disk / "made", seen.append)
        assert sha256_of(disk / "made") == sha256
        assert seen == sorted(seen)
        assert seen[-1:] == [size][: bool(size)]
        if size == 64 << 20:
            used = (before - os.statvfs(disk).f_bfree) * os.statvfs(disk).f_frsize
            assert used < 8 << 20
        (disk / "made").unlink()


@pytest.mark.parametrize("size", [PIECE, LARGE])
def test_the_copy_is_hashed_and_not_its_source(disk, size) -> None:
    source, sha256 = source_in(disk, size)
    made = disk / "made"

    def changing(path: Path):
        """Change the last byte of a file when the first bytes were hashed."""

        def progress(done: int) -> None:
            if done <= BUFFER and path.stat().st_size == size:
                with path.open("r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    last = file.read(1)
                    file.seek(-1, os.SEEK_END)
                    file.write(bytes([last[0] ^ 1]))

        return progress

    if size == PIECE:  # the copy is complete before the first byte is hashed
        with pytest.raises(DigestMismatch):
            copy(source, sha256, size, made, changing(made))
        assert copy(source, sha256, size, made, changing(source))
        assert sha256_of(made) == sha256
        source, sha256 = source_in(disk, size)
    try:
        came = copy(source, sha256, size, made, changing(source))
    except DigestMismatch:
        came = False
    assert not came or sha256_of(made) == sha256


def test_a_source_of_another_size_is_no_match_and_its_first_bytes_are_used(disk) -> None:
    source, sha256 = source_in(disk, LARGE)
    made = disk / "made"
    with pytest.raises(DigestMismatch, match=f"it ends after {LARGE} of {LARGE + 1} bytes"):
        copy(source, sha256, LARGE + 1, made)
    with source.open("ab") as out:
        out.write(b"more")
    assert copy(source, sha256, LARGE, made)
    assert (made.stat().st_size, sha256_of(made)) == (LARGE, sha256)


def test_a_source_on_another_disk_is_copied(tmp_path) -> None:
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    source, sha256 = source_in(tmp_path, LARGE)
    made = other / f"made-{os.getpid()}"
    try:
        assert copy(source, sha256, LARGE, made)
        assert sha256_of(made) == sha256
    finally:
        made.unlink()


@pytest.mark.parametrize("size", [PIECE, LARGE])
def test_an_unreadable_source_is_a_fault_of_the_store_and_a_full_disk_is_not(tmp_path, size) -> None:
    with pytest.raises(StoreError, match="/proc/self/mem: "):  # reading address 0 is an I/O error
        copy(Path("/proc/self/mem"), "0" * 64, size, tmp_path / "made")
    source, sha256 = source_in(tmp_path, size)
    with pytest.raises(OSError) as full:
        copy(source, sha256, size, Path("/dev/full"))
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("size", [PIECE, LARGE])
def test_a_kernel_that_copies_nothing_before_the_end_is_not_trusted(tmp_path, monkeypatch, size) -> None:
    """Some file systems do (golang.org/issue/44272). A writer would remove the data as damaged."""
    source, sha256 = source_in(tmp_path, size)
    monkeypatch.setattr(os, "copy_file_range", lambda *of: 0)
    assert copy(source, sha256, size, tmp_path / "made")
    assert sha256_of(tmp_path / "made") == sha256
