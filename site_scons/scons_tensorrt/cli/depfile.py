"""`build --depfile`: rules of make that name all input files of an engine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..artifact.filename import SIDECAR_SUFFIX
from ..errors import EngineError
from ..files.writing import write_atomic
from ..recipe.engines_file import EngineEntry
from ..recipe.options import DEFAULTS
from .common import writing
from .name import engine_path


def rule(entry: EngineEntry, external: Iterable[str], settings: Mapping[str, str]) -> list[str]:
    """The path of an engine, and those of all of its input files. external: the locations of the ONNX's data.
    Raises EngineError."""
    hardware, folder = settings.get("HARDWARE"), settings.get("ENGINE_DIR", "")
    if hardware and "," in hardware:
        raise EngineError(f"HARDWARE={hardware}: --depfile is for one hardware; name one")
    precision = entry.options.get("precision", DEFAULTS["precision"])
    base = os.path.dirname(entry.onnx)
    data = [os.path.join(base, location) for location in external]
    engine = engine_path(entry.name, precision, hardware, folder)
    return [engine, entry.onnx, *data, *_other_files(entry.options)]


def check(depfile: str, rules: Sequence[Sequence[str]]) -> None:
    """Raise EngineError for a depfile that would overwrite an input or an engine, and for names that no rule
    can hold."""
    files = [file for each in rules for file in each]
    taken = {os.path.realpath(file) for file in [*files, *(f"{each[0]}{SIDECAR_SUFFIX}" for each in rules)]}
    if os.path.realpath(depfile) in taken or os.path.isdir(depfile):
        raise EngineError(f"--depfile {depfile}: this is an input, an engine or a folder; name another file")
    if any("\n" in file for file in files):
        raise EngineError(
            f"--depfile {depfile}: a file's name has a line break, which make cannot read; rename it"
        )


def write(depfile: str, rules: Sequence[Sequence[str]]) -> None:
    """Write the rules. Raises EngineError."""
    escaped = [[re.sub(r"([ #:\\])", r"\\\1", file).replace("$", "$$") for file in rule] for rule in rules]
    text = "".join(f"{target}: {' '.join(inputs)}\n" for target, *inputs in escaped)
    with writing(depfile):
        Path(depfile).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(depfile), text.encode(), durable=False)


def _other_files(options: Mapping[str, Any]) -> Iterator[str]:
    """The plugins, samples, references and timing cache among the options; of a folder, its files."""
    plugins = options.get("plugins", ())
    found = [plugins] if isinstance(plugins, str) else list(plugins)
    for name in ("calibration", "accuracy", "timing_cache"):
        given = options.get(name)
        chosen = given.values() if isinstance(given, Mapping) else [given]
        found += [each for value in chosen for each in (value if isinstance(value, list) else [value])]
    for each in found:
        path = Path(re.sub(r"(\.py):\w+$", r"\1", each)) if isinstance(each, str) else None
        if path is not None and path.is_dir():
            yield from sorted(str(file) for file in path.rglob("*.npy"))
        elif path is not None and path.is_file():
            yield str(path)
