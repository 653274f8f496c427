"""One declared engine in report.json: its file, its receipt, its outcome and its earlier builds. The columns
of the page: templates/engines.html."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import sensitivity_file
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..artifact.verify_pair import check_pair
from ..errors import ReceiptError
from ..files.digest_cache import DigestCache
from ..files.untrusted_json import listing, mapping, number, plain, seconds, text
from ..recipe.key_ingredients import differences
from .accuracy import describe_accuracy
from .history import WORDS
from .sensitivity_table import describe_sensitivity

MAX_BUILDS = 20
IN_STORE = "not downloaded"  # an engine that the run found in the shared cache
FIT = ("intact", IN_STORE)
_PRODUCTS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_TAMPERED = ("engine_tampered", "engine_truncated", "engine_other", "sidecar_")


def describe(
    item: Mapping[str, Any],
    event: Mapping[str, Any] | None,
    state: StateFolder,
    memo: DigestCache,
) -> dict[str, Any]:
    """The entry in report.json for an engine of declared.json. event: its last event in the run."""
    label = text(item.get("engine"))
    path = state.top / label
    builds = _builds(path.name, state)
    check = check_pair(path, memo, builds)
    in_store = check.code == "engine_missing" and mapping(event).get("outcome") == "found"
    sha256 = text(mapping(event).get("sha256")) if in_store else check.sha256
    receipt = next((r for r in builds if r.sha256 == sha256), None)
    ingredients = receipt.ingredients if receipt else _texts(item.get("ingredients"))
    recipe = mapping(receipt.details.get("recipe") if receipt else item.get("recipe"))
    return {
        "name": text(item.get("name")),
        "engine": label,
        "source": text(item.get("original")) or text(item.get("source")),
        "place": text(mapping(event).get("place")) or text(item.get("place")) or None,
        "onnx": text(item.get("onnx")),
        "precision": text(mapping(item.get("recipe")).get("precision")),
        "hardware": _hardware(item.get("hardware"), ingredients),
        "shapes": plain(listing(recipe.get("profiles"))),
        "options": _group(ingredients, "option "),
        **_outcome(event),
        "on_disk": IN_STORE
        if in_store
        else {"": "intact", "engine_missing": "missing"}.get(check.code, "damaged"),
        "fault": "" if in_store else check.fault,
        "sha256": sha256,
        "size": receipt.size if receipt else _size(path),
        "accuracy": describe_accuracy(receipt),
        "sensitivity": describe_sensitivity(_figures_of_layers(text(item.get("onnx")), state, memo)),
        "receipt": receipt and _receipt(receipt),
        "builds": _history(builds, receipt, text(item.get("source"))),
    }


def _figures_of_layers(onnx: str, state: StateFolder, memo: DigestCache) -> dict[str, Any]:
    """What `scons-tensorrt sensitivity` found for an ONNX that a step made; empty if it did not run."""
    if not onnx.startswith(state.relative(state.onnx) + os.sep) or "\0" in onnx:
        return {}
    try:
        return sensitivity_file.find(state, memo.sha256(state.top / onnx))
    except OSError:
        return {}


def _size(path: Path) -> int | None:
    try:
        return os.lstat(path).st_size
    except (OSError, ValueError):
        return None


def _builds(filename: str, state: StateFolder) -> list[Receipt]:
    """Every receipt of this filename, oldest first."""
    try:
        found = list(state.receipts.of_file(filename))
    except (ReceiptError, ValueError):
        return []
    return sorted(found, key=lambda receipt: text(receipt.details.get("started")))


def _texts(value: Any) -> dict[str, str]:
    return {name: each for name, each in mapping(value).items() if isinstance(each, str)}


def _hardware(name: Any, ingredients: Mapping[str, str]) -> dict[str, Any]:
    fields = _group(ingredients, "hardware ")
    sm = fields.get("compute_capability", "").replace(".", "")
    memory = fields.get("memory_gib")
    runtime = f"{_PRODUCTS.get(fields.get('product', ''), '')} {fields.get('runtime_version', '')}"
    parts = [
        fields.get("gpu_name", ""),
        f"sm{sm}" if sm else "",
        f"{memory} GiB" if memory else "",
        fields.get("machine", ""),
        runtime.strip(),
    ]
    title = ", ".join(part for part in parts if part) or "unknown"
    return {"name": text(name), "title": title, "fields": fields}


def _group(ingredients: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The ingredients whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): value for k, value in ingredients.items() if k.startswith(prefix)}


def _outcome(event: Mapping[str, Any] | None) -> dict[str, Any]:
    """outcome: one of WORDS, or "none" if the run did not reach the engine (event: None)."""
    found = {"reason_text": "not reached or not requested"} if event is None else event
    outcome, code = text(found.get("outcome")), text(found.get("reason"))
    reason = text(found.get("reason_text")) or ("nothing changed" if outcome == "reused" else "")
    return {
        "outcome": outcome if outcome in WORDS else "none",
        "reason": reason,
        "code": None if event is None else code,
        "error_class": text(found.get("error_class")) or None,
        "integrity": code.startswith(_TAMPERED),
        "seconds": seconds(found.get("duration_s")),
        "compile_s": seconds(found.get("compile_duration_s")),
    }


def _receipt(receipt: Receipt) -> dict[str, Any]:
    details = receipt.details
    inputs = [mapping(each) for each in listing(details.get("inputs"))]
    return {
        "key": receipt.key,
        "started": text(details.get("started")),
        "duration_s": seconds(details.get("duration_s")),
        "peak_memory_bytes": number(details.get("peak_memory_bytes")),
        "reproducible": details.get("reproducible") is True,
        "not_reproducible_because": text(details.get("not_reproducible_because")) or None,
        "made_with": {k: text(v) for k, v in mapping(details.get("worker")).items()},
        "log": text(details.get("log")),
        "inputs": [{name: text(each.get(name)) for name in ("role", "name", "sha256")} for each in inputs],
        "made_by": plain(listing(details.get("made_by"))),
    }


def _history(builds: list[Receipt], current: Receipt | None, source: str) -> list[dict[str, Any]]:
    """The builds of this filename, newest first, each with its changes since the previous build."""
    found = []
    for before, receipt in zip([None, *builds[:-1]], builds):
        changes = differences(before.ingredients, receipt.ingredients, source) if before else []
        found.append(
            {
                "started": text(receipt.details.get("started")),
                "duration_s": seconds(receipt.details.get("duration_s")),
                "size": receipt.size,
                "sha256": receipt.sha256,
                "current": receipt is current,
                "changes": [text(change, 300) for change in changes],
            }
        )
    return found[::-1][:MAX_BUILDS]
