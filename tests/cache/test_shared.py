"""A store as a run uses it, over a folder and over S3."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from parts import READER, WRITER, Careless, generate, key, s3, signer, wire

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.cache.copy_and_hash import DigestMismatch
from scons_tensorrt.cache.entry import ENGINE, CacheEntry, blob_path, entry_path, sign_entry
from scons_tensorrt.cache.object_store import ObjectStore
from scons_tensorrt.cache.shared_cache_client import CacheClient
from scons_tensorrt.errors import StoreError
from scons_tensorrt.files.signing_keys import SigningKey, load_signing_key, load_trusted_keys

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"


def entry_of(data: bytes, number: int = 0) -> CacheEntry:
    fields = {"number": str(number)}
    digest = hashlib.sha256(data).hexdigest()
    return CacheEntry(ENGINE, make_key(NAME, fields), NAME, fields, digest, len(data), None, {}, 1)


class Team:
    """One store, and whoever writes to it or reads it."""

    def __init__(self, url: str, folder: Path, signer: SigningKey) -> None:
        self.url, self.folder, self.signer = url, folder, signer
        self.said: list[str] = []

    def remote(self, writes: bool = True, **more) -> ObjectStore:
        return ObjectStore(self.url, writes, **more)

    def shared(self, writes: bool = True, **more) -> CacheClient:
        trust = {self.signer.trusted.name: self.signer.trusted}
        signs = self.signer if writes else None
        return CacheClient(self.remote(writes, **more), trust, signs, self.said.append)

    def publish(self, data: bytes, number: int = 0) -> tuple[CacheEntry, bool]:
        entry = entry_of(data, number)
        file = self.folder / f"{entry.sha256}.{os.urandom(4).hex()}"
        file.write_bytes(data)
        return entry, self.shared().publish(entry, {entry.sha256: file})

    def fetched(self, entry: CacheEntry, writes: bool = False) -> bytes | None:
        """The bytes a reader gets for an entry's key."""
        shared, to = self.shared(writes), self.folder / "fetched"
        found = shared.lookup(ENGINE, entry.key, entry.name)
        if not found or not shared.fetch(found.sha256, found.size, to, entry.name):
            return None
        return to.read_bytes()


@pytest.fixture(params=["file", "s3"])
def team(request, tmp_path, signer, monkeypatch) -> Team:
    if request.param == "file":
        return Team((tmp_path / "team store").as_uri(), tmp_path, signer)
    server = request.getfixturevalue("s3")
    for name, value in server.env(WRITER).items():
        monkeypatch.setenv(name, value)
    return Team(f"{server.url}/{os.urandom(4).hex()}", tmp_path, signer)


@pytest.mark.parametrize("size", [0, 1, 100_000, 20 << 20])
def test_what_was_given_is_had_byte_by_byte(team, size) -> None:
    data = os.urandom(size)
    entry, given = team.publish(data)
    assert given
    assert team.fetched(entry) == data
    assert team.publish(data) == (entry, False)  # nothing more to give
    assert team.said == []


def test_what_was_never_given_is_a_miss_and_no_news(team) -> None:
    team.publish(b"another", 1)
    assert team.fetched(entry_of(b"never")) is None
    assert team.said == []


