"""Only what a trusted key signed, for exactly this key and name, is believed."""

from __future__ import annotations

import json
import time

import pytest
from parts import generate, key, signer

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.cache.entry import (
    ENGINE,
    REFUSAL,
    STEP,
    CacheEntry,
    EntryRejected,
    claimed,
    sign_entry,
    verify_entry,
)
from scons_tensorrt.errors import SigningError
from scons_tensorrt.files.signing_keys import SigningKey, load_signing_key, load_trusted_keys

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
FIELDS = {"option precision": "fp16"}
KEY = make_key(NAME, FIELDS)
ENTRY = CacheEntry(ENGINE, KEY, NAME, FIELDS, "0" * 64, 12, None, {"log": "x"}, 1)


def test_what_is_sealed_is_read_again(signer) -> None:
    entry = verify_entry(sign_entry(ENTRY, signer), {signer.trusted.name: signer.trusted}, ENGINE, KEY)
    assert entry == ENTRY._replace(by=signer.trusted.name)
    two = ENTRY._replace(kind=STEP, data=("1" * 64, 34))
    found = verify_entry(sign_entry(two, signer), {signer.trusted.name: signer.trusted}, STEP, KEY)
    assert found.blobs() == [("0" * 64, 12), ("1" * 64, 34)]


def changed(data: bytes, **fields) -> bytes:
    """The same signature over another body."""
    sealed = json.loads(data)
    body = json.dumps({**json.loads(sealed["body"]), **fields}, sort_keys=True)
    return json.dumps({**sealed, "body": body}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"body": "{}", "signature": ""}',
        b'{"body": "{\\"by\\": 1}", "signature": ""}',
        b'{"body": 1, "signature": "00"}',
    ],
)
def test_what_is_no_signed_entry_is_refused(signer, data) -> None:
    with pytest.raises(EntryRejected):
        verify_entry(data, {signer.trusted.name: signer.trusted}, ENGINE, KEY)


@pytest.mark.parametrize(
    "fields",
    [{"sha256": "1" * 64}, {"size": 13}, {"name": "b" + NAME[1:]}, {"key": "2" * 64}, {"kind": STEP}],
)
def test_a_changed_field_breaks_the_signature(signer, fields) -> None:
    with pytest.raises(EntryRejected, match="its signature does not match key"):
        verify_entry(
            changed(sign_entry(ENTRY, signer), **fields),
            {signer.trusted.name: signer.trusted},
            ENGINE,
            KEY,
        )


def test_an_unsigned_entry_and_one_of_a_stranger_are_refused(tmp_path, signer) -> None:
    stranger = generate(tmp_path / "stranger")
    trust = {signer.trusted.name: signer.trusted}
    with pytest.raises(EntryRejected) as told:
        verify_entry(sign_entry(ENTRY, stranger), trust, ENGINE, KEY)
    assert told.value.untrusted
    with pytest.raises(EntryRejected):  # it says that it is of the trusted key
        verify_entry(changed(sign_entry(ENTRY, stranger), by=signer.trusted.name), trust, ENGINE, KEY)
    unsigned = json.loads(sign_entry(ENTRY, signer))
    with pytest.raises(EntryRejected):
        verify_entry(json.dumps({"body": unsigned["body"]}).encode(), trust, ENGINE, KEY)


def test_the_entry_of_another_key_proves_nothing(signer) -> None:
    other = make_key(NAME, {"option precision": "fp32"})
    trust = {signer.trusted.name: signer.trusted}
    with pytest.raises(EntryRejected, match="another key"):
        verify_entry(sign_entry(ENTRY, signer), trust, ENGINE, other)
    with pytest.raises(EntryRejected, match="another key"):  # nor a refusal an engine
        verify_entry(sign_entry(ENTRY._replace(kind=REFUSAL), signer), trust, ENGINE, KEY)
    with pytest.raises(EntryRejected, match="key does not match its ingredients"):  # even if it was signed
        verify_entry(sign_entry(ENTRY._replace(key=other), signer), trust, ENGINE, other)


