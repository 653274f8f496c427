"""Certificates of one authority, and addresses without TLS, which are refused."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

pytest.importorskip("cryptography")

from scons_tensorrt.errors import DispatchError
from scons_tensorrt.remote.tls import check_url, make_certificates, security
from scons_tensorrt.remote.topics import TOPICS, task_of, topic_of


def context(folder, purpose) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cafile=str(folder / "ca.pem"))
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    return made


def meet(server, client) -> str:
    """What a server hears of a client: a handshake of both, with certificates."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        heard = []

        def serve() -> None:
            try:
                plain, _ = listening.accept()
                with context(server, ssl.Purpose.CLIENT_AUTH).wrap_socket(plain, server_side=True) as each:
                    heard.append(each.recv(9).decode())
            except OSError as error:
                heard.append(type(error).__name__)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listening.getsockname()) as plain,
                context(client, ssl.Purpose.SERVER_AUTH).wrap_socket(plain) as each,
            ):
                each.sendall(b"hello")
        except OSError:
            pass
        thread.join(timeout=10)
    return heard[0]


def test_those_of_one_authority_trust_each_other_and_no_others(tmp_path) -> None:
    made = make_certificates(tmp_path / "a", ["scheduler", "10.0.0.7"])
    assert [path.name for path in made] == ["scheduler", "10.0.0.7"]
    more = make_certificates(tmp_path / "a", ["scheduler", "late"])
    assert [path.name for path in more] == ["late"]
    make_certificates(tmp_path / "b", ["client"])
    assert meet(tmp_path / "a/scheduler", tmp_path / "a/10.0.0.7") == "hello"
    assert meet(tmp_path / "a/scheduler", tmp_path / "a/late") == "hello"
    assert meet(tmp_path / "a/scheduler", tmp_path / "b/client").startswith("SSL")
    assert meet(tmp_path / "b/client", tmp_path / "a/late").startswith("SSL")


def test_only_the_owner_reads_keys(tmp_path) -> None:
    make_certificates(tmp_path, ["worker"])
    keys = sorted(tmp_path.rglob("key.pem"))
    assert [path.parent.name for path in keys] == ["authority", "worker"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (*keys, *(key.parent for key in keys)))


@pytest.mark.parametrize("name", ["authority", "../x", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name) -> None:
    with pytest.raises(DispatchError, match="cannot name a folder"):
        make_certificates(tmp_path, [name])


def test_a_damaged_authority_is_told(tmp_path) -> None:
    make_certificates(tmp_path, [])
    (tmp_path / "authority/ca.pem").write_text("none")
    with pytest.raises(DispatchError, match="remove the folder to make a new one"):
        make_certificates(tmp_path, ["x"])


@pytest.mark.parametrize("url", ["tls://10.0.0.1:8786", "tls://[::1]:8786", "tls://build.example.com:1"])
def test_an_address_with_tls(url) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["tcp://h:8786", "h:8786", "tls://h", "tls://:8786", "tls://h:port", "ucx://h:1", "tls://h/x:1"],
)
def test_any_other_is_refused(url) -> None:
    with pytest.raises(DispatchError, match="without TLS anyone could run code"):
        check_url(url)


def test_a_folder_without_a_certificate_is_told(tmp_path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(DispatchError, match=r"no ca\.pem; DISPATCH_CERTIFICATES must name a folder with"):
        security(tmp_path)


def test_keys_share_few_topics_and_no_task() -> None:
    keys = [f"{number:08x}{'0' * 56}" for number in range(1000)]
    assert len({topic_of(key) for key in keys}) == TOPICS
    assert len({task_of(key, attempt) for key in keys for attempt in (0, 1)}) == 2000
