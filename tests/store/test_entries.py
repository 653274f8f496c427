"""Only what a trusted key signed, for exactly this key and name, is believed."""

from __future__ import annotations

import json
import time

import pytest
from parts import generate, key, signer

from scons_tensorrt.errors import StoreError
from scons_tensorrt.integrity.receipt import Receipt, make_key
from scons_tensorrt.store.entry import ENGINE, REFUSAL, STEP, Entry, Refused, claimed, seal, unseal
from scons_tensorrt.store.keys import Signer, Trust

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
FIELDS = {"option precision": "fp16"}
KEY = make_key(NAME, FIELDS)
ENTRY = Entry(ENGINE, KEY, NAME, FIELDS, "0" * 64, 12, None, {"log": "x"}, 1)


def test_what_is_sealed_is_read_again(signer) -> None:
    entry = unseal(seal(ENTRY, signer), Trust({signer.name: signer.public}), ENGINE, KEY)
    assert entry == ENTRY._replace(by=signer.name)
    two = ENTRY._replace(kind=STEP, data=("1" * 64, 34))
    found = unseal(seal(two, signer), Trust({signer.name: signer.public}), STEP, KEY)
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
    with pytest.raises(Refused):
        unseal(data, Trust({signer.name: signer.public}), ENGINE, KEY)


@pytest.mark.parametrize(
    "fields",
    [{"sha256": "1" * 64}, {"size": 13}, {"name": "b" + NAME[1:]}, {"key": "2" * 64}, {"kind": STEP}],
)
def test_a_changed_field_breaks_the_signature(signer, fields) -> None:
    with pytest.raises(Refused, match="its signature is not one of"):
        unseal(changed(seal(ENTRY, signer), **fields), Trust({signer.name: signer.public}), ENGINE, KEY)


def test_an_unsigned_entry_and_one_of_a_stranger_are_refused(tmp_path, signer) -> None:
    stranger = generate(tmp_path / "stranger")
    trust = Trust({signer.name: signer.public})
    with pytest.raises(Refused) as told:
        unseal(seal(ENTRY, stranger), trust, ENGINE, KEY)
    assert told.value.stranger
    with pytest.raises(Refused):  # it says that it is of the trusted key
        unseal(changed(seal(ENTRY, stranger), by=signer.name), trust, ENGINE, KEY)
    unsigned = json.loads(seal(ENTRY, signer))
    with pytest.raises(Refused):
        unseal(json.dumps({"body": unsigned["body"]}).encode(), trust, ENGINE, KEY)


def test_the_entry_of_another_key_proves_nothing(signer) -> None:
    other = make_key(NAME, {"option precision": "fp32"})
    trust = Trust({signer.name: signer.public})
    with pytest.raises(Refused, match="another key"):
        unseal(seal(ENTRY, signer), trust, ENGINE, other)
    with pytest.raises(Refused, match="another key"):  # nor a refusal an engine
        unseal(seal(ENTRY._replace(kind=REFUSAL), signer), trust, ENGINE, KEY)
    with pytest.raises(Refused, match="not that of its ingredients"):  # even if it was signed
        unseal(seal(ENTRY._replace(key=other), signer), trust, ENGINE, other)


def test_a_refusal_expires(signer) -> None:
    trust = Trust({signer.name: signer.public})
    now = int(time.time())
    refusal = Entry(REFUSAL, KEY, NAME, FIELDS, made=now, expires=now + 60, error="no such op")
    assert unseal(seal(refusal, signer), trust, REFUSAL, KEY).error == "no such op"
    with pytest.raises(Refused, match="expired"):
        unseal(seal(refusal._replace(expires=now - 1), signer), trust, REFUSAL, KEY)


def test_what_is_no_key_is_told_and_never_quoted(tmp_path) -> None:
    signer = generate(tmp_path / "ci")
    pem = (tmp_path / "ci").read_text()
    assert list(Trust.load([str(tmp_path)]).keys) == [signer.name] == [Signer.load(pem).name]
    for wrong in (str(tmp_path / "ci.pub"), pem.splitlines()[1], pem[:60] + "\n" + pem[70:]):
        with pytest.raises(StoreError) as told:
            Signer.load(wrong)
        assert pem.splitlines()[1][:20] not in str(told.value)
    with pytest.raises(StoreError, match="no public key in PEM"):
        Trust.load([str(tmp_path / "ci")])
    with pytest.raises(StoreError, match="No such file"):
        Trust.load([str(tmp_path / "nobody.pub")])


WRONG = (None, True, 7, -1, 2**70, 1.5, 1e999, "", "text", "a\0b", "0" * 64, [], [[]], {}, {"a": {}})
_FIELDS = sorted({*ENTRY._asdict(), "schema"})


@pytest.mark.parametrize("kind", [ENGINE, STEP, REFUSAL])
@pytest.mark.parametrize("field", _FIELDS)
def test_a_field_of_another_type_is_refused_whoever_signed_it(signer, kind, field) -> None:
    """A trusted key may sign for a program that is wrong."""
    trust = Trust({signer.name: signer.public})
    like = ENTRY._replace(kind=kind, data=("1" * 64, 3), expires=2**33, error="no such op")
    if kind == REFUSAL:
        like = like._replace(sha256="", size=0, data=None)
    assert unseal(seal(like, signer), trust, kind, KEY).key == KEY
    for value in WRONG:
        body = {**json.loads(json.loads(seal(like, signer))["body"]), field: value}
        data = signed(signer, json.dumps({"body": json.dumps(body)}).encode())
        claimed(data)
        try:
            found = unseal(data, trust, kind, KEY)
        except Refused:
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
    with pytest.raises(Refused):
        unseal(data, Trust({signer.name: signer.public}), ENGINE, KEY)


def test_details_that_would_be_another_receipt_are_refused(signer) -> None:
    trust = Trust({signer.name: signer.public})
    for name in ("schema", "engine", "key", "sha256", "size", "ingredients"):
        with pytest.raises(Refused, match="its details"):
            unseal(seal(ENTRY._replace(details={name: "x"}), signer), trust, ENGINE, KEY)
