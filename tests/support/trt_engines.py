"""Engines of TensorRT, which no test machine can compile: a plan's header, with sidecar and receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boards import JETSON

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.filename import EngineFilename
from scons_tensorrt.artifact.receipt import Receipt, ReceiptFolder
from scons_tensorrt.files.digest_cache import sha256_file
from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.recipe.key_ingredients import value_fields
from scons_tensorrt.recipe.options import Recipe


def add_engine(
    top: Path, folder: str, onnx: str, profiles: list[dict], precision: str = "fp16", **hardware: Any
) -> Path:
    """Write the engine of `onnx` (relative to `top`) into `folder`, as a build for an Orin would leave it.
    hardware: fields that differ."""
    signature = HardwareSignature.from_json({**JETSON, "jetpack": "6.2", **hardware}, "test")
    written = {"profiles": profiles, "precision": precision, "workspace_mb": 4096, "flags": [], "plugins": []}
    recipe = Recipe.from_json(Path(onnx).stem, written, ())
    name = EngineFilename.of(signature, recipe.model, precision).build()
    ingredients = {**value_fields(recipe, signature), "input onnx": sha256_file(top / onnx)}
    key = make_key(name, ingredients)
    engine = top / folder / name
    engine.parent.mkdir(parents=True, exist_ok=True)
    engine.write_bytes(b"ftrt" + b"\0" * 60 + key.encode())
    sha256 = sha256_file(engine)
    Path(f"{engine}.sha256").write_text(sha256)
    details = {
        "recipe": written,
        "hardware": {"name": folder, "signature": signature.to_json()},
        "inputs": [{"name": onnx, "role": "onnx", "sha256": ingredients["input onnx"]}],
    }
    receipt = Receipt(name, key, sha256, engine.stat().st_size, ingredients, details)
    ReceiptFolder(top / ".trt/receipts").put(receipt)
    return engine
