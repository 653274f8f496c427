"""Adds the engines that earlier commands of this folder declared to the declaration of this run, because each
command line names only its own. No engine file is touched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..artifact.state_folder import StateFolder
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from ..files.engine_and_gpu_locks import engine_lock
from .declared_engines import DeclaredEngine, last_declaration
from .declared_onnx import ODD

LOCK_TIMEOUT_S = 10


@contextlib.contextmanager
def declaring_alone(state: StateFolder) -> Iterator[None]:
    """Hold the lock of the tree's declaration, so that commands at the same time add to each other's. Where
    it cannot be locked, go on without."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(EngineError):
            path = state.declared
            lock = engine_lock(
                state.lock(path), path.name, lambda holder: None, lambda: False, LOCK_TIMEOUT_S
            )
            held.enter_context(lock)
        yield


def add_earlier(data: dict[str, Any], state: StateFolder, digest_cache: DigestCache) -> None:
    """Add what the tree's last declaration has besides to `data`, the new one. Engines that were removed are
    left out, and those whose ONNX was."""
    earlier = last_declaration(state, digest_cache)
    if earlier is None:
        return
    known = {item["engine"] for item in data["engines"]}
    kept = [each for each in earlier.engines if each.label not in known and _is_there(each)]
    data["engines"] = sorted(
        [*data["engines"], *(_moved(each, data["signatures"]) for each in kept)], key=_label
    )
    made = {item["step"] for item in data["steps"]}
    steps = {step.label: step.item for engine in kept for step in engine.steps()}
    data["steps"] += [item for label, item in steps.items() if label not in made]
    folders, read = earlier.data.get("folders"), earlier.data.get("read")
    data["folders"] = sorted({*data["folders"], *(folders if isinstance(folders, list) else ())})
    there = {
        name: sha
        for name, sha in (read if isinstance(read, dict) else {}).items()
        if earlier.place(name).exists()
    }
    data["read"] = {**there, **data["read"]}


def other_source(engine: DeclaredEngine, onnx: Path) -> str | None:
    """The ONNX of a declared engine that is there, if it is another one than `onnx` and is there, too."""
    if not _is_there(engine) or os.path.samefile(engine.original, onnx):
        return None
    return engine.declaration.state.relative(engine.original)


def _is_there(engine: DeclaredEngine) -> bool:
    return engine.path.exists() and engine.original.exists()


def _label(item: dict[str, Any]) -> str:
    return str(item["engine"])


def _moved(engine: DeclaredEngine, signatures: list[Any]) -> dict[str, Any]:
    """The entry of an engine for another declaration. signatures: of that one; the engine's is added."""
    item = dict(engine.item)
    try:
        signature = engine.declaration.signature(item["signature"]).to_json()
    except (EngineError, *ODD):  # one of another version, which is reported when it is read
        return item
    if signature not in signatures:
        signatures.append(signature)
    return {**item, "signature": signatures.index(signature)}
