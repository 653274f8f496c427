"""`scons NAME`: the engines of one model, for every precision and hardware."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import SCons.Node.Alias
import SCons.Node.FS
import SCons.Script

from . import settings
from .engine_target import EngineTarget
from .requested_targets import command_line_places


def declare(engines: Sequence[EngineTarget], top: str) -> None:
    """Make an alias of each model that the command line names; in an interactive session, of every model. A
    name that the user gave to a target, an alias, a file or a folder keeps that meaning."""
    names = {engine.name for engine in engines}
    if not settings.option("interactive"):
        names &= set(map(str, SCons.Script.COMMAND_LINE_TARGETS))
    for name in names:
        if SCons.Node.Alias.default_ans.lookup(name) is None and not _is_taken(name, top):
            own = [engine for engine in engines if engine.name == name]
            own[0].target.get_build_env().Alias(name, [node for each in own for node in each.in_aliases()])
            if settings.option("clean"):
                _clean(own)


def _is_taken(name: str, top: str) -> bool:
    """Whether there is a file or folder of this name, or a target that makes one."""
    places = {os.path.join(top, name), *(p for p in command_line_places(top) if os.path.basename(p) == name)}
    return any(os.path.lexists(place) or _has_builder(place) for place in places)


def _has_builder(path: str) -> bool:
    folder = SCons.Node.FS.get_default_fs().Dir(os.path.dirname(path))
    node: Any = folder.entries.get(os.path.basename(path))
    return node is not None and (node.has_builder() or isinstance(node, SCons.Node.FS.Dir))


def _clean(engines: Sequence[EngineTarget]) -> None:
    """Let -c remove the engines that it names."""
    for engine in engines:
        engine.kept = False
        for node in engine.nodes:
            node.set_noclean(False)
