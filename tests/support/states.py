"""State folders as runs leave them, without a compile: declared.json, events, receipts, engines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.receipt import Receipt
from scons_tensorrt.artifact.sidecar import sidecar_of
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.files.digest_cache import DigestCache

HARDWARE = {
    "hardware product": "tensorrt",
    "hardware runtime_version": "10.3.0.30",
    "hardware machine": "aarch64",
    "hardware compute_capability": "8.7",
    "hardware gpu_name": "Orin",
    "hardware memory_gib": "16",
}


class Past:
    """A tree whose engines were built; every text may be anything. words: what its files say."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.state = StateFolder(top / ".trt", top)
        self.declared: list[dict] = []
        self.events: list[dict] = []
        top.mkdir(parents=True, exist_ok=True)

    def event(self, event: str, second: float, run: str = "run1", **fields: object) -> None:
        stamp = f"2026-11-25T03:{int(second) // 60:02}:{second % 60:06.3f}Z"
        self.events.append({"event": event, "time": stamp, "run": run, **fields})

    def engine(
        self, name: str, data: bytes | None, at: float = 0.0, lasted: float = 1.0, **more: object
    ) -> Path:
        """One that was declared, and built unless data is None. more: of its receipt; `said`, of its
        event; `declared`, of its declaration."""
        said, declared = dict(more.pop("said", {})), dict(more.pop("declared", {}))
        label = f"engines/{name}__sm87_jp6.2_trt10.3_fp16.engine"
        ingredients = {**HARDWARE, "option precision": "fp16", "input onnx": "0" * 64}
        item = {
            "name": name,
            "engine": label,
            "source": f"models/{name}.onnx",
            "original": f"models/{name}.onnx",
            "onnx": f"models/{name}.onnx",
            "hardware": None,
            "recipe": {"precision": "fp16", "profiles": []},
            "ingredients": ingredients,
        }
        self.declared.append({**item, **declared})
        path = self.top / label
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            sidecar_of(path).write_text(digest)
            details = {"started": "2026-11-25T03:00:00Z", "duration_s": lasted, **more}
            key = make_key(path.name, ingredients)
            receipt = Receipt(path.name, key, digest, len(data), ingredients, details)
            place = self.state.receipts.path(receipt)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(receipt.dump())  # not made to survive a power cut: a thousand are made
        told = {
            "model_name": name,
            "engine": label,
            "outcome": "built" if data is not None else "failed",
            "reason": "new",
            "reason_text": "not built before",
            "compile_duration_s": lasted if data is not None else None,
            "error_class": None,
            "duration_s": lasted,
            "started": f"2026-11-25T03:{int(at) // 60:02}:{at % 60:06.3f}Z",
        }
        self.event("engine.cache.miss", at + lasted, **{**told, **said})
        return path

    def save(self, seconds: float = 60.0) -> None:
        outcomes = [event.get("outcome") for event in self.events]
        counts = {word: outcomes.count(word) for word in ("reused", "built", "failed")}
        started = "2026-11-25T03:00:00.000Z"
        self.event("engine.compile.summary", seconds, **counts, seconds=seconds, started=started)
        root = self.state.root
        root.mkdir(exist_ok=True)
        (root / "declared.json").write_text(json.dumps({"schema": 1, "engines": self.declared}))
        lines = [json.dumps(event) + "\n" for event in self.events]
        (root / "events.jsonl").write_text("".join(lines))

    def digest_cache(self) -> DigestCache:
        return DigestCache(self.state.digests, self.top)
