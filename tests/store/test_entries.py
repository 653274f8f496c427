"""Only what a trusted key signed, for exactly this key and name, is believed."""

from __future__ import annotations

import json
import time

import pytest
from parts import generate, key, signer

from scons_tensorrt.errors import StoreError
from scons_tensorrt.integrity.receipt import make_key
from scons_tensorrt.store.entry import ENGINE, REFUSAL, STEP, Entry, Refused, seal, unseal
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
