"""The OpenSSF model signature (OMS v1.0) of a release: a Sigstore bundle with a public key, around a DSSE
envelope of an in-toto statement that lists the manifest and every file beside it.

Follows the specification of ossf/model-signing-spec as the package `model-signing` 1.1 reads it; its verifier
runs in a test. It takes ECDSA keys alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from ..errors import HandoffError
from ..files.signing_keys import SigningKey
from .manifest_signature import PAYLOAD_TYPE, STATEMENT, pae

PREDICATE = "https://model_signing/signature/v1.0"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_OF_GIT = (".git", ".gitattributes", ".github", ".gitignore")  # what the verifier leaves out by default


def statement(name: str, signature: str, files: Mapping[str, str]) -> bytes:
    """The statement on the files of a release. name: of the release; signature: filename of the model
    signature; files: sha256 by filename."""
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(bytes.fromhex(files[file]))
    resources = [{"name": n, "algorithm": "sha256", "digest": files[n]} for n in sorted(files)]
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": sorted([signature, *_OF_GIT]),
    }
    data = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": PREDICATE,
        "predicate": {"serialization": serialization, "resources": resources},
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def sign_model(payload: bytes, key: SigningKey) -> bytes:
    """The bundle of a statement, in JSON. Raises SigningError."""
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    data = {
        "mediaType": BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(key.trusted.pem()).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode("ascii")}],
        },
    }
    return (json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")


def signed_files(bundle: bytes) -> dict[str, str]:
    """The sha256 of the files that a bundle signs by filename. Does not check the signature. Raises
    HandoffError."""
    try:
        payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"], validate=True))
        return {each["name"]: each["digest"] for each in payload["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HandoffError(f"damaged ({type(error).__name__})") from None
