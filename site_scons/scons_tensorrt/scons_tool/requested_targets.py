"""What the targets of a run mean: paths, folders and aliases. A run of `scons engines` needs none of this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import SCons.Node.Alias
import SCons.Node.FS
import SCons.Script

from .nodes import ALIAS


def named_for_cleaning(env: Any, nodes: Sequence[Any]) -> bool:
    """Whether the command line names one of `nodes`, or all engines."""
    targets = SCons.Script.COMMAND_LINE_TARGETS
    places = {node.get_abspath() for node in nodes}
    return ALIAS in targets or bool(places & paths_named(targets, env.fs.Top.get_abspath()))


def target_places(top: str) -> set[str]:
    """The absolute paths that the targets of this run may mean; for an alias, those that it stands for.

    SCons builds the whole tree where neither the command line nor a Default names a target, and leaves
    BUILD_TARGETS empty then."""
    targets = SCons.Script.BUILD_TARGETS
    aliases = [SCons.Node.Alias.default_ans.lookup(each) for each in targets if isinstance(each, str)]
    places = paths_named(targets, top).union(*map(_files_of, [*aliases, *targets]))
    return places or ({top} if not targets else set())


def command_line_places(top: str) -> set[str]:
    """The absolute paths that the targets on the command line may mean."""
    return paths_named(SCons.Script.COMMAND_LINE_TARGETS, top)


def paths_named(targets: Sequence[Any], top: str) -> set[str]:
    """The absolute paths that targets may mean."""
    # Which of the two a name is relative to depends on --directory, -u and -D.
    folders = (SCons.Script.GetLaunchDir(), top)
    places = set()
    for target in targets:
        if not isinstance(target, str):
            places.update([target.get_abspath()] if isinstance(target, SCons.Node.FS.Base) else [])
            continue
        name = target.lstrip("#").lstrip("/") if target.startswith("#") else target
        places.update(os.path.normpath(os.path.join(folder, name)) for folder in folders)
    return places


def _files_of(node: Any) -> set[str]:
    """The absolute paths of a node, or of what an alias stands for."""
    if isinstance(node, SCons.Node.FS.Base):
        return {node.get_abspath()}
    if not isinstance(node, SCons.Node.Alias.Alias):
        return set()
    found, waiting = {node}, [node]
    while waiting:
        inner = waiting.pop()
        more = {*inner.sources, *(inner.depends or ())} - found
        found |= more
        waiting += [each for each in more if isinstance(each, SCons.Node.Alias.Alias)]
    return {each.get_abspath() for each in found if isinstance(each, SCons.Node.FS.Base)}
