"""A bucket whose server sends more than it was asked for, and lists what no store has."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from parts import WRITER, key, signer

from scons_tensorrt.cache import bucket_pages
from scons_tensorrt.cache.copy_and_hash import DigestMismatch
from scons_tensorrt.cache.maintenance import gc
from scons_tensorrt.cache.object_store import ObjectStore
from scons_tensorrt.errors import StoreError
from scons_tensorrt.files.signing_keys import TrustedKeys

MANY = 64 << 20  # bytes that the server sends at most
NAMES = ["a" * 64, "b" * 64, "c" * 64]


class Server(http.server.ThreadingHTTPServer):
    """names: what it lists below any prefix; pages: how often it lists them; sent: bytes of objects."""

    daemon_threads = True
    names: list[str]
    pages = 1
    sent = 0
    deleted = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        if "list-type" in asked:
            return self._list(asked["prefix"][0], asked.get("start-after", [""])[0])
        self.send_response(206)
        asked_for = self.headers["Range"].removeprefix("bytes=")
        self.send_header("Content-Range", f"bytes {asked_for}/{1 << 40}")
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        while self.server.sent < MANY:
            self.wfile.write(b"x" * (1 << 20))
            self.server.sent += 1 << 20
        self.close_connection = True

    def _list(self, prefix: str, after: str) -> None:
        self.server.pages -= 1
        keys = [key for name in self.server.names if (key := prefix + name) > after]
        more = self.server.pages > 0
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            "<ETag>1</ETag><Size>5</Size></Contents>"
            for key in keys
        )
        token = "<NextContinuationToken>x</NextContinuationToken>" * more
        body = (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}"
            "</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self) -> None:
        self.server.deleted += 1
        self.send_response(204)
        self.end_headers()

    do_POST = do_DELETE

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        more = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}"}
        for name, value in {**WRITER, **more, "AWS_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        server.names = list(NAMES)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def remote() -> ObjectStore:
    return ObjectStore("s3://team/engines", True)


def listed(prefix: str = "ac") -> list[str]:
    return [item.path for item in remote().all_of(prefix)]


def test_no_more_of_a_small_object_is_read_than_was_asked_for(server: Server) -> None:
    found = remote().read("ac/" + NAMES[0], 1000)
    assert found is not None
    assert found[0] == b"x" * 1000
    assert server.sent < MANY


def test_no_more_of_an_object_is_written_than_was_signed(server: Server) -> None:
    to = io.BytesIO()
    with pytest.raises(DigestMismatch, match="more than 1000 bytes"):
        remote().download("cas/" + NAMES[0], NAMES[0], 1000, to)
    assert len(to.getvalue()) <= 1000
    assert server.sent < MANY


def test_a_listing_that_repeats_itself_ends(server: Server) -> None:
    server.pages = 5
    with pytest.raises(StoreError, match=r"the listing of ac/ has ac/a+ twice; check the server"):
        listed()


def test_a_listing_that_does_not_end_ends(server: Server, monkeypatch) -> None:
    assert listed() == ["ac/" + name for name in NAMES]
    monkeypatch.setattr(bucket_pages, "MOST", 2)
    with pytest.raises(StoreError, match="the listing of ac/ has more than 2 objects; check the server"):
        listed()


def test_names_before_all_of_ours_are_not_read(server: Server) -> None:
    server.names = ["../" + "b" * 64, "/" + "c" * 64, *NAMES]
    assert listed() == ["ac/" + name for name in NAMES]


def test_a_name_that_cannot_be_read_is_told_and_nothing_goes(server: Server, signer) -> None:
    """What else stands on that page is not known: its bytes would be taken for nobody's."""
    server.names = ["5/../" + "b" * 64, *NAMES]
    with pytest.raises(StoreError, match=r"unreadable name, .*5/\.\./b+; remove it with the bucket's own"):
        gc(remote(), {signer.trusted.name: signer.trusted}, grace_s=0.0)
    assert server.deleted == 0
