"""Ed25519 and ECDSA P-256 keys in PEM files, not encrypted. A signing key is private, a trusted key public.

Uses `cryptography`, imported only when a key is loaded. A signing key never appears in a message,
receipt, SCons record or file of this package.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import SigningError
from ..values import Value
from .reading import read_small

PUBLIC_SUFFIX = ".pub"  # of trusted keys in a folder
MAX_BYTES = 1 << 20  # of a key file
ED25519, ECDSA = KINDS = ("ed25519", "ecdsa-p256")
_CURVE = "secp256r1"  # P-256 in OpenSSL's words
_P256 = bytes.fromhex("06082a8648ce3d030107")  # its object identifier in DER, RFC 5480


class TrustedKey(Value):
    """A public key. key_id: sha256 of the key as SubjectPublicKeyInfo in DER, as in cosign."""

    key_id: str
    public: Any

    @property
    def name(self) -> str:
        """The short key ID, as in cache entries."""
        return self.key_id[:16]

    @property
    def kind(self) -> str:
        return ECDSA if hasattr(self.public, "curve") else ED25519

    def pem(self) -> bytes:
        return _public_pem(self.public)

    def accepts(self, signature: bytes, data: bytes) -> bool:
        """Whether this key made the signature of `data`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.public.verify(signature, data, *([_ecdsa()] if self.kind == ECDSA else []))
            return True
        except InvalidSignature:
            return False


class SigningKey(Value):
    """A private key, and the trusted key that accepts its signatures."""

    private: Any
    trusted: TrustedKey

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`: the same bytes each time, as Ed25519 and RFC 6979 define it. Raises
        SigningError."""
        how = [_ecdsa(deterministic_signing=True)] if self.trusted.kind == ECDSA else []
        return bytes(self.private.sign(data, *how))


TrustedKeys = Mapping[str, TrustedKey]  # by name


def is_pem(key: str) -> bool:
    """Whether a signing key is given as text rather than as the path of a file."""
    return "\n" in key or key.lstrip().startswith("-----")


def is_ecdsa(key: str) -> bool:
    """Whether a signing key, as for `load_signing_key`, is of P-256, without importing `cryptography`; False
    if it cannot be read."""
    try:
        text = key if is_pem(key) else read_small(key, MAX_BYTES).decode("ascii")
        lines = [line.strip() for line in text.strip().splitlines()]
        return _P256 in base64.b64decode("".join(line for line in lines if not line.startswith("-")))
    except (OSError, ValueError):
        return False


def load_signing_key(key: str) -> SigningKey:
    """Load a private key. key: path of a PEM file, or the PEM itself. Raises SigningError, whose text
    never contains the key."""
    if is_pem(key):
        where, data = "the signing key", key.strip().encode("utf-8", "replace") + b"\n"
    elif os.path.exists(key):
        where, data = f"signing key {key}", _read(key, "signing key")
    else:  # not repeated: it may be a damaged key
        raise SigningError(
            "the signing key is neither an existing file nor a PEM key; use the path of a PEM file"
        )
    serialization, _, _ = _cryptography()
    hint = "create one with `python3 -m scons_tensorrt keygen FILE`"
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except Exception:  # its text may quote the key
        raise SigningError(f"{where}: not an unencrypted PEM private key; {hint}") from None
    if not _is_ours(private):
        raise SigningError(f"{where}: not an Ed25519 or ECDSA P-256 key; {hint}")
    return SigningKey(private, TrustedKey(_key_id(private.public_key()), private.public_key()))


def load_trusted_keys(places: Iterable[str], signing_key: SigningKey | None = None) -> TrustedKeys:
    """The public keys in PEM files and in the `*.pub` of folders, and that of a signing key. Raises
    SigningError."""
    found = {signing_key.trusted.name: signing_key.trusted} if signing_key else {}
    for place in map(Path, places):
        files = sorted(place.glob(f"*{PUBLIC_SUFFIX}")) if place.is_dir() else [place]
        for key in map(_load_trusted_key, files):
            found[key.name] = key
    return found


def _load_trusted_key(path: Path) -> TrustedKey:
    data = _read(path, "trusted key")
    serialization, _, _ = _cryptography()
    try:
        public = serialization.load_pem_public_key(data)
    except Exception:  # its text may quote a private key
        raise SigningError(f"trusted key {path}: not a PEM public key; use the .pub file") from None
    if not _is_ours(public):
        raise SigningError(f"trusted key {path}: not an Ed25519 or ECDSA P-256 public key; use the .pub file")
    return TrustedKey(_key_id(public), public)


def generate(kind: str = ED25519) -> tuple[bytes, bytes, str]:
    """A new key pair: (private PEM, public PEM, key ID). kind: one of KINDS. Raises SigningError."""
    serialization, ed25519, ec = _cryptography()
    ecdsa = kind == ECDSA
    private = ec.generate_private_key(ec.SECP256R1()) if ecdsa else ed25519.Ed25519PrivateKey.generate()
    pem, public = serialization.Encoding.PEM, private.public_key()
    return (
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        _public_pem(public),
        _key_id(public),
    )


def _is_ours(key: Any) -> bool:
    """Whether a private or public key is of a kind that is used here."""
    _, ed25519, ec = _cryptography()
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return bool(key.curve.name == _CURVE)
    return isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey))


def _ecdsa(**options: bool) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    _, _, ec = _cryptography()
    try:
        return ec.ECDSA(hashes.SHA256(), **options)
    except (TypeError, UnsupportedAlgorithm):
        raise SigningError(
            "an ECDSA key needs cryptography 43 or later with OpenSSL 3.2 or later, so that signatures "
            "repeat; update cryptography, or use an Ed25519 key"
        ) from None


def _public_pem(public: Any) -> bytes:
    serialization, _, _ = _cryptography()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(public.public_bytes(serialization.Encoding.PEM, form))


def _key_id(public: Any) -> str:
    serialization, _, _ = _cryptography()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _read(path: str | Path, what: str) -> bytes:
    try:
        return read_small(path, MAX_BYTES)
    except OSError as error:
        raise SigningError(f"{what} {path}: {error.strerror}; use the path of a PEM file") from None


def _cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    except ImportError:
        raise SigningError(
            f"signatures need cryptography, which is not installed: run `{sys.executable} -m pip install "
            "cryptography`"
        ) from None
    return serialization, ed25519, ec
