"""Ed25519 keys in PEM files (written by `keygen`): one that signs entries, and the trusted ones.

A key's name is the first 16 hex characters of its key ID, the sha256 of the public key as
SubjectPublicKeyInfo in DER.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC = ".pub"  # suffix of public keys in a folder


class EntrySigner:
    """Signs with one private key. name: of the key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()
        self.name = name_of(self.public)

    @classmethod
    def load(cls, text: str) -> EntrySigner:
        """text: a PEM key, or the path of one. Raises StoreError, which never quotes the key."""
        inline = text.lstrip().startswith("-----BEGIN")
        if not inline and not os.path.exists(text):  # not quoted: it may be a mangled key
            raise StoreError("STORE_KEY is neither an existing file nor a PEM key")
        where = "STORE_KEY" if inline else text
        data = text.strip().encode() + b"\n" if inline else _read(Path(text))
        private = _parse(data, where, "load_pem_private_key", password=None)
        if not hasattr(private, "sign") or not _is_ed25519(private):
            raise StoreError(f"{where}: not an Ed25519 private key")
        return cls(private)

    def sign(self, data: bytes) -> bytes:
        return bytes(self._key.sign(data))


class TrustedSigners:
    """The trusted public keys, by name."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.keys = keys

    @classmethod
    def load(cls, places: Iterable[str], signer: EntrySigner | None = None) -> TrustedSigners:
        """Load PEM files, folders of `*.pub`, and the signer's own key. Raises StoreError."""
        keys = {}
        for place in map(Path, places):
            files = sorted(place.glob(f"*{PUBLIC}")) if place.is_dir() else [place]
            for file in files:
                public = _parse(_read(file), str(file), "load_pem_public_key")
                if not _is_ed25519(public):
                    raise StoreError(f"{file}: not an Ed25519 public key")
                keys[name_of(public)] = public
        if signer:
            keys[signer.name] = signer.public
        return cls(keys)

    def holds(self, name: str, signature: bytes, data: bytes) -> bool:
        """Whether the key of this name is trusted and made this signature."""
        from cryptography.exceptions import InvalidSignature

        key = self.keys.get(name)
        if key is None:
            return False
        try:
            key.verify(signature, data)
            return True
        except InvalidSignature:
            return False


def name_of(public: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives import serialization as form

    der = public.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def _is_ed25519(key: Any) -> bool:
    return "Ed25519" in type(key).__name__


def _parse(data: bytes, where: str, loader: str, **more: Any) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise StoreError("cryptography is not installed: run `python3 -m pip install cryptography`") from None
    try:
        return getattr(serialization, loader)(data, **more)
    except Exception:  # not quoted: it may contain the key
        half = "private" if "private" in loader else "public"
        raise StoreError(f"{where}: not an unencrypted PEM {half} key") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
