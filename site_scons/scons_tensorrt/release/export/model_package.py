"""ONNX Runtime's model package: a folder with a component for each model, and a variant for each hardware.

Layout and fields, from model_package/README.md and onnxruntime/core/session/model_package/README.md of ONNX
Runtime: `manifest.json` with `schema_version` "1.0"; ONNX Runtime chooses the variant whose `ep` and `device`
are those of the session and whose `compatibility_string` that provider accepts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import HandoffError
from ..install_files import install_bytes, install_file
from .epcontext import compatibility, context_model, provider
from .exported_engine import ExportedEngine

MANIFEST = "manifest.json"
SCHEMA_VERSION = "1.0"


def write_package(folder: Path, engines: Sequence[ExportedEngine], embed: bool) -> list[Path]:
    """Write the package of these engines; returns what was written. Raises HandoffError and OSError."""
    components: dict[str, Any] = {}
    written = []
    for engine in engines:
        variant = engine.path.stem.partition("__")[2]
        variants = components.setdefault(engine.name.model, {"variants": {}})["variants"]
        if variant in variants:
            raise HandoffError(f"{engine.path}: another engine has this name; export one of them")
        place = folder / engine.name.model / variant
        written += write_context(place / "model.onnx", engine, embed)
        variants[variant] = {
            "variant_directory": f"{engine.name.model}/{variant}",
            "ep": provider(engine),
            "device": "gpu",
            "compatibility_string": compatibility(engine),
            "executor_info": {"ort": {"model_file": "model.onnx"}},
        }
    manifest = {"schema_version": SCHEMA_VERSION, "layout": "portable", "components": components}
    data = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode("ascii")
    install_bytes(folder / MANIFEST, data)  # last: it lists the others
    return [*written, folder / MANIFEST]


def write_context(path: Path, engine: ExportedEngine, embed: bool) -> list[Path]:
    """Write the ONNX at `path`, and a copy of the engine beside it unless it is embedded; returns both."""
    beside = path.with_name(engine.path.name)
    data = context_model(engine, None if embed else beside.name)
    if not embed:
        install_file(engine.path, beside, engine.sha256)
    install_bytes(path, data)
    return [path] if embed else [beside, path]
