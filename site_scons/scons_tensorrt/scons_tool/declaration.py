"""Write `.trt/declared.json`, what a run declares; `build/declared.py` reads it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..files.reading import read_small
from ..files.writing import write_atomic
from .engine_target import EngineTarget
from .nodes import files_read as paths_read
from .run_files import RunFiles

if TYPE_CHECKING:
    from ..artifact.state_folder import StateFolder
    from .onnx_target import OnnxTarget


def files_read(files: RunFiles, engines: Iterable[EngineTarget]) -> dict[str, str]:
    """The sha256 of each SConscript, module and hardware file of the tree that was read."""
    found = {}
    named = {e.asked_for for e in engines if e.asked_for}
    boards = [n if "/" in n or n.endswith(".json") else f"hardware/{n}.json" for n in named]
    for path in (*paths_read(str(files.top)), *(str(files.top / board) for board in boards)):
        name = files.state.relative(path)
        with contextlib.suppress(OSError):
            if not os.path.isabs(name):
                found[name] = files.digest_cache.sha256(path)
    return found


def save(
    files: RunFiles,
    engines: Sequence[EngineTarget],
    steps: Iterable[OnnxTarget],
    folders: Iterable[str],
    read: dict[str, str] | None,
    adds: bool,
) -> None:
    """Write the declaration, unless it is unchanged; `read`, see `files_read`, is None because not every
    SConscript was read; or no engine has known hardware (its name may be misspelled) and there is an
    earlier declaration. adds: keep the engines of the earlier one. Raises OSError."""
    state = files.state
    if read is None or not engines or not (any(e.hardware for e in engines) or not state.declared.exists()):
        return
    # Relative for a state folder inside the tree, which may be moved with it.
    top = os.path.relpath(files.top, state.root) if state.inside else str(files.top)
    signatures: list[Any] = []
    data = {
        "schema": 1,
        "top": top,
        "folders": sorted(map(files.from_top, folders)),
        "engines": [engine.to_json(signatures) for engine in engines],
        "steps": [step.to_json() for step in steps],
        "signatures": [signature.to_json() for signature in signatures],
        "read": read,
    }
    if not adds:
        _write(state, data)
        return
    from ..build.earlier import add_earlier, declaring_alone

    with declaring_alone(state):
        add_earlier(data, state, files.digest_cache)
        _write(state, data)


def _write(state: StateFolder, data: dict[str, Any]) -> None:
    text = json.dumps(data)[:-1].encode("utf-8") + b', "declared_at": "'
    with contextlib.suppress(OSError):
        if read_small(state.declared, len(text) + 100).startswith(text):
            return  # unchanged, so keep its time
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_atomic(state.declared, text + f'{now}"}}\n'.encode(), durable=False)
