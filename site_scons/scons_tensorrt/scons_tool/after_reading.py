"""Checks after SCons has read every SConscript, before it builds or removes anything."""

from __future__ import annotations

import ast
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import SCons.Node
import SCons.Node.FS
import SCons.Script

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX
from ..errors import one_line
from ..hardware.choose_hardware import BUILT_IN
from . import remote_settings, settings, store_settings
from .console import say
from .engine_target import EngineTarget
from .nodes import files_read
from .requested_targets import command_line_places
from .run_files import RunFiles

SHORT = 5  # letters: other words differ from such a name by a single letter
LONG = 8  # letters: two may be wrong


def check(
    files: RunFiles, engines: Sequence[EngineTarget], folders: Collection[str], read: Collection[str]
) -> list[str]:
    """Why the run must stop: an argument or target that SCons would silently ignore. folders: the values
    of ENGINE_DIR; read: arguments that the SConstruct reads itself."""
    why = _check_arguments(files.top, read)
    if not why and engines:
        why = _check_targets(files, engines, folders)
        why = why or (None if "TIMING" in read else _check_timing(engines))
    if not why and engines and settings.option("clean"):
        warn_about_environment(files.top, engines)
    return [one_line(why)] if why else []


def _check_arguments(top: Path, read: Collection[str]) -> str | None:
    """What is wrong with misspelled settings."""
    arguments = (*settings.ARGUMENTS, *store_settings.RENAMED)
    names = [name for name in SCons.Script.ARGUMENTS if name not in (*arguments, *read)]
    if not names:
        return None
    variables = (
        *(*settings.VARIABLES, *store_settings.VARIABLES, *remote_settings.VARIABLES),
        *(settings.SIGNING_KEY, *store_settings.KEYS),
    )
    if not _misspelled(names, arguments, variables):
        return None
    texts = _texts_read(top)
    unread = [] if texts is None else [name for name in names if name not in texts]
    return "; ".join(_misspelled(unread, arguments, variables)) or None


def _check_timing(engines: Sequence[EngineTarget]) -> str | None:
    """What is wrong with TIMING=."""
    value = SCons.Script.ARGUMENTS.get("TIMING")
    if value not in (None, "record"):
        return f"TIMING={value}: write TIMING=record"
    if value and not any(engine.timings for engine in engines):
        return "TIMING=record: no engine has timing_cache=; name its file there"
    return None


def _check_targets(files: RunFiles, engines: Sequence[EngineTarget], folders: Collection[str]) -> str | None:
    """What is wrong with existing files and folders that no one declared, such as engines for other
    hardware: SCons considers them up to date."""
    top = files.top
    for place in sorted(command_line_places(str(top))):
        folder = next((f for f in folders if place.startswith(f + os.sep)), None)
        if folder is None or any(_is_in(path, place) for e in engines for path in e.paths()):
            continue
        name = place[len(folder) + 1 :].partition(os.sep)[0]
        known = name in BUILT_IN or (top / "hardware" / f"{name}.json").is_file()
        if os.path.isdir(place):
            mixed = _is_in(str(top), folder)  # ENGINE_DIR=. holds anything
            if mixed and not known and not any(Path(place).glob(f"*{SUFFIX}")):
                continue
        elif not place.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX)) or not os.path.lexists(place):
            continue
        if _is_built(SCons.Node.FS.get_default_fs().Entry(place)):
            continue
        failed = next((e.problem for e in engines if e.problem and not e.hardware), None)
        why = (
            failed or f"not an engine of this run; select its hardware with HARDWARE={name if known else ''}"
        )
        return f"{files.state.relative(place)}: {why}"
    return None


def _is_built(node: Any) -> bool:
    """Whether the node, or one below it, has a builder."""
    if not isinstance(node, SCons.Node.FS.Dir):
        return bool(node.has_builder())
    return any(_is_built(each) for name, each in node.entries.items() if name not in (".", ".."))


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(place + os.sep)


def warn_about_environment(top: Path, engines: Sequence[EngineTarget]) -> None:
    """Warn about HARDWARE in the environment, which is not read."""
    named = os.environ.get("HARDWARE")
    if not named or SCons.Script.ARGUMENTS.get("HARDWARE"):
        return
    if settings.option("question") or all(engine.asked_for for engine in engines):
        return
    texts = _texts_read(top)
    if texts is not None and "HARDWARE" not in texts and not settings.option("silent"):
        say(
            f"engines: HARDWARE={named} in the environment is not read; write it on the command line, "
            f"or set TRT_HARDWARE={named}"
        )


def _misspelled(names: Iterable[str], arguments: Collection[str], variables: Collection[str]) -> list[str]:
    """What is wrong with those of several names that are close to a setting, and what to write.

    arguments: the settings of the command line; variables: those of the environment.
    """
    found = []
    for name in names:
        if name in variables:
            known = name.removeprefix("TRT_") in arguments
            what = f"write {_today(name)}=" if known else f"set {name} in the environment instead"
            found.append(f"{name}= is not read from the command line; {what}")
            continue
        right = next((known for known in (*arguments, *variables) if _close(name, known)), None)
        if right and right.removeprefix("TRT_") in arguments:
            found.append(f"{name}= is not a setting; write {_today(right)}=")
        elif right:
            found.append(f"{name}= is not a setting; set {right} in the environment")
    return found


def _today(name: str) -> str:
    """The argument for a setting, under its new name."""
    bare = name.removeprefix("TRT_")
    return store_settings.RENAMED.get(bare, bare)


def _close(name: str, known: str) -> bool:
    one, other = (text.upper().replace("_", "").replace("-", "") for text in (name, known))
    if one == other:
        return True
    if len(other) > SHORT:
        return _distance(one, other) <= (2 if len(other) >= LONG else 1)
    moved = len(one) != len(other) or sorted(one) == sorted(other)
    return moved and one[:1] == other[:1] and _distance(one, other) == 1


def _distance(one: str, other: str) -> int:
    """Letters to add, leave out, replace, or swap with their neighbour."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]


def _texts_read(top: Path) -> set[str] | None:
    """Every string constant of an SConscript, or in a module of the tree that one imported; None
    where a text cannot be read."""
    found: set[str] = set()
    if not getattr(SCons.Node, "SConscriptNodes", ()):
        return None  # read from standard input
    for path in files_read(str(top)):
        try:
            tree = ast.parse(Path(path).read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError):
            return None
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        found.update(value.strip() for value in constants if isinstance(value, str))
    return found
