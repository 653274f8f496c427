"""A store that is a folder, in which somebody put links, pipes and files of their own."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from parts import key, signer
from test_shared import Team, entry_of
from test_upkeep import store, trust_of

from scons_tensorrt.cache.entry import blob_path
from scons_tensorrt.cache.maintenance import gc
from scons_tensorrt.cache.object_store import ObjectStore
from scons_tensorrt.errors import StoreError

NAME = "1" * 64  # of an entry, or of bytes
FOLDERS = ("ac", "cas", "no")


@pytest.fixture
def team(tmp_path, signer) -> Team:
    """A store of one engine, in a folder."""
    team = Team((tmp_path / "team").as_uri(), tmp_path, signer)
    team.publish(b"an engine")
    for name in FOLDERS:
        (tmp_path / "team" / name).mkdir(exist_ok=True)
    return team


@pytest.fixture
def precious(tmp_path) -> Path:
    """A folder elsewhere, whose files are as old and as unsigned as gc and verify like them."""
    folder = tmp_path / "precious"
    (folder / "below").mkdir(parents=True)
    for path in (folder / NAME, folder / "thesis.txt", folder / "below" / NAME):
        path.write_text("not the store's")
        os.utime(path, (0, 0))
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def clear(store) -> None:
    """Everything that removes something."""
    store("gc", "--older", "0", "--most", "0")
    store("verify", "--remove")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", ["x", NAME])
def test_a_link_to_a_folder_empties_nothing(team, store, precious, tmp_path, folder, name) -> None:
    before = files(precious)
    (tmp_path / "team" / folder / name).symlink_to(precious)
    clear(store)
    assert files(precious) == before


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_the_store_that_is_a_link_is_left_alone_and_told(
    team, store, precious, tmp_path, folder
) -> None:
    before = files(precious)
    shutil.rmtree(tmp_path / "team" / folder)
    (tmp_path / "team" / folder).symlink_to(precious)
    for command in (("gc", "--older", "0"), ("verify", "--remove")):
        status, lines = store(*command)
        assert status == 1
        assert f"{tmp_path}/team/{folder} is a link or not a folder" in lines[-1]
    assert files(precious) == before


@pytest.mark.parametrize("folder", [*FOLDERS, "probe"])
def test_a_writer_follows_no_link_in_the_place_of_a_folder(team, precious, tmp_path, folder) -> None:
    before = files(precious)
    shutil.rmtree(tmp_path / "team" / folder, ignore_errors=True)
    (tmp_path / "team" / folder).symlink_to(precious)
    (tmp_path / "source").write_bytes(b"bytes")
    path, digest = f"{folder}/{'2' * 64}", hashlib.sha256(b"bytes").hexdigest()
    for write in (
        lambda: team.remote().create(path, b"an entry"),
        lambda: team.remote().replace(path, b"an entry"),
        lambda: team.remote().upload(path, tmp_path / "source", digest, 5),
    ):
        with pytest.raises(StoreError, match=f"team/{folder} is a link or not a folder"):
            write()
    assert files(precious) == before


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_what_has_the_name_of_an_entry_is_removed(team, store, tmp_path, folder) -> None:
    place = tmp_path / "team" / folder
    for name in ("README", f"{NAME}.bak", NAME.upper().replace("1", "A"), "sub/" + NAME):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("somebody's")
        os.utime(place / name, (0, 0))
    theirs = {name for name in files(place) if (place / name).read_text() == "somebody's"}
    (place / NAME).write_text("no entry, and no bytes that an entry names")
    os.utime(place / NAME, (0, 0))
    clear(store)
    assert files(place) == theirs


def test_the_root_of_a_store_may_be_a_link(team, tmp_path, signer) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "team")
    by_link = Team((tmp_path / "link").as_uri(), tmp_path, signer)
    gone = gc(by_link.remote(), trust_of(team), older_s=1.0, now=lambda: time.time() + 9.0)
    assert (len(gone.entries), len(gone.blobs)) == (1, 1)


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path) -> None:
    os.mknod(place, stat.S_IFSOCK | 0o600)


def _link(place: Path) -> None:
    place.symlink_to("/dev/zero")


def _folder(place: Path) -> None:
    place.mkdir()


@pytest.mark.parametrize("other", [_pipe, _socket, _link, _folder])
@pytest.mark.parametrize("part", ["entry", "bytes"])
def test_a_pipe_a_link_or_a_folder_in_the_place_of_a_file_is_a_miss(team, tmp_path, part, other) -> None:
    entry = entry_of(b"an engine")
    place = tmp_path / "team" / (entry.path if part == "entry" else blob_path(entry.sha256))
    place.unlink()
    other(place)
    assert team.fetched(entry) is None
    assert len(team.said) == 1
    assert "ignoring the store's " in team.said[0]
    if other is _folder:
        with pytest.raises(StoreError):  # which ends its use in this run
            team.publish(b"an engine")
    else:
        team.publish(b"an engine")
        assert team.fetched(entry) == b"an engine"


@pytest.mark.parametrize("folder", ["ac", "cas"])
def test_a_pipe_in_the_place_of_a_folder_is_no_store_and_hangs_nobody(team, tmp_path, folder) -> None:
    place = tmp_path / "team" / folder
    shutil.rmtree(place)
    os.mkfifo(place)
    assert team.fetched(entry_of(b"an engine")) is None


@pytest.mark.parametrize("url", ["file://team/store", "file://", "file:///", "file:{}", "{}#1", "{}?x=1"])
def test_a_url_of_which_a_part_would_be_passed_over_is_refused(tmp_path, monkeypatch, url) -> None:
    (tmp_path / "ac").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="write file:///FOLDER with an absolute path"):
        ObjectStore(url.format(tmp_path.as_uri()) if url.startswith("{") else url.format("here"))


@pytest.mark.parametrize("size", [-1, 0, 3, 10**9])
def test_bytes_of_another_size_than_somebody_says_are_not_removed(team, tmp_path, size) -> None:
    entry = entry_of(b"an engine")
    shared = team.shared()
    assert not shared.fetch(entry.sha256, size, tmp_path / "out", "a")
    assert team.fetched(entry) == b"an engine"


def all_that_asks(remote: ObjectStore, source: Path) -> dict[str, Callable[[], object]]:
    return {
        "read": lambda: remote.read(f"ac/{NAME}"),
        "size": lambda: remote.size(f"cas/{NAME}"),
        "list": lambda: list(remote.all_of("ac")),
        "download": lambda: remote.download(f"cas/{NAME}", NAME, 1, None),
        "create": lambda: remote.create(f"ac/{NAME}", b"entry"),
        "replace": lambda: remote.replace(f"ac/{NAME}", b"entry"),
        "upload": lambda: remote.upload(f"cas/{NAME}", source, hashlib.sha256(b"x").hexdigest(), 1),
    }


def test_a_store_that_is_gone_is_not_an_empty_one_and_is_not_made_anew(tmp_path) -> None:
    root, source = tmp_path / "store", tmp_path / "source"
    source.write_bytes(b"x")
    remote = ObjectStore(root.as_uri(), True)
    root.rename(tmp_path / "away")
    for name, ask in all_that_asks(remote, source).items():
        with pytest.raises(StoreError, match=f"^no such folder: {root}$"):
            ask()
        assert not root.exists(), name


def test_a_store_that_was_unmounted_is_not_an_empty_one(tmp_path) -> None:
    root, source = tmp_path / "store", tmp_path / "source"
    source.write_bytes(b"x")
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "none", str(root)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount, and not everywhere")
    try:
        remote = ObjectStore(root.as_uri(), True)
        assert remote.create(f"ac/{'2' * 64}", b"entry")
    finally:
        subprocess.run(["umount", root], check=True)
    for ask in all_that_asks(remote, source).values():
        with pytest.raises(StoreError, match=f"^{root} was mounted or unmounted meanwhile$"):
            ask()
    assert list(root.iterdir()) == []