WRONG = {
    "one flipped byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "another": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_bytes_are_told_and_a_writer_removes_them_and_gives_anew(team, how) -> None:
    data = os.urandom(50_000)
    entry, _ = team.publish(data)
    team.remote().replace(blob_path(entry.sha256), WRONG[how](data))
    assert team.fetched(entry) is None  # a reader's miss
    assert "the store's data of a__" in team.said[0]
    assert "removed" not in team.said[0]
    assert team.fetched(entry, writes=True) is None
    removed = len(WRONG[how](data)) == len(data)  # else the size that was signed may be wrong
    assert team.said[1].endswith("; removed") == removed
    assert (team.remote().size(blob_path(entry.sha256)) is None) == removed
    again = os.urandom(50_001)  # TensorRT need not repeat its bytes
    assert team.publish(again)[1]
    assert team.fetched(entry) == again


BAD_ENTRIES = {
    "empty": lambda team, entry, other: b"",
    "garbage": lambda team, entry, other: b"\0" * 100,
    "huge": lambda team, entry, other: b"{" * (5 << 20),
    "unsigned": lambda team, entry, other: b'{"body": "{}", "signature": ""}',
    "of another key": lambda team, entry, other: sign_entry(other, team.signer),
    "of another name": lambda team, entry, other: sign_entry(
        entry._replace(name="b" + NAME[1:]), team.signer
    ),
    "cut off": lambda team, entry, other: sign_entry(entry, team.signer)[:-40],
}


@pytest.mark.parametrize("how", BAD_ENTRIES)
def test_a_wrong_entry_is_a_miss_and_a_writer_puts_a_right_one_there(team, how) -> None:
    entry, other = team.publish(b"an engine")[0], team.publish(b"another engine", 1)[0]
    team.remote().replace(entry.path, BAD_ENTRIES[how](team, entry, other))
    assert team.fetched(entry) is None
    assert len(team.said) == 1
    assert "ignoring the store's " in team.said[0]
    assert team.publish(b"an engine")[1]
    assert team.fetched(entry) == b"an engine"


def test_an_entry_of_a_stranger_is_told_once_however_many_there_are(team) -> None:
    stranger = Team(team.url, team.folder, generate(team.folder / "stranger"))
    entries = [stranger.publish(b"an engine", number)[0] for number in range(3)]
    shared = team.shared(writes=False)
    assert [shared.lookup(ENGINE, entry.key, NAME) for entry in entries] == [None] * 3
    assert len(team.said) == 1
    assert stranger.signer.trusted.name in team.said[0]


def test_a_reader_gives_nothing(team) -> None:
    entry, file = entry_of(b"mine"), team.folder / "mine"
    file.write_bytes(b"mine")
    team.publish(b"there must be one", 1)
    assert not team.shared(writes=False).publish(entry, {entry.sha256: file})
    assert team.fetched(entry) is None


def test_a_file_that_was_replaced_meanwhile_is_not_given(team) -> None:
    entry, file = entry_of(b"x" * (20 << 20)), team.folder / "replaced"
    file.write_bytes(b"y" * (20 << 20))
    assert not team.shared().publish(entry, {entry.sha256: file})
    assert team.remote().size(blob_path(entry.sha256)) is None
    assert team.fetched(entry) is None


def test_64_who_publish_one_key_at_once_leave_one_engine_that_all_can_have(team) -> None:
    """TensorRT does not repeat its bytes: each has its own."""
    engines = [os.urandom(30_000 + number) for number in range(64)]
    barrier = threading.Barrier(16)

    def publish(data: bytes) -> bool:
        barrier.wait()
        return team.publish(data)[1]

    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(publish, engines))
    there = team.fetched(entry_of(b""))
    assert there in engines
    assert given[engines.index(there)]
    assert sum(given) == 1
    assert len(list(team.remote().all_of("ac"))) == 1
    assert team.said == []


def test_credentials_that_may_only_read_cannot_write(s3, tmp_path, signer, monkeypatch) -> None:
    for name, value in s3.env(WRITER).items():
        monkeypatch.setenv(name, value)
    team = Team(f"{s3.url}/readers", tmp_path, signer)
    entry, _ = team.publish(b"an engine")
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    assert team.fetched(entry) == b"an engine"
    with pytest.raises(StoreError, match=r"privileges|denied|403"):
        team.publish(b"another", 1)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError):
        team.fetched(entry)


