"""Certificates of one authority, and addresses without TLS, which are refused."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading

import pytest

pytest.importorskip("trustme")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scons_tensorrt.errors import DispatchError
from scons_tensorrt.remote.task import TOPICS, task_of, topic_of
from scons_tensorrt.remote.tls import check_url, make_certificates, security


def context(folder, purpose) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cafile=str(folder / "ca.pem"))
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13
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


def hand_made(folder, name, issuer=None):
    """A folder of certificates as they were before trustme made them: its issuer makes an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca, signer = issuer or (None, key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    never = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    usage = x509.KeyUsage(True, *never.values(), ca is None, ca is None, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=825))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if ca:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    cert = builder.sign(signer, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / name).mkdir(parents=True)
    (folder / name / "key.pem").write_bytes(key.private_bytes(*form))
    (folder / name / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / name / "ca.pem").write_bytes((ca or cert).public_bytes(serialization.Encoding.PEM))
    return cert, key


def test_an_authority_made_by_hand_is_kept_and_signs_more(tmp_path) -> None:
    authority = hand_made(tmp_path, "authority")
    hand_made(tmp_path, "old", authority)
    (new,) = make_certificates(tmp_path, ["old", "new"])
    assert new.name == "new"
    assert meet(tmp_path / "old", new) == meet(new, tmp_path / "old") == "hello"
    assert (new / "ca.pem").read_bytes() == (tmp_path / "authority/ca.pem").read_bytes()


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("10.0.0.7", x509.IPAddress, ipaddress.ip_address("10.0.0.7")),
        ("agx-2.example.com", x509.DNSName, "agx-2.example.com"),
        ("orin_nx", x509.DNSName, "orin-nx"),
        ("Ann Lee, CI", x509.DNSName, "ann-lee-ci"),
        ("zoë", x509.DNSName, "xn--zo-ija"),
    ],
)
def test_a_certificate_has_the_name_of_its_folder(tmp_path, name, kind, value) -> None:
    (place,) = make_certificates(tmp_path, [name])
    cert = x509.load_pem_x509_certificate((place / "cert.pem").read_bytes())
    assert cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    alternative = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(kind) == [value]
    assert 824 <= (cert.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)).days <= 825


@pytest.mark.parametrize("name", ["x" * 65, "-", "a..b"])
def test_a_name_that_no_certificate_can_have_is_refused(tmp_path, name) -> None:
    with pytest.raises(DispatchError, match="cannot name a certificate"):
        make_certificates(tmp_path, [name])
    assert not (tmp_path / name).exists()


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
