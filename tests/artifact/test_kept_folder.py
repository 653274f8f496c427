"""Engines that are kept: within the limit, and never sharing a file with another engine."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scons_tensorrt.artifact.kept_engines import KeptFolder, cache_size
from scons_tensorrt.errors import RecipeError

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
SHM = Path("/dev/shm")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".trt/kept"


def keep(folder: Path, engine: Path, data: bytes, limit: int = 1000) -> KeptFolder:
    """Keep an engine, which another one then replaces."""
    engine.write_bytes(data)
    kept = KeptFolder(folder, limit)
    kept.keep(engine, digest(data))
    engine.with_suffix(".new").write_bytes(b"another")
    os.replace(engine.with_suffix(".new"), engine)
    time.sleep(0.02)  # more than a tick of the file system's clock
    return kept


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("5G", 5 * 10**9), ("5Gi", 5 << 30), ("5GiB", 5 << 30), ("1.5M", 1_500_000), ("7 kB", 7000)],
)
def test_a_size_as_a_person_writes_it(text: str, size: int) -> None:
    assert cache_size(text, "CACHE_SIZE") == size


@pytest.mark.parametrize("text", ["", "-1", "5x", "1e9", "inf", "G", "5 G i", "٥"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(RecipeError, match="write a size such as 5G, or 0"):
        cache_size(text, "CACHE_SIZE")


def test_an_engine_is_kept_without_a_copy_and_comes_back_as_the_same_file(folder, engine, tmp_path) -> None:
    engine.write_bytes(b"old")
    inode = engine.stat().st_ino
    kept = keep(folder, engine, b"old")
    [found] = kept.engines()
    assert (found.filename, found.size, found.path.stat().st_ino) == (NAME, 3, inode)
    kept.take(found.path, tmp_path / "partial")
    assert (tmp_path / "partial").stat().st_ino == inode
    kept.drop(NAME, digest(b"old"))
    assert kept.engines() == []
    assert (tmp_path / "partial").read_bytes() == b"old"


def test_the_least_recently_used_goes_first(folder, engine) -> None:
    for data in (b"a" * 400, b"b" * 400, b"c" * 400):
        kept = keep(folder, engine, data)
    assert [each.path.read_bytes()[:1] for each in kept.engines()] == [b"b", b"c"]
    keep(folder, engine, b"b" * 400)  # in use again, and replaced again
    assert [each.path.read_bytes()[:1] for each in kept.engines()] == [b"c", b"b"]
    keep(folder, engine, b"d" * 700)
    assert [each.path.read_bytes()[:1] for each in kept.engines()] == [b"d"]


def test_what_is_larger_than_the_limit_is_not_kept_and_removes_nothing(folder, engine) -> None:
    kept = keep(folder, engine, b"small")
    keep(folder, engine, b"x" * 1001)
    assert [each.size for each in kept.engines()] == [5]


def test_two_that_take_one_engine_do_not_share_a_file(folder, engine, tmp_path) -> None:
    kept = keep(folder, engine, b"old")
    [found] = kept.engines()
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        kept.take(found.path, place)
    kept.drop(NAME, digest(b"old"))
    assert len({place.stat().st_ino for place in places}) == 2
    assert {place.read_bytes() for place in places} == {b"old"}
    assert [place.stat().st_nlink for place in places] == [1, 1]


def test_an_engine_that_a_killed_run_left_in_both_places_is_copied(folder, engine, tmp_path) -> None:
    engine.write_bytes(b"old")
    kept = KeptFolder(folder, 1000)
    kept.keep(engine, digest(b"old"))  # killed before the replacement
    kept.take(kept.engines()[0].path, tmp_path / "partial")
    assert (tmp_path / "partial").stat().st_ino != engine.stat().st_ino
    assert (tmp_path / "partial").read_bytes() == b"old"


@pytest.fixture
def there() -> Iterator[Path]:
    if not SHM.is_dir():
        pytest.skip("no second file system here")
    root = Path(tempfile.mkdtemp(dir=SHM))
    yield root / "kept"
    shutil.rmtree(root)


def test_on_another_file_system_it_is_copied(there, engine, tmp_path) -> None:
    kept = keep(there, engine, b"old")
    kept.take(kept.engines()[0].path, tmp_path / "partial")
    assert (tmp_path / "partial").read_bytes() == b"old"
    assert [path.name for path in there.iterdir()] == [kept.engines()[0].path.name]


def test_a_full_disk_leaves_nothing_half_kept(folder, engine, monkeypatch) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    engine.write_bytes(b"old")
    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        KeptFolder(folder, 1000).keep(engine, digest(b"old"))
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_a_link_is_not_used(folder, engine, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    kept = keep(elsewhere, engine, b"old")
    [found] = kept.engines()
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)
    linked = keep(folder, engine, b"new")
    assert linked.engines() == []
    linked.drop(NAME, digest(b"old"))
    with pytest.raises(FileNotFoundError):
        linked.take(folder / found.path.name, tmp_path / "partial")
    assert [path.read_bytes() for path in elsewhere.iterdir()] == [b"old"]


def test_other_files_in_the_folder_stay(folder, engine) -> None:
    folder.mkdir(parents=True)
    (folder / "notes").write_bytes(b"x" * 2000)
    (folder / f"{NAME.removesuffix('.engine')}.{'0' * 16}.engine").mkdir()
    kept = keep(folder, engine, b"old")
    assert [each.size for each in kept.engines()] == [3]
    assert len(list(folder.iterdir())) == 3
