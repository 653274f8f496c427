"""Which declared engines depend on a file, by themselves or through the ONNX steps that make their inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..values import Value
from .declared_engines import Declaration, DeclaredEngine


class Dependent(Value):
    """An engine that depends on a file. role: of the file, such as "onnx"; through: the label of the step
    that reads it, None if the engine itself depends on it."""

    engine: DeclaredEngine
    role: str
    through: str | None = None


def dependents(tree: Declaration, file: Path) -> Iterator[Dependent]:
    """The engines that depend on a file, or on a file in a folder."""
    wanted = _real(file)
    digests = tree.data.get("read")
    read = [label for label in (digests or ()) if _is_or_contains(wanted, tree.place(label), "")]
    for engine in tree.engines:
        found = _first_use(engine, wanted) or _by_declaration(engine, read)
        if found:
            yield found


def _first_use(engine: DeclaredEngine, wanted: str) -> Dependent | None:
    for role, path in engine.files():
        if _is_or_contains(wanted, path, role):
            return Dependent(engine, role)
    for step in engine.steps():
        for role, path in step.files():
            if _is_or_contains(wanted, path, role):
                return Dependent(engine, role, step.label)
    return None


def _by_declaration(engine: DeclaredEngine, read: list[str]) -> Dependent | None:
    """read: labels of files that the last run read. A hardware file is for the engines of its name; a
    SConscript, a module or an engines.toml may change every engine."""
    for label in read:
        if not label.endswith(".json"):
            return Dependent(engine, "SConscript")
        if engine.hardware == Path(label).stem:
            return Dependent(engine, "hardware")
    return None


def _is_or_contains(wanted: str, path: Path, role: str) -> bool:
    """Whether a file is the wanted one, or in the wanted folder, or the wanted one in a folder of samples."""
    real = _real(path)
    inside = real.startswith(wanted.rstrip(os.sep) + os.sep)
    return real == wanted or inside or (role == "samples" and wanted.startswith(real + os.sep))


def _real(path: Path) -> str:
    return os.path.realpath(path)
