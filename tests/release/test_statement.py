"""The signed statement is what the public specifications say: proven by hand and by others' readers."""

from __future__ import annotations

import base64
import json

import pytest
from handing import A, B, Handoff, sha

from scons_tensorrt.errors import HandoffError, SigningError
from scons_tensorrt.files.signing_keys import load_signing_key, load_trusted_keys
from scons_tensorrt.release.manifest_signature import covers, pae, read_envelopes

pytest_plugins = ["handing"]

KIND = "application/vnd.in-toto+json"


@pytest.fixture
def signed(handoff: Handoff, keys: tuple[bytes, bytes]) -> Handoff:
    handoff.list(keys[0])
    return handoff


def parts(handoff: Handoff) -> tuple[dict, dict]:
    """The envelope and its statement, read by nothing of ours."""
    (line,) = handoff.envelope.read_text().splitlines()
    envelope = json.loads(line)
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


def test_pae_is_the_specifications_example() -> None:
    made = pae("http://example.com/HelloWorld", b"hello world")
    assert made == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_pae_counts_bytes_and_not_characters() -> None:
    assert pae("é", b"") == "DSSEv1 2 é 0 ".encode()


def test_the_signature_is_ed25519s_of_the_pae(signed: Handoff, keys: tuple[bytes, bytes]) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    envelope, _ = parts(signed)
    payload = base64.b64decode(envelope["payload"])
    by_hand = b" ".join(
        [b"DSSEv1", str(len(KIND)).encode(), KIND.encode(), str(len(payload)).encode(), payload]
    )
    assert envelope["payloadType"] == KIND
    key = load_pem_public_key(keys[1])
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), by_hand)  # raises if it is not


def test_the_statement_is_in_totos_with_slsas_provenance(signed: Handoff) -> None:
    _, statement = parts(signed)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    files = ("manifest.json", A, B)
    assert subjects == {name: sha(signed.path(name).read_bytes()) for name in files}
    definition = statement["predicate"]["buildDefinition"]
    assert {"buildType", "externalParameters"} <= set(definition)
    inputs = {each["name"]: each["digest"]["sha256"] for each in definition["resolvedDependencies"]}
    assert inputs[f"{A}: onnx"] == sha(A.encode())
    assert ":" in statement["predicate"]["runDetails"]["builder"]["id"]


def test_the_same_manifest_and_key_give_the_same_bytes(signed: Handoff, keys: tuple[bytes, bytes]) -> None:
    before = signed.envelope.read_bytes()
    signed.list(keys[0])
    assert signed.envelope.read_bytes() == before


def test_securesystemslib_accepts_it(signed: Handoff, keys: tuple[bytes, bytes]) -> None:
    dsse = pytest.importorskip("securesystemslib.dsse")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    envelope, _ = parts(signed)
    key = SSlibKey.from_crypto(load_pem_public_key(keys[1]), envelope["signatures"][0]["keyid"])
    assert len(dsse.Envelope.from_dict(envelope).verify([key], 1)) == 1


def test_in_totos_own_reader_accepts_it(signed: Handoff) -> None:
    pytest.importorskip("in_toto_attestation")
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    _, statement = parts(signed)
    Statement.copy_from_pb(ParseDict(statement, statement_pb2.Statement())).validate()
    ParseDict(statement["predicate"], provenance_pb2.Provenance())  # raises on an unknown field


def test_a_statement_covers_its_manifest_and_no_other(signed: Handoff) -> None:
    (envelope,) = read_envelopes(signed.envelope.read_bytes())
    data = signed.manifest.read_bytes()
    assert covers(envelope, data, signed.entries)
    assert not covers(envelope, data + b" ", signed.entries)
    other = {A: signed.entries[A]._replace(sha256="0" * 64)}
    assert not covers(envelope, data, other)
    assert not covers(envelope._replace(payload_type="text/plain"), data, signed.entries)
    assert not covers(envelope._replace(payload=b"[" * 100_000), data, signed.entries)


def test_url_safe_base64_is_read_too(signed: Handoff) -> None:
    text = signed.envelope.read_text()
    safe = json.loads(text)
    safe["payload"] = base64.urlsafe_b64encode(base64.b64decode(safe["payload"])).decode()
    assert read_envelopes(json.dumps(safe).encode()) == read_envelopes(text.encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"\n\n", b"{", b"[]", b"{}", b"5", b'{"payload": "!", "payloadType": "x", "signatures": []}',
     b'{"payload": "", "payloadType": 5, "signatures": []}',
     b'{"payload": "", "payloadType": "x", "signatures": [{}]}', b"[" * 100_000, b"\xff"],
)  # fmt: skip
def test_what_is_no_envelope_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(HandoffError):
        read_envelopes(data)


def test_so_many_envelopes_or_signatures_that_checking_takes_hours_are_refused(signed: Handoff) -> None:
    line = signed.envelope.read_bytes().strip()
    assert len(read_envelopes((line + b"\n") * 1000)) == 1000
    with pytest.raises(HandoffError, match="more than 1000 envelopes"):
        read_envelopes((line + b"\n") * 1001)
    fields = json.loads(line)
    fields["signatures"] *= 17
    with pytest.raises(HandoffError, match="more than 16 signatures"):
        read_envelopes(json.dumps(fields).encode())


def test_a_key_is_taken_as_a_file_or_as_text(keys: tuple[bytes, bytes], tmp_path) -> None:
    (tmp_path / "key").write_bytes(keys[0])
    by_file, by_text = load_signing_key(str(tmp_path / "key")), load_signing_key(keys[0].decode())
    assert by_file.trusted == by_text.trusted
    assert by_file.sign(b"x") == by_text.sign(b"x")


def test_no_message_holds_a_key(keys: tuple[bytes, bytes], tmp_path) -> None:
    secret = keys[0].decode().splitlines()[1]
    (tmp_path / "key").write_text(f"-----BEGIN PRIVATE KEY-----\n{secret[:-8]}\n-----END PRIVATE KEY-----\n")
    for given in (secret, secret + "\n", keys[0].decode().replace("MC", "XX", 1), str(tmp_path / "key")):
        with pytest.raises(SigningError) as caught:
            load_signing_key(given)
        assert secret[8:24] not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_keys_of_other_kinds_are_refused(keys: tuple[bytes, bytes], tmp_path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP384R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(SigningError, match="not an Ed25519 or ECDSA P-256 key"):
        load_signing_key(pem.decode())
    (tmp_path / "private").write_bytes(keys[0])
    with pytest.raises(SigningError, match="not a PEM public key"):
        load_trusted_keys([str(tmp_path / "private")])
