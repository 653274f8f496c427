"""All that a report tells, as report.json holds it: of the state folder alone, so that the page can be
made at the end of a run and long after it, on a machine that has no SCons."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..artifact.state import StateFolder
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from ..files.reading import read_small
from ..recipe.onnx.census import VERSION, read_census
from .engines import describe
from .history import Run, read_runs, spans, stamp
from .tolerant import listing, mapping, text

SCHEMA = 1
LARGEST = 64 << 20  # bytes of declared.json, and of an earlier report
MOST_RUNS = 40


def gather(state: StateFolder, memo: DigestCache, run: str | None, earlier: Path) -> dict[str, Any]:
    """The report of a run. run: its id, None for the last; earlier: a report.json whose networks need
    not be read again. Raises EngineError where nothing was built yet."""
    runs = read_runs(state.events)
    shown = next((r for r in reversed(runs) if run in (None, r.id)), None)
    declared = _declared(state)
    if shown is None and not declared:
        raise EngineError(f"{state.root}: nothing was built here yet; run scons engines")
    shown = shown or Run("")
    words = shown.of_engines()
    engines = [describe(item, words.get(text(item["engine"])), state, memo) for item in declared]
    failed = _failed_steps(words)
    _trace(engines, failed)
    networks = _networks(engines, state, memo, _known(earlier))
    return {
        "schema": SCHEMA,
        "generated": stamp(time.time()),
        "generator": {"scons_tensorrt": __version__},
        "tree": text(os.path.basename(state.top)),
        "run": {**shown.to_json(), "spans": spans(shown)},
        "engines": engines,
        "steps_failed": failed,
        "networks": networks,
        "runs": [each.to_json() for each in runs[-MOST_RUNS:]],
        "engine_inspector": "not run: it needs a GPU that the engine is for",
    }


def _declared(state: StateFolder) -> list[dict[str, Any]]:
    """What the last run declared, as far as it can be read."""
    try:
        items = listing(mapping(json.loads(read_small(state.declared, LARGEST))).get("engines"))
    except (OSError, ValueError, RecursionError):
        return []
    return [
        item
        for item in map(mapping, items)
        if item.get("engine") and isinstance(item["engine"], str) and "\0" not in item["engine"]
    ]


def _trace(engines: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    """An engine whose input could not be built fails for that input's reason."""
    for engine in engines:
        for step in failed:
            if engine["reason"].startswith(f"{step['step']} could not be built"):
                engine["reason"] = f"{step['step']}: {step['reason']}"
                engine["error_class"] = step["error_class"]
                step["fails"] = engine["engine"]


def _failed_steps(words: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Conversions, exports and accuracy gates that failed: each fails the engines that need it."""
    return [
        {
            "step": path,
            "error_class": text(event.get("error_class")),
            "reason": text(event.get("reason_text")),
        }
        for path, event in words.items()
        if event.get("outcome") == "failed" and not path.endswith(".engine")
    ]


def _known(earlier: Path) -> dict[str, Any]:
    try:
        networks = mapping(mapping(json.loads(read_small(earlier, LARGEST))).get("networks"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in networks.items() if mapping(v).get("census") == VERSION}


def _networks(
    engines: list[dict[str, Any]], state: StateFolder, memo: DigestCache, known: Mapping[str, Any]
) -> dict[str, Any]:
    """What each engine's ONNX is made of, by its sha256, which the engine gets as `network`: that of its
    receipt, where the file still is the one it was made from."""
    found: dict[str, Any] = {}
    for engine in engines:
        inputs = engine["receipt"]["inputs"] if engine["receipt"] else []
        wanted = next((each["sha256"] for each in inputs if each["role"] == "onnx"), None)
        engine["network"] = _network(engine["onnx"], wanted, state, memo, known, found)
    return found


def _network(
    onnx: str,
    wanted: str | None,
    state: StateFolder,
    memo: DigestCache,
    known: Mapping[str, Any],
    found: dict[str, Any],
) -> str | None:
    if wanted and (wanted in found or wanted in known):
        found.setdefault(wanted, known.get(wanted))
        return wanted
    if not onnx or "\0" in onnx:
        return None
    try:
        path = state.top / onnx
        digest = memo.sha256(path)
        if wanted not in (None, digest):
            return None
        if digest not in found:
            found[digest] = {"file": onnx, **read_census(path).to_json()}
    except (OSError, ValueError, EngineError):
        return None
    return digest
