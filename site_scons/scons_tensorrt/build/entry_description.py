"""What an entry of the shared engine cache says of its files, for those who do not download them.

With `FETCH=none` an engine's cache key is computed without the ONNX that a step made, and a bill of
materials is written without the engine. So whoever uploads a file adds to the details of its receipt, under
`described`, the sha512 of the file and of its external data, and the summary of an ONNX. An entry of an
earlier version has no description; its files are downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact.receipt import Receipt
from ..artifact.state_folder import DATA_SUFFIX
from ..errors import RecipeError
from ..files.reading import blocks, open_file
from ..files.untrusted_json import mapping
from ..recipe.onnx.summary import OnnxSummary
from ..values import Value
from .input_digests import ONNX_FACT

DESCRIBED = "described"
_HEX = frozenset("0123456789abcdef")


class Description(Value):
    """sha512: of the file; data_sha512: of its external data; summary: of an ONNX."""

    sha512: str
    data_sha512: str | None = None
    summary: OnnxSummary | None = None


def describe(path: Path, receipt: Receipt) -> dict[str, Any] | None:
    """The description of a file and its external data, for the entry of its receipt; None if one of them is
    no longer that of the receipt. Raises OSError."""
    sha512 = _sha512(path, receipt.sha256)
    found: dict[str, Any] = {"sha512": sha512}
    stated = receipt.details.get("data_sha256")
    if stated:
        found["data_sha512"] = _sha512(path.with_name(path.name + DATA_SUFFIX), str(stated))
    if path.name.endswith(".onnx"):
        from ..recipe.onnx.read_onnx import read_onnx

        try:
            found["onnx"] = [ONNX_FACT, read_onnx(str(path)).to_json()]
        except RecipeError:  # what uses the file reports it
            return None
    return None if None in found.values() else found


def description_of(name: str, details: Mapping[str, Any]) -> Description | None:
    """The description in the details of a receipt of a file called `name`; None if there is none, or it is
    not complete: then the file itself is needed."""
    found = mapping(details.get(DESCRIBED))
    data = found.get("data_sha512") if details.get("data_sha256") else None
    if not _is_sha512(found.get("sha512")) or (details.get("data_sha256") and not _is_sha512(data)):
        return None
    if not name.endswith(".onnx"):
        return Description(found["sha512"], data)
    try:
        version, summary = found["onnx"]
        if version != ONNX_FACT:
            return None
        return Description(found["sha512"], data, OnnxSummary.from_json(summary))
    except (KeyError, TypeError, ValueError):
        return None


def _is_sha512(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 128 and _HEX.issuperset(value)


def _sha512(path: Path, sha256: str) -> str | None:
    """The sha512 of a file, None if it does not have this sha256. Raises OSError."""
    first, second = hashlib.sha256(), hashlib.sha512()
    with open_file(path, follow=False) as source:
        for block in blocks(source):
            first.update(block)
            second.update(block)
    return second.hexdigest() if first.hexdigest() == sha256 else None
