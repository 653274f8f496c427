"""The figures of `scons-tensorrt sensitivity` in the state folder, for the report: a file for each ONNX."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.reading import read_small
from ..files.untrusted_json import mapping
from ..files.writing import write_atomic
from .state_folder import StateFolder

MAX_BYTES = 4 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


def folder(state: StateFolder) -> Path:
    return state.root / "sensitivity"


def onnx_of(path: Path) -> str | None:
    """The sha256 of the ONNX that a file in the folder is of; None for a file of another name."""
    return path.stem if path.suffix == ".json" and _SHA256.fullmatch(path.stem) else None


def _path(state: StateFolder, onnx_sha256: str) -> Path:
    return folder(state) / f"{onnx_sha256}.json"


def keep(state: StateFolder, onnx_sha256: str, figures: Mapping[str, Any]) -> None:
    """Write the figures, in place of earlier ones. onnx_sha256: of the converted ONNX. Raises OSError."""
    text = json.dumps(figures, indent=1, sort_keys=True) + "\n"
    write_atomic(_path(state, onnx_sha256), text.encode("utf-8"), durable=False)


def find(state: StateFolder, onnx_sha256: str) -> dict[str, Any]:
    """The figures that were kept; empty if there are none, or the file is damaged."""
    if not _SHA256.fullmatch(onnx_sha256):
        return {}
    try:
        return mapping(json.loads(read_small(_path(state, onnx_sha256), MAX_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}
