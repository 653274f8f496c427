"""Ed25519 keys: sign statements, and check them with trusted keys.

Uses `cryptography`, imported only when a signature is needed. A private key never appears in a message,
receipt, SCons record or file of this package.
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

MAX_BYTES = 1 << 20  # of a key file
_BEGIN = "-----BEGIN "


class SigningKey(NamedTuple):
    """A private key. keyid: sha256 of the public key's DER, as in cosign."""

    keyid: str
    sign: Callable[[bytes], bytes]

    def envelope(self, payload: bytes) -> bytes:
        """The signed envelope of a statement. Deterministic, as Ed25519 is."""
        return write_envelope(payload, Signature(self.keyid, self.sign(pae(PAYLOAD_TYPE, payload))))


class TrustedKey(NamedTuple):
    """A trusted public key. accepts(signature, data): whether the signature is valid."""

    keyid: str
    accepts: Callable[[bytes, bytes], bool]


def load_signer(key: str) -> SigningKey:
    """Load a private key. key: path of a PEM file, or the PEM itself. Raises SigningError, whose text
    never contains the key."""
    if key.lstrip().startswith(_BEGIN):
        where, data = "the signing key", key.strip().encode("utf-8", "replace") + b"\n"
    else:
        where, data = f"signing key {key}", _read_private(key)
    serialization, ed25519 = _cryptography()
    try:
        found = serialization.load_pem_private_key(data, password=None)
    except Exception:  # its text may quote the key
        raise SigningError(
            f"{where}: not an unencrypted PEM private key; create one with `python3 -m "
            "scons_tensorrt keygen FILE`"
        ) from None
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise SigningError(f"{where}: not an Ed25519 key; create one with `python3 -m scons_tensorrt keygen`")
    return SigningKey(_keyid(found.public_key(), serialization), found.sign)


def load_trusted(path: str) -> TrustedKey:
    """Load a public key from a PEM file. Raises SigningError."""
    data = _read(path, "trusted key")
    serialization, ed25519 = _cryptography()
    try:
        found = serialization.load_pem_public_key(data)
    except Exception:
        raise SigningError(f"trusted key {path}: not a PEM public key; use the .pub file") from None
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise SigningError(f"trusted key {path}: not an Ed25519 public key; use the .pub file")

    def accepts(signature: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            found.verify(signature, data)
            return True
        except InvalidSignature:
            return False

    return TrustedKey(_keyid(found, serialization), accepts)


def signed_by(envelope: Envelope, trusted: Sequence[TrustedKey]) -> str | None:
    """The ID of a trusted key that signed the envelope, None if none did. Key IDs in it are ignored."""
    signed = pae(envelope.payload_type, envelope.payload)
    for key in trusted:
        if any(key.accepts(each.sig, signed) for each in envelope.signatures):
            return key.keyid
    return None


def generate() -> tuple[bytes, bytes, str]:
    """A new key pair: (private PEM, public PEM, key ID). Raises SigningError."""
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
    """The contents of a key file. A path that does not exist is not repeated: it may be a key."""
    if not os.path.exists(path):
        raise SigningError(
            "the signing key is neither an existing file nor a PEM key; set SIGNING_KEY= to the path of a "
            "PEM file"
        )
    return _read(path, "signing key")


def _read(path: str, what: str) -> bytes:
    try:
        return read_small(path, MAX_BYTES)
    except OSError as error:
        raise SigningError(f"{what} {path}: {error.strerror}; use the path of a PEM file") from None


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise SigningError(
            f"signatures need cryptography, which is not installed: run `{sys.executable} -m pip install "
            "cryptography`"
        ) from None
    return serialization, ed25519