def test_a_transfer_that_breaks_off_goes_on_where_it_was(s3, wire, tmp_path, signer, monkeypatch) -> None:
    for name, value in s3.env(WRITER).items():
        monkeypatch.setenv(name, value)
    team = Team(f"{s3.url}/breaks", tmp_path, signer)
    data = os.urandom(12 << 20)
    entry, _ = team.publish(data)
    first, second = wire(s3.port, 7 << 20), wire(s3.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{first.port}")
    remote, seen = team.remote(False, patience_s=2.0), []
    whole = remote._pieces

    def pieces(path, start, end):
        seen.append(start)
        if start:  # the network is back, by another way
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{second.port}")
            return team.remote(False)._pieces(path, start, end)
        return whole(path, start, end)

    remote._pieces = pieces
    with open(tmp_path / "fetched", "wb") as out:
        assert remote.download(blob_path(entry.sha256), entry.sha256, entry.size, out)
    assert (tmp_path / "fetched").read_bytes() == data
    assert seen[0] == 0
    assert seen[-1] > 0
    assert second.connections == 1


@pytest.mark.parametrize("team", ["s3"], indirect=True)
def test_where_no_thread_can_start_data_is_uploaded_and_hashed_without(team, monkeypatch) -> None:
    """As at the end of a run of Python 3.12, where uploads are finished."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    data = os.urandom(9 << 20)
    entry, uploaded = team.publish(data)
    assert (uploaded, team.fetched(entry), team.said) == (True, data, [])


def test_a_server_that_is_silent_is_given_up_within_bounds(monkeypatch, tmp_path, signer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for name, value in {**WRITER, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        with pytest.raises(StoreError, match="after"):
            ObjectStore("s3://team/x", patience_s=0.5).read(entry_path(ENGINE, "0" * 64))
        assert time.monotonic() - began < 10


def test_a_server_that_ignores_conditions_is_found_out_and_the_first_entry_stays(
    tmp_path,
    signer,
    monkeypatch,
) -> None:
    with Careless.served() as server:
        for name, value in {**WRITER, "AWS_ENDPOINT_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        team = Team("s3://team/x", tmp_path, signer)
        remote = team.remote()
        assert [remote.create("ac/one", b"first"), remote.create("ac/one", b"second")] == [True, False]
        assert server.objects == {"/team/x/ac/one": b"first"}  # and no probe is left
        entry, given = team.publish(b"an engine")
        assert given
        assert not team.publish(b"an engine of the same key")[1]
        assert team.fetched(entry) == b"an engine"


def test_nothing_is_read_beyond_the_size_that_was_signed(team) -> None:
    entry, _ = team.publish(b"an engine")
    team.remote().replace(blob_path(entry.sha256), b"an engine" + b"\0" * 1000)
    assert team.fetched(entry) == b"an engine"  # whose sha256 was signed
    team.remote().replace(blob_path(entry.sha256), b"\0an engine" + b"\0" * 1000)
    assert team.fetched(entry) is None


def test_a_folder_that_is_not_there_is_no_store_for_a_reader(tmp_path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        ObjectStore((tmp_path / "nowhere").as_uri())


def test_an_upload_whose_bytes_turn_out_wrong_leaves_nothing(team) -> None:
    file = team.folder / "large"
    file.write_bytes(b"x" * (40 << 20))
    with pytest.raises(DigestMismatch):
        team.remote().upload("cas/x", file, "0" * 64, 40 << 20)
    assert team.remote().size("cas/x") is None


class Drip(http.server.BaseHTTPRequestHandler):
    """Answers at once, and sends a byte now and then; in the end it hangs up."""

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Length", "300")
        self.send_header("Content-Range", "bytes 0-299/300")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Wed, 25 Nov 2026 04:00:00 GMT")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)

    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize("operation", ["read", "download", "list"])
def test_a_server_that_sends_a_byte_within_each_patience_has_an_end(monkeypatch, operation) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for name, value in {**WRITER, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        remote = ObjectStore("s3://team/x", patience_s=2.0, timeout_s=0.5)
        calls = {
            "read": lambda: remote.read(entry_path(ENGINE, "0" * 64)),
            "download": lambda: remote.download(blob_path("0" * 64), "0" * 64, 300, None),
            "list": lambda: list(remote.all_of("ac")),
        }
        with pytest.raises(StoreError, match="longer than STORE_TIMEOUT allows"):
            calls[operation]()
        server.shutdown()
