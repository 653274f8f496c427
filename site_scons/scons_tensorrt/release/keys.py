"""Ed25519 keys: signing a statement, and checking one with the keys that a device trusts.

`cryptography` does the work and is imported only here, when a signature is asked for. A private key
is read and used; it is put into no message, receipt, record of SCons, or file of ours.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import SigningError
from ..files.reading import read_small
from .provenance import PAYLOAD_TYPE, Envelope, Signature, pae, write_envelope

LARGEST = 1 << 20  # bytes of a key file
_BEGIN = "-----BEGIN "


class SigningKey(NamedTuple):
    """keyid: sha256 of the public key's DER, as cosign-like tools name keys."""

    keyid: str
    sign: Callable[[bytes], bytes]

    def envelope(self, payload: bytes) -> bytes:
        """The signed envelope of a statement; Ed25519 gives the same bytes each time."""
        return write_envelope(payload, Signature(self.keyid, self.sign(pae(PAYLOAD_TYPE, payload))))


class TrustedKey(NamedTuple):
    """A public key that is trusted. accepts: whether it signed these bytes."""

    keyid: str
    accepts: Callable[[bytes, bytes], bool]


def load_signer(key: str) -> SigningKey:
    """The signer of a private key: a PEM file's path, or the PEM itself. Raises SigningError, which
    never holds the key."""
    if key.lstrip().startswith(_BEGIN):
        where, data = "the signing key", key.strip().encode("utf-8", "replace") + b"\n"
    else:
        where, data = f"signing key {key}", _read_private(key)
    serialization, ed25519 = _cryptography()
    try:
        found = serialization.load_pem_private_key(data, password=None)
    except Exception:  # its text may quote what it read
        raise SigningError(
            f"{where}: not an unencrypted private key in PEM; write one with `python3 -m "
            "scons_tensorrt keygen FILE`"
        ) from None
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise SigningError(f"{where}: not an Ed25519 key; write one with `python3 -m scons_tensorrt keygen`")
    return SigningKey(_keyid(found.public_key(), serialization), found.sign)


def load_trusted(path: str) -> TrustedKey:
    """The public key in a PEM file. Raises SigningError."""
    data = _read(path, "trusted key")
    serialization, ed25519 = _cryptography()
    try:
        found = serialization.load_pem_public_key(data)
    except Exception:
        raise SigningError(f"trusted key {path}: not a public key in PEM; give the .pub file") from None
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise SigningError(f"trusted key {path}: not an Ed25519 key; give the .pub file of one")

    def accepts(signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            found.verify(signature, data)
            return True
        except InvalidSignature:
            return False

    return TrustedKey(_keyid(found, serialization), accepts)


def signed_by(envelope: Envelope, trusted: Sequence[TrustedKey]) -> str | None:
    """The keyid of a trusted key that signed an envelope, whatever the envelope says of its keys."""
    signed = pae(envelope.payload_type, envelope.payload)
    for key in trusted:
        if any(key.accepts(each.sig, signed) for each in envelope.signatures):
            return key.keyid
    return None


def generate() -> tuple[bytes, bytes, str]:
    """A new pair of keys: private PEM, public PEM, keyid. Raises SigningError."""
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public, _keyid(key.public_key(), serialization)


def _keyid(public: Any, serialization: Any) -> str:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _read_private(path: str) -> bytes:
    """What is no path of a file may be a key after all: it is not repeated."""
    if not os.path.exists(path):
        raise SigningError(
            "the signing key is neither a file that is there nor a key in PEM; give the path of a PEM "
            "file in SIGNING_KEY="
        )
    return _read(path, "signing key")


def _read(path: str, what: str) -> bytes:
    try:
        return read_small(path, LARGEST)
    except OSError as error:
        raise SigningError(f"{what} {path}: {error.strerror}; give the path of a PEM file") from None


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise SigningError(
            f"signatures need cryptography, which {sys.executable} has not: run `{sys.executable} -m "
            "pip install cryptography`"
        ) from None
    return serialization, ed25519