def test_a_refusal_expires(signer) -> None:
    trust = {signer.trusted.name: signer.trusted}
    now = int(time.time())
    refusal = CacheEntry(REFUSAL, KEY, NAME, FIELDS, made=now, expires=now + 60, error="no such op")
    assert verify_entry(sign_entry(refusal, signer), trust, REFUSAL, KEY).error == "no such op"
    with pytest.raises(EntryRejected, match="expired"):
        verify_entry(sign_entry(refusal._replace(expires=now - 1), signer), trust, REFUSAL, KEY)


def test_what_is_no_key_is_told_and_never_quoted(tmp_path) -> None:
    signer = generate(tmp_path / "ci")
    pem = (tmp_path / "ci").read_text()
    assert load_trusted_keys([str(tmp_path)]).keys() == {signer.trusted.name}
    assert load_signing_key(pem).trusted == signer.trusted
    for wrong in (str(tmp_path / "ci.pub"), pem.splitlines()[1], pem[:60] + "\n" + pem[70:]):
        with pytest.raises(SigningError) as told:
            load_signing_key(wrong)
        assert pem.splitlines()[1][:20] not in str(told.value)
    with pytest.raises(SigningError, match="not a PEM public key"):
        load_trusted_keys([str(tmp_path / "ci")])
    with pytest.raises(SigningError, match="No such file"):
        load_trusted_keys([str(tmp_path / "nobody.pub")])


WRONG = (None, True, 7, -1, 2**70, 1.5, 1e999, "", "text", "a\0b", "0" * 64, [], [[]], {}, {"a": {}})
_FIELDS = sorted({*ENTRY._asdict(), "schema"})


@pytest.mark.parametrize("kind", [ENGINE, STEP, REFUSAL])
@pytest.mark.parametrize("field", _FIELDS)
def test_a_field_of_another_type_is_refused_whoever_signed_it(signer, kind, field) -> None:
    """A trusted key may sign for a program that is wrong."""
    trust = {signer.trusted.name: signer.trusted}
    like = ENTRY._replace(kind=kind, data=("1" * 64, 3), expires=2**33, error="no such op")
    if kind == REFUSAL:
        like = like._replace(sha256="", size=0, data=None)
    assert verify_entry(sign_entry(like, signer), trust, kind, KEY).key == KEY
    for value in WRONG:
        body = {**json.loads(json.loads(sign_entry(like, signer))["body"]), field: value}
        data = signed(signer, json.dumps({"body": json.dumps(body)}).encode())
        claimed(data)
        try:
            found = verify_entry(data, trust, kind, KEY)
        except EntryRejected:
            continue
        # What is taken has the types that everybody relies on.
        time.strftime("%Y", time.gmtime(found.made))
        assert found.expires is None or time.gmtime(found.expires)
        assert all(isinstance(text, str) for text in (found.error, found.by, found.sha256))
        assert all(len(digest) == 64 and 0 <= size < 2**62 for digest, size in found.blobs())
        Receipt.load(Receipt(NAME, KEY, "0" * 64, 1, found.ingredients, found.details).dump())


def signed(signer, data: bytes) -> bytes:
    """The same body, signed by a key that is trusted."""
    body = json.loads(data)["body"]
    signature = signer.sign(b"scons-tensorrt store entry 1\n" + body.encode()).hex()
    return json.dumps({"body": body, "signature": signature}).encode()


@pytest.mark.parametrize("body", ["[" * 100_000, "[]", "null", "7", '"by"', "{}"])
def test_a_signed_body_that_is_no_entry_is_refused(signer, body) -> None:
    data = signed(signer, json.dumps({"body": body}).encode())
    claimed(data)
    with pytest.raises(EntryRejected):
        verify_entry(data, {signer.trusted.name: signer.trusted}, ENGINE, KEY)


def test_details_that_would_be_another_receipt_are_refused(signer) -> None:
    trust = {signer.trusted.name: signer.trusted}
    for name in ("schema", "engine", "key", "sha256", "size", "ingredients"):
        with pytest.raises(EntryRejected, match="its details"):
            verify_entry(sign_entry(ENTRY._replace(details={name: "x"}), signer), trust, ENGINE, KEY)
