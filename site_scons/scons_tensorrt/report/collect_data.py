"""Collect the data of report.json from the state folder alone, without SCons."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..artifact.kept_engines import KeptFolder
from ..artifact.state_folder import StateFolder
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from ..files.reading import read_small
from ..files.untrusted_json import listing, mapping, text
from ..recipe.onnx.network_statistics import VERSION, read_statistics
from .engine_data import describe
from .history import Run, read_runs, spans, stamp

SCHEMA = 1
MAX_BYTES = 64 << 20  # of declared.json and of an earlier report
MAX_RUNS = 40


def collect(state: StateFolder, memo: DigestCache, run: str | None, earlier: Path) -> dict[str, Any]:
    """The report of a run.

    run: the run ID, None for the last run; earlier: a report.json whose networks are reused. Raises
    EngineError if no build was recorded.
    """
    runs = read_runs(state.events, run)
    shown = next((r for r in reversed(runs) if run in (None, r.id)), None)
    declared = _declared(state)
    if shown is None and not declared:
        raise EngineError(f"{state.root}: nothing was built here yet; run scons engines")
    shown = shown or Run("")
    last = shown.last_events()
    engines = [describe(item, last.get(text(item["engine"])), state, memo) for item in declared]
    failed = _failed_steps(last)
    _blame_steps(engines, failed)
    networks = _networks(engines, state, memo, _earlier_networks(earlier))
    return {
        "schema": SCHEMA,
        "generated": stamp(time.time()),
        "generator": {"scons_tensorrt": __version__},
        "tree": text(os.path.basename(state.top)),
        "run": {**shown.to_json(), "spans": spans(shown)},
        "engines": engines,
        "kept": _kept(state),
        "steps_failed": failed,
        "networks": networks,
        "runs": [each.to_json() for each in runs[-MAX_RUNS:]],
        "engine_inspector": "not run: requires the target GPU",
    }


def _declared(state: StateFolder) -> list[dict[str, Any]]:
    """The engines that the last run declared; unreadable ones are left out."""
    return [
        item
        for item in map(mapping, listing(_read(state.declared).get("engines")))
        if item.get("engine") and isinstance(item["engine"], str) and "\0" not in item["engine"]
    ]


def _kept(state: StateFolder) -> dict[str, int]:
    """How many replaced engines are kept, and their size in bytes."""
    sizes = list[int]()
    with contextlib.suppress(OSError):
        sizes = [kept.size for kept in KeptFolder(state.kept, 0).engines()]
    return {"engines": len(sizes), "size": sum(sizes)}


def _blame_steps(engines: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    """Give an engine whose input could not be built the reason of the step that failed."""
    for engine in engines:
        for step in failed:
            if engine["reason"].startswith(f"{step['step']} could not be built"):
                engine["reason"] = f"{step['step']}: {step['reason']}"
                engine["error_class"] = step["error_class"]
                step["fails"] = engine["engine"]


def _failed_steps(last: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Conversions, exports and accuracy gates that failed."""
    return [
        {
            "step": path,
            "error_class": text(event.get("error_class")),
            "reason": text(event.get("reason_text")),
        }
        for path, event in last.items()
        if event.get("outcome") == "failed" and not path.endswith(".engine")
    ]


def _earlier_networks(earlier: Path) -> dict[str, Any]:
    networks = mapping(_read(earlier).get("networks"))
    return {k: v for k, v in networks.items() if mapping(v).get("census") == VERSION}


def _read(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it is missing or damaged."""
    try:
        return mapping(json.loads(read_small(file, MAX_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}


def _networks(
    engines: list[dict[str, Any]], state: StateFolder, memo: DigestCache, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The network of each engine's ONNX by sha256, which is also stored as the engine's `network`.

    An engine whose ONNX changed since the build has none.
    """
    found: dict[str, Any] = {}
    for engine in engines:
        inputs = engine["receipt"]["inputs"] if engine["receipt"] else []
        expected = next((each["sha256"] for each in inputs if each["role"] == "onnx"), None)
        if expected and expected in known:
            found.setdefault(expected, known[expected])
        engine["network"] = expected if expected and expected in found else None
        onnx = engine["onnx"]
        if engine["network"] or not onnx or "\0" in onnx:
            continue
        with contextlib.suppress(OSError, ValueError, EngineError):
            digest = memo.sha256(state.top / onnx)
            if expected in (None, digest):
                if digest not in found:
                    found[digest] = {"file": onnx, **read_statistics(state.top / onnx).to_json()}
                engine["network"] = digest
    return found
