"""A registry that answers wrongly on purpose: credentials go to no other server, and each answer is one
line."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from handing import Handoff

from conftest import CLEAN, REPO
from scons_tensorrt.cli import main
from scons_tensorrt.errors import HandoffError
from scons_tensorrt.release.oci_artifact import ARTIFACT, FILEPATH, files_in

pytest.importorskip("oras")
pytest_plugins = ["handing"]
LOGIN = base64.b64encode(b"builder:secret").decode()
BASIC, BEARER = {"Www-Authenticate": 'Basic realm="x"'}, {"Www-Authenticate": "Bearer"}
Answer = tuple[int, bytes, dict[str, str]]


class Server:
    """Two servers on loopback: a registry with a login, and another. answers: by method and the beginning of
    a path; received: what the other one was sent as Authorization."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.received: list[str | None] = []
        self._stopped = threading.Event()
        self._servers = [self._start(self._registry), self._start(self._other)]
        self.address, self.other = (f"127.0.0.1:{server.server_port}" for server in self._servers)

    def _start(self, answer_of) -> http.server.ThreadingHTTPServer:
        stopped = self._stopped

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body, headers = answer_of(self.command, self.path, self.headers.get("Authorization"))
                self.send_response(status)
                for name, text in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                if "Wait" in headers:
                    stopped.wait(60)
                self.close_connection = "Content-Length" in headers

            do_GET = do_HEAD = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _registry(self, method: str, path: str, login: str | None) -> Answer:
        if path == "/v2/" and (method, path) not in self.answers:
            return (200, b"{}", {}) if login else (401, b"", BASIC)
        for (wanted, start), answer in self.answers.items():
            if method == wanted and path.startswith(start):
                return answer
        return 404, b"", {}

    def _other(self, _method: str, _path: str, login: str | None) -> Answer:
        self.received.append(login)
        return (201, b"", {}) if login else (401, b"", BASIC)

    def close(self) -> None:
        self._stopped.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {made.address: {"auth": LOGIN}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield made
    made.close()


def push(handoff: Handoff, server: Server) -> int:
    return main(
        ["push", f"oci://{server.address}/a/b:1", "--manifest", str(handoff.manifest), "--plain-http"]
    )


def pull(server: Server, folder: Path) -> int:
    return main(["pull", f"oci://{server.address}/a/b:1", str(folder), "--plain-http"])


def test_credentials_are_not_sent_to_where_an_upload_goes(handoff: Handoff, server: Server, capsys) -> None:
    server.answers = {
        ("POST", "/v2/a/b/blobs/uploads/"): (202, b"", {"Location": f"http://{server.other}/up"})
    }
    assert push(handoff, server) == 1
    assert server.received == [None]
    said = f"HandoffError: oci://{server.address}/a/b:1: manifest.json: Unauthorized (401)\n"
    assert capsys.readouterr().err == said


def test_credentials_are_those_of_docker_config_alone(handoff: Handoff, server: Server, tmp_path) -> None:
    """oras reads ~/.docker/config.json too, in an order that differs between runs."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("not JSON")
    server.answers = {("POST", "/v2/a/b/blobs/"): (202, b"", {"Location": "/v2/up"})}
    server.answers |= {("PUT", "/v2/"): (201, b"", {})}
    assert push(handoff, server) == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"", BEARER), "manifest.json: {0} refuses the login: run `docker login {0}` again"),
        ((403, b"", BEARER), "manifest.json: {0} refuses the login: run `docker login {0}` again"),
        ((202, b"", {}), "manifest.json: the registry names no place to upload to"),
        ((429, b'{"errors":[{"message":"too many"}]}', {}), "manifest.json: too many (429)"),
        ((418, b"[1]", {}), "manifest.json: I'm a Teapot (418)"),
        ((418, b'{"errors":[{"message":"a\\nb\\u001b[31m"}]}', {}), r"manifest.json: a\nb\x1b[31m (418)"),
    ],
)
def test_a_refused_upload_is_one_line(answer, said, handoff: Handoff, server: Server, capsys) -> None:
    server.answers = {("GET", "/v2/"): (401, b"", BEARER)} if answer[2] == BEARER else {}
    server.answers |= {("HEAD", "/v2/a/b/blobs/"): (404, b"", {}), ("POST", "/v2/a/b/blobs/"): answer}
    assert push(handoff, server) == 1
    wanted = said.format(server.address)
    assert capsys.readouterr().err == f"HandoffError: oci://{server.address}/a/b:1: {wanted}\n"


BROKEN = {"Content-Length": "1000"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"{", BROKEN), "the registry broke the connection; run again"),
        ((200, b"not of gzip", {"Content-Encoding": "gzip"}), "the registry's answer cannot be decoded"),
        ((200, b"[" * 200_000, {}), "damaged (RecursionError)"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_line(answer, said, server: Server, tmp_path, capsys) -> None:
    server.answers = {("GET", "/v2/a/b/manifests/"): answer}
    assert pull(server, tmp_path / "new") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].startswith(f"HandoffError: oci://{server.address}/a/b:1: ")
    assert not (tmp_path / "new").exists()


def layer(name: str, data: bytes) -> dict:
    sha256 = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"digest": sha256, "size": len(data), "annotations": {FILEPATH: name}}


def artifact(*layers: dict) -> bytes:
    return json.dumps({"artifactType": ARTIFACT, "layers": layers}).encode()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\ud800", "a" * 256, "ü" * 128])
def test_a_name_that_a_terminal_or_a_folder_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(HandoffError, match="a layer has no name of a file of its own"):
        files_in(artifact(layer(name, b"x")))


def test_what_is_refused_is_named_by_its_own_path(server: Server, tmp_path, capsys) -> None:
    """Not by that of the temporary folder."""
    server.answers = {
        ("GET", "/v2/a/b/manifests/"): (200, artifact(layer("manifest.json", b"x")), {}),
        ("GET", "/v2/a/b/blobs/"): (200, b"x", {}),
    }
    assert pull(server, tmp_path / "new") != 0
    assert capsys.readouterr().out == (
        f"REFUSED {tmp_path}/new/manifest.json: manifest: {tmp_path}/new/manifest.json.sha256: "
        "sidecar missing\n"
    )


def test_a_pull_that_is_stopped_leaves_nothing(server: Server, tmp_path) -> None:
    server.answers = {
        ("GET", "/v2/a/b/manifests/"): (200, artifact(layer("manifest.json", b"x" * 100)), {}),
        ("GET", "/v2/a/b/blobs/"): (200, b"x" * 50, {"Content-Length": "100", "Wait": "yes"}),
    }
    folder = tmp_path / "pulled"
    command = [sys.executable, "-m", "scons_tensorrt", "pull", f"oci://{server.address}/a/b:1"]
    environment = {**CLEAN, "PYTHONPATH": str(REPO / "site_scons"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    process = subprocess.Popen([*command, folder / "new", "--plain-http"], env=environment)
    end = time.monotonic() + 60
    while not list(folder.glob("*/*/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 143
    assert list(folder.iterdir()) == []
