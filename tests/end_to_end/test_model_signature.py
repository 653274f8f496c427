"""The OpenSSF model signature of a release: by hand, and by the verifier of the package `model-signing`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Tree, flip_last_bit, sha256

pytest.importorskip("cryptography")
# Of a virtual environment of its own, as its packages are many: pip install model-signing pyopenssl
VERIFIER = os.environ.get("MODEL_SIGNING") or shutil.which(
    "model_signing", path=str(Path(sys.executable).parent)
)
SCRIPT = """
a = env.Engine("a", "models/a.onnx")
b = env.Engine("b", "models/b.onnx")
m = env.EngineManifest("dist/manifest.json", [a, b])
env.InstallEngines("/engines", [a, b], manifest=m)
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, compiled_once: Tree) -> Tree:
    """Two engines, installed and signed with an ECDSA key."""
    tree = compiled_once.twin(tmp_path_factory.mktemp("signed") / "tree")
    tree.write(SCRIPT)
    assert tree.cli("keygen", "--type", "ecdsa-p256", "keys/key.pem").status == 0
    run = tree.scons("dist", "install", "SIGNING_KEY=keys/key.pem", f"DESTDIR={tree.root}/image")
    assert (run.status, run.built) == (0, []), run.out
    assert "\nWROTE dist/manifest.sig (2 engines) because not written before\n" in run.out
    return tree


@pytest.fixture
def signed(origin: Tree, tmp_path: Path) -> Tree:
    return origin.twin(tmp_path / "tree")


def verified(tree: Tree) -> subprocess.CompletedProcess[str]:
    folder = tree.path("image/engines")
    command = [VERIFIER, "verify", "key", folder, "--signature", folder / "manifest.sig"]
    return subprocess.run(
        [*command, "--public_key", tree.path("keys/key.pem.pub")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not VERIFIER, reason="model_signing is not installed; set MODEL_SIGNING to its path")
def test_its_own_verifier_accepts_it_and_refuses_a_changed_file(signed: Tree) -> None:
    done = verified(signed)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr
    flip_last_bit(next(signed.path("image/engines").glob("a__*.engine")))
    assert "Hash mismatch for 'a__" in verified(signed).stderr.replace("\\'", "'")


def test_it_is_a_bundle_that_lists_every_file(origin: Tree) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    folder, pem = origin.path("image/engines"), origin.path("keys/key.pem.pub").read_bytes()
    bundle = json.loads((folder / "manifest.sig").read_text())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == hashlib.sha256(pem).hexdigest()
    envelope = bundle["dsseEnvelope"]
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    by_hand = b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload])
    (signature,) = envelope["signatures"]
    key = load_pem_public_key(pem)
    key.verify(base64.b64decode(signature["sig"]), by_hand, ec.ECDSA(hashes.SHA256()))  # raises if it is not
    statement = json.loads(payload)
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    listed = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
    there = {path.name: sha256(path) for path in folder.iterdir() if path.name != "manifest.sig"}
    assert listed == there
    assert list(listed) == sorted(listed)
    whole = hashlib.sha256(b"".join(bytes.fromhex(listed[name]) for name in sorted(listed)))
    assert [each["digest"]["sha256"] for each in statement["subject"]] == [whole.hexdigest()]


def test_a_null_build_leaves_it_and_verify_accepts_the_key(signed: Tree) -> None:
    key = "SIGNING_KEY=keys/key.pem"
    before = signed.snapshot("dist")
    assert signed.scons("dist", key).lines("WROTE") == []
    assert signed.snapshot("dist") == before
    assert signed.scons("-q", "dist", key).status == 0
    signed.path("dist/manifest.sig").unlink()
    run = signed.scons("dist", key)
    assert run.lines("WROTE") == ["WROTE dist/manifest.sig (2 engines) because not written before"]
    assert {name: digest for name, (digest, _) in signed.snapshot("dist").items()} == {
        name: digest for name, (digest, _) in before.items()
    }  # the same bytes
    given = "verify", "--hardware", "rtx_portable", "--manifest", "image/engines/manifest.json"
    done = signed.cli(*given, "--trusted-key", "keys/key.pem.pub")
    assert (done.status, "signed by key " in done.out) == (0, True)


@pytest.mark.slow
def test_an_ed25519_key_signs_the_statement_alone(signed: Tree) -> None:
    assert signed.cli("keygen", "keys/other.pem").status == 0
    shutil.rmtree(signed.path("dist"))
    assert signed.scons("dist", "SIGNING_KEY=keys/other.pem").status == 0
    assert signed.path("dist/manifest.json.intoto.jsonl").exists()
    assert not signed.path("dist/manifest.sig").exists()
