"""Signing keys and trusted keys, and what earlier versions signed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from handing import HOST, A, B, plan, sha

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.cache.entry import ENGINE, CacheEntry, sign_entry, verify_entry
from scons_tensorrt.errors import SigningError
from scons_tensorrt.files.signing_keys import ECDSA, generate, is_ecdsa, load_signing_key, load_trusted_keys
from scons_tensorrt.release.manifest_signature import read_envelopes, sign_statement
from scons_tensorrt.release.verify_release import Status, VerifyRequest, verify

# Written before signing of entries and of manifests was one module, with the key below.
SIGNED = Path(__file__).parent / "signed"
SEED = bytes(range(32))
KEY_ID = "a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5"
INGREDIENTS = {"option precision": "fp16"}
ENTRY = CacheEntry(ENGINE, make_key(A, INGREDIENTS), A, INGREDIENTS, "0" * 64, 12, None, {"log": "x"}, 1)


@pytest.fixture
def pem() -> str:
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode()


def test_an_entry_signed_before_is_verified() -> None:
    trusted = load_trusted_keys([str(SIGNED / "key.pub")])
    found = verify_entry((SIGNED / "entry.json").read_bytes(), trusted, ENGINE, ENTRY.key)
    assert found == ENTRY._replace(by=KEY_ID[:16])


def test_an_entry_is_signed_with_the_same_bytes(pem: str) -> None:
    assert sign_entry(ENTRY, load_signing_key(pem)) == (SIGNED / "entry.json").read_bytes()


@pytest.mark.parametrize("trusted", ["key.pub", "."])
def test_a_manifest_signed_before_is_verified(tmp_path: Path, trusted: str) -> None:
    for name in ("manifest.json", "manifest.json.sha256", "SHA256SUMS", "manifest.json.intoto.jsonl"):
        shutil.copy(SIGNED / name, tmp_path)
    for name, data in ((A, plan(b"engine a")), (B, plan(b"engine b"))):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.sha256").write_text(sha(data))
    request = VerifyRequest([], str(tmp_path / "manifest.json"), HOST, [str(SIGNED / trusted)])
    findings = list(verify(request))
    assert {each.status for each in findings} == {Status.OK}
    assert f"signed by key {KEY_ID}" in findings[-1].why


def test_a_statement_is_signed_with_the_same_bytes(pem: str) -> None:
    before = (SIGNED / "manifest.json.intoto.jsonl").read_bytes()
    payload = read_envelopes(before)[0].payload
    assert sign_statement(payload, load_signing_key(pem)) == before


def test_a_folder_and_the_signing_key_itself_are_trusted(tmp_path: Path, pem: str) -> None:
    signing_key = load_signing_key(pem)
    assert load_trusted_keys([], signing_key) == load_trusted_keys([str(SIGNED)])
    (tmp_path / "other.pub").write_bytes(generate()[1])
    (tmp_path / "notes.txt").write_text("no key")
    both = load_trusted_keys([str(tmp_path)], signing_key)
    assert len(both) == 2
    assert both[KEY_ID[:16]].accepts(signing_key.sign(b"x"), b"x")
    assert not any(key.accepts(signing_key.sign(b"x"), b"y") for key in both.values())


def test_a_key_that_is_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    with pytest.raises(SigningError, match=r"signing key .*: not a regular file"):
        load_signing_key(str(tmp_path / "key"))


def test_an_ecdsa_key_signs_the_same_bytes_each_time(tmp_path: Path, pem: str) -> None:
    private, public, key_id = generate(ECDSA)
    (tmp_path / "key.pub").write_bytes(public)
    key = load_signing_key(private.decode())
    (trusted,) = load_trusted_keys([str(tmp_path)]).values()
    assert (trusted.kind, trusted.key_id, trusted.pem()) == (ECDSA, key_id, public)
    assert key.sign(b"x") == key.sign(b"x")
    assert trusted.accepts(key.sign(b"x"), b"x")
    assert not trusted.accepts(key.sign(b"x"), b"y")
    assert not trusted.accepts(load_signing_key(pem).sign(b"x"), b"x")
    entry = sign_entry(ENTRY, key)
    assert verify_entry(entry, {trusted.name: trusted}, ENGINE, ENTRY.key).by == trusted.name


def test_an_ecdsa_key_is_known_before_it_is_loaded(tmp_path: Path, pem: str) -> None:
    private = generate(ECDSA)[0]
    (tmp_path / "key.pem").write_bytes(private)
    assert is_ecdsa(str(tmp_path / "key.pem"))
    assert is_ecdsa(private.decode())
    assert not any(map(is_ecdsa, (pem, str(tmp_path / "none"), "-----BEGIN\nnot base64\n")))
