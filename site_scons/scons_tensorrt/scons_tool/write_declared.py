"""Write `.trt/declared.json`, what a run declares; `build/declared_engines.py` reads it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.engine_spec import EngineInputs
from ..files.reading import open_file
from ..files.writing import replacing
from ..hardware.signature import HardwareSignature
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
    entries = (_entry(engine, files, signatures) for engine in engines)
    data = {"schema": 1, "top": top, "folders": sorted(map(files.from_top, folders))}
    if not adds:  # as bytes: the dicts of 10,000 engines, or several copies of the text, would be the peak
        texts = [(", " + json.dumps(entry)).encode() for entry in entries]
        texts[0] = f'{json.dumps(data)[:-1]}, "engines": [{texts[0][2:].decode()}'.encode()
        texts.append(f"], {json.dumps(_rest(steps, signatures, read))[1:-1]}".encode())
        _write(state, texts)
        return
    data = {**data, "engines": list(entries), **_rest(steps, signatures, read)}
    from ..build.merge_declarations import add_earlier, declaring_alone

    with declaring_alone(state):
        add_earlier(data, state, files.digest_cache)
        _write(state, [json.dumps(data)[:-1].encode()])


def _rest(
    steps: Iterable[OnnxTarget], signatures: Iterable[HardwareSignature], read: dict[str, str]
) -> dict[str, Any]:
    """What follows the engines. signatures: those of all engines."""
    return {
        "steps": [step.to_json() for step in steps if step.is_needed(read=False)],
        "signatures": [signature.to_json() for signature in signatures],
        "read": read,
    }


def _write(state: StateFolder, texts: list[bytes]) -> None:
    """texts: the JSON, in pieces, without its closing brace."""
    texts.append(b', "declared_at": "')
    with contextlib.suppress(OSError), open_file(state.declared) as there, io.BufferedReader(there) as source:
        if all(source.read(len(text)) == text for text in texts):
            return  # unchanged, so keep its time
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with replacing(state.declared, durable=False) as out:
        out.writelines((*texts, f'{now}"}}\n'.encode()))


def _entry(engine: EngineTarget, files: RunFiles, signatures: list[HardwareSignature]) -> dict[str, Any]:
    """The entry of an engine. signatures: a list that all engines share; this one's is added."""
    hardware, from_top = engine.hardware, files.from_top
    if hardware and hardware.signature not in signatures:
        signatures.append(hardware.signature)
    compiled, original = engine.compiled_onnx(read=False), engine.original
    made = files.place(compiled) if engine.inputs else from_top(compiled.get_abspath())
    fields = {
        "name": engine.name,
        "engine": engine.label,
        "source": files.label(compiled),
        "onnx": made,
        "original": made if original is compiled else from_top(original.get_abspath()),
        "plugins": [from_top(node.get_abspath()) for node in engine.plugins],
        "samples": engine.samples and from_top(str(engine.samples.path)),
        "hardware": hardware and hardware.name,
        "recipe": engine.recipe.to_json(),
        "ingredients": engine.fields,
    }
    more = {
        "data": {location: from_top(str(path)) for location, path in _apart(engine.inputs).items()},
        "gate": engine.gate and engine.gate.label,
        "timing_cache": engine.timings and from_top(engine.timings.get_abspath()),
        "place": engine.place.at() if engine.place and engine.place.line else None,
        "signature": signatures.index(hardware.signature) if hardware else None,
        "problem": None if hardware else str(engine.problem or "no hardware"),
    }
    return {**fields, **{name: value for name, value in more.items() if value not in (None, {})}}


def _apart(inputs: EngineInputs | None) -> dict[str, Path]:
    """External data that is not beside the ONNX but in a Repository or VariantDir."""
    if inputs is None:
        return {}
    folder = inputs.onnx.parent
    return {name: path for name, (path, _) in inputs.external.items() if path != folder / name}
