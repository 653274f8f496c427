"""A hand-off made by hand: engines, sidecars and their manifest in one folder, for two boards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from boards import JETSON

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.files.signing_keys import generate, load_signing_key
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.release import files_of
from scons_tensorrt.release.manifest import Manifest, ManifestEntry, digest
from scons_tensorrt.release.manifest_signature import sign_statement, statement

A = "a__sm87_jp6.2_trt10.3_fp16.engine"
B = "b__sm87_jp6.2_trt10.3_fp32.engine"
ORIN_NX = {
    **JETSON,
    "gpu_name": "Orin",
    "sm_count": 8,
    "memory_gib": 16,
    "integrated": True,
    "jetpack": "6.2",
}
HOST = HardwareSignature.from_json(ORIN_NX, "test")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plan(body: bytes) -> bytes:
    """A TensorRT plan as far as its header tells."""
    return b"ftrt" + b"\0" * 60 + body


def rtx_plan(body: bytes, mask: int = 0x3E) -> bytes:
    """A plan of TensorRT for RTX 1.7.1.116; mask: its architectures, see artifact/plan_header.py."""
    size = (64 + len(body)).to_bytes(8, "little")
    head = b"vtrt" + b"\0" * 12 + size + bytes([1, 7, 1, 116]) + b"\0" * 4 + mask.to_bytes(4, "little")
    return head + b"\0" * 28 + body


def entry(name: str, data: bytes, signature: dict | None = None, **recipe: str) -> ManifestEntry:
    ingredients = {"input onnx": sha(name.encode()), "option precision": "fp16", **recipe}
    given = ORIN_NX if signature is None else signature
    fields = {k: v for k, v in given.items() if k not in ("schema", "jetpack", "cuda")}
    return ManifestEntry(name, sha(data), len(data), make_key(name, ingredients), ingredients, fields)


class Handoff:
    """A folder with engines, sidecars, a manifest and what stands beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.json"
        self.entries: dict[str, ManifestEntry] = {}
        folder.mkdir()

    def path(self, name: str) -> Path:
        return self.folder / name

    def add(self, name: str, data: bytes, signature: dict | None = None, **recipe: str) -> None:
        self.path(name).write_bytes(data)
        self.path(name + ".sha256").write_text(sha(data))
        self.entries[name] = entry(name, data, signature, **recipe)

    def list(self, key: bytes | None = None) -> bytes:
        """Write the manifest, signed by a private key in PEM."""
        manifest = Manifest("orin_nx", self.entries)
        data = manifest.dump()
        sidecar, sums, envelope = files_of(self.manifest.name)
        self.manifest.write_bytes(data)
        self.path(sidecar).write_text(digest(data))
        self.path(sums).write_bytes(manifest.sums())
        if key is not None:
            signer = load_signing_key(key.decode())
            line = sign_statement(statement(manifest, self.manifest.name, data), signer)
            self.path(envelope).write_bytes(line)
        return data

    @property
    def envelope(self) -> Path:
        return self.path("manifest.json.intoto.jsonl")


@pytest.fixture
def handoff(tmp_path: Path) -> Handoff:
    """Two engines of an Orin NX, with their manifest."""
    made = Handoff(tmp_path / "handoff")
    made.add(A, plan(b"engine a"))
    made.add(B, plan(b"engine b"))
    made.list()
    return made


@pytest.fixture(scope="session")
def keys() -> tuple[bytes, bytes]:
    """A private and a public key, PEM."""
    pytest.importorskip("cryptography")
    return generate()[:2]
