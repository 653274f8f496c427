"""Checks after SCons has read every SConscript, before it builds or removes anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import SCons.Node.FS
import SCons.Script

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX
from ..errors import one_line
from ..hardware.resolve import BUILT_IN
from . import remote_settings, settings, store_settings
from .console import say
from .nodes import command_line_places

if TYPE_CHECKING:
    from .services import RunServices


def check(session: RunServices) -> None:
    """Stop with exit status 2 at arguments and targets that SCons would silently ignore."""
    _check_arguments(session)
    if session.engines:
        _check_targets(session)
        if settings.option("clean"):
            tell_environment(session)


def _stop(session: RunServices, text: str) -> NoReturn:
    session.stopped = True
    sys.stderr.write(f"scons: *** {one_line(text)}\n")
    raise SystemExit(2)


def _check_arguments(session: RunServices) -> None:
    """Reject misspelled settings."""
    arguments = (*settings.ARGUMENTS, *store_settings.RENAMED)
    names = [name for name in SCons.Script.ARGUMENTS if name not in arguments]
    names = [name for name in names if name not in session.arguments_read]
    if not names:
        return
    from .spelling import misspelled, texts_read

    variables = (
        *(*settings.VARIABLES, *store_settings.VARIABLES, *remote_settings.VARIABLES),
        *(settings.SIGNING_KEY, *store_settings.SECRETS),
    )
    if not misspelled(names, arguments, variables):
        return
    texts = texts_read(session.top)
    unread = [] if texts is None else [name for name in names if name not in texts]
    wrong = misspelled(unread, arguments, variables)
    if wrong:
        _stop(session, "; ".join(wrong))


def _check_targets(session: RunServices) -> None:
    """Reject existing files and folders that no one declared, such as engines for other hardware:
    SCons considers them up to date."""
    places = command_line_places(str(session.top))
    for place in sorted(places):
        folder = next((f for f in session.checked if place.startswith(f + os.sep)), None)
        if folder is None or any(_is_in(path, place) for e in session.engines for path in e.paths()):
            continue
        name = place[len(folder) + 1 :].partition(os.sep)[0]
        known = name in BUILT_IN or (session.top / "hardware" / f"{name}.json").is_file()
        if os.path.isdir(place):
            mixed = _is_in(str(session.top), folder)  # ENGINE_DIR=. holds anything
            if mixed and not known and not any(Path(place).glob(f"*{SUFFIX}")):
                continue
        elif not place.endswith((SUFFIX, SUFFIX + SIDECAR_SUFFIX)) or not os.path.lexists(place):
            continue
        if _is_built(SCons.Node.FS.get_default_fs().Entry(place)):
            continue
        failed = next((e.problem for e in session.engines if e.problem and not e.hardware), None)
        why = failed or f"no engine of this run; name its hardware, HARDWARE={name if known else ''}"
        _stop(session, f"{session.state.relative(place)}: {why}")


def _is_built(node: Any) -> bool:
    """Whether the node, or one below it, has a builder."""
    if not isinstance(node, SCons.Node.FS.Dir):
        return bool(node.has_builder())
    return any(_is_built(each) for name, each in node.entries.items() if name not in (".", ".."))


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(place + os.sep)


def tell_environment(session: RunServices) -> None:
    """Warn about HARDWARE in the environment, which is not read."""
    named = os.environ.get("HARDWARE")
    if not named or SCons.Script.ARGUMENTS.get("HARDWARE"):
        return
    if settings.option("question") or all(engine.asked_for for engine in session.engines):
        return
    from .spelling import texts_read

    texts = texts_read(session.top)
    if texts is not None and "HARDWARE" not in texts and not settings.option("silent"):
        say(
            f"engines: HARDWARE={named} in the environment is not read; write it on the command line, "
            f"or set TRT_HARDWARE={named}"
        )
