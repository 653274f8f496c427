"""The signature of a manifest, which `verify` checks: an in-toto Statement v1 with SLSA provenance v1, in a
DSSE envelope, one line of JSON. (`model_signature.py` makes another one, for OpenSSF's verifiers.)

Follows the public specifications (DSSE 1.0.2, in-toto attestation v1, SLSA provenance v1), so that other
tools can read it. Subjects are the manifest and each engine. SLSA's optional times and invocation are
left out, so that the same build gives the same bytes. Keys are in `files.signing_keys`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .. import __version__
from ..errors import HandoffError
from ..files.signing_keys import SigningKey, TrustedKeys
from ..values import Value
from .manifest import Manifest, ManifestEntry, digest

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:scons-tensorrt:engines:v1"
BUILDER = "urn:scons-tensorrt:builder"
LARGEST = 256 << 20  # bytes of a file of envelopes
MOST_ENVELOPES = 1000
MOST_SIGNATURES = 16  # per envelope: each check hashes the whole payload


class Envelope(Value):
    """signatures: without their key IDs, which are hints that nobody signed."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]


def statement(manifest: Manifest, name: str, data: bytes, builder: str = BUILDER) -> bytes:
    """The statement on a manifest called `name` with the bytes `data`. builder: URI of the builder."""
    engines = [manifest.engines[each] for each in sorted(manifest.engines)]
    subjects = {name: digest(data), **{each.name: each.sha256 for each in engines}}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "hardware": manifest.hardware or "",
                "engines": {each.name: _of(each, "option ") for each in engines},
            },
            "internalParameters": {
                "recipes": {each.name: each.key for each in engines},
                "signatures": {each.name: _of(each, "hardware ") for each in engines},
            },
            "resolvedDependencies": list(_inputs(engines)),
        },
        "runDetails": {"builder": {"id": builder, "version": {"scons_tensorrt": __version__}}},
    }
    whole = {
        "_type": STATEMENT,
        "subject": [{"name": n, "digest": {"sha256": sha256}} for n, sha256 in subjects.items()],
        "predicateType": PROVENANCE,
        "predicate": predicate,
    }
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode("ascii")


def _of(entry: ManifestEntry, group: str) -> dict[str, str]:
    return {n.removeprefix(group): t for n, t in entry.recipe.items() if n.startswith(group)}


def _inputs(engines: Iterable[ManifestEntry]) -> Iterable[dict[str, Any]]:
    for entry in engines:
        for role, sha256 in sorted(_of(entry, "input ").items()):
            yield {"name": f"{entry.name}: {role}", "digest": {"sha256": sha256}}


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, which is what is signed.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_statement(payload: bytes, key: SigningKey) -> bytes:
    """The signed envelope of a statement, as one line of JSON."""
    signature = base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode("ascii")
    data = {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key.trusted.key_id, "sig": signature}],
    }
    return (json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")


def signed_by(envelope: Envelope, trusted: TrustedKeys) -> str | None:
    """The ID of a trusted key that signed the envelope, None if none did."""
    signed = pae(envelope.payload_type, envelope.payload)
    for key in trusted.values():
        if any(key.accepts(each, signed) for each in envelope.signatures):
            return key.key_id
    return None


def read_envelopes(data: bytes) -> list[Envelope]:
    """Parse a file of envelopes, one per line.

    Raises HandoffError, also for more envelopes than could be checked in reasonable time.
    """
    if data.count(b"\n") > MOST_ENVELOPES:
        raise HandoffError(f"more than {MOST_ENVELOPES} envelopes; keep those of this manifest")
    try:
        found = [_envelope(json.loads(line)) for line in data.split(b"\n") if line.strip()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HandoffError(f"damaged ({type(error).__name__})") from None
    if not found:
        raise HandoffError("empty")
    return found


def _envelope(fields: Mapping[str, Any]) -> Envelope:
    signatures = tuple(_base64(each["sig"]) for each in fields["signatures"])
    if len(signatures) > MOST_SIGNATURES:
        raise HandoffError(f"an envelope with more than {MOST_SIGNATURES} signatures")
    kind = fields["payloadType"]
    if not isinstance(kind, str):
        raise TypeError
    return Envelope(kind, _base64(fields["payload"]), signatures)


def _base64(text: str) -> bytes:
    """Decode standard or URL-safe base64, as DSSE requires."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def covers(envelope: Envelope, data: bytes, engines: Mapping[str, ManifestEntry]) -> bool:
    """Whether the statement lists a manifest with the bytes `data` and all its engines.

    Does not check signatures.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        return False
    try:
        fields = json.loads(envelope.payload)
        if fields["_type"] != STATEMENT or fields["predicateType"] != PROVENANCE:
            return False
        subjects = {each["digest"]["sha256"] for each in fields["subject"]}
        return {digest(data), *(each.sha256 for each in engines.values())} <= subjects
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
