"""The cache key of an engine, an ONNX step or a calibration, of its ingredients. Which ingredients an engine
has: recipe/key_ingredients.py and build/engine_spec.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

_COMPACT = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would create an encoder for each key


def make_key(filename: str, ingredients: Mapping[str, str]) -> str:
    """The cache key: hex sha256 of filename and ingredients."""
    text = _COMPACT([filename, sorted(ingredients.items())])
    return hashlib.sha256(text.encode("ascii")).hexdigest()
