"""Mutual TLS. Anyone who can talk to a scheduler can run code on every worker, so every peer needs a
certificate from the private authority of this scheduler.

One folder holds the files of a machine or person: `ca.pem`, `cert.pem` and `key.pem`.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DispatchError

if TYPE_CHECKING:
    from cryptography import x509

FILES = ("ca.pem", "cert.pem", "key.pem")
AUTHORITY = "authority"
DAYS = 825
SCHEME = "tls://"


def check_url(url: str) -> str:
    """`url`, if it is a tls:// address. Raises DispatchError otherwise."""
    host, _, port = url.removeprefix(SCHEME).rpartition(":")
    if not url.startswith(SCHEME) or not host or not port.isdigit() or "/" in host:
        raise DispatchError(
            f"DISPATCH={url}: write tls://HOST:PORT; without TLS anyone could run code on the workers"
        )
    return url


def security(folder: Path) -> Any:
    """Dask's Security with the files of a folder. Raises DispatchError."""
    from distributed.security import Security

    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DispatchError(
            f"{folder}: no {missing[0]}; DISPATCH_CERTIFICATES must name a folder with {', '.join(FILES)}, "
            "created by `python3 -m scons_tensorrt certificates`"
        )
    ca, cert, key = (str(folder / name) for name in FILES)
    roles = {
        f"tls_{role}_{what}": path
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", cert), ("key", key))
    }
    return Security(tls_ca_file=ca, require_encryption=True, **roles)


def make_certificates(folder: Path, names: list[str]) -> list[Path]:
    """Create a certificate folder in `folder` for each name, signed by `folder/authority`, which is created
    if missing; returns the new folders. Existing folders stay. Raises DispatchError, OSError."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise DispatchError(
            "cryptography is not installed: run `python3 -m pip install cryptography`"
        ) from None
    authority = folder / AUTHORITY
    if not (authority / "key.pem").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _sign(x509, "scons-tensorrt dispatch", key.public_key(), None, key)
        _write(authority, {"ca.pem": _pem(cert), "key.pem": _secret(key)})
    ca, signer = _load(authority)
    made = []
    for name in names:
        place = folder / name
        if name == AUTHORITY or "/" in name or name.startswith("."):
            raise DispatchError(f"{name!r} cannot name a folder of certificates; choose another name")
        if place.exists():
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _sign(x509, name, key.public_key(), ca, signer)
        _write(place, {"ca.pem": _pem(ca), "cert.pem": _pem(cert), "key.pem": _secret(key)})
        made.append(place)
    return made


def _sign(x509: Any, name: str, public: Any, ca: x509.Certificate | None, signer: Any) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    authority = ca is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # the clocks of boards are often wrong
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_usage(x509, authority), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(x509, name)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(x509: Any, authority: bool) -> Any:
    no = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    never = dict.fromkeys((*no, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=authority, crl_sign=authority, **never)


def _name(x509: Any, name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(cert: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(cert.public_bytes(serialization.Encoding.PEM))


def _secret(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    return bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))


def _load(authority: Path) -> tuple[x509.Certificate, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        ca = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
        return ca, serialization.load_pem_private_key((authority / "key.pem").read_bytes(), None)
    except ValueError as error:
        raise DispatchError(f"{authority}: {error}; remove the folder to make a new one") from None


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write new files that only their owner can read."""
    folder.mkdir(parents=True, mode=0o700)
    for name, data in files.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as out:
            out.write(data)
