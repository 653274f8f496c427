"""Builder, emitter, scanner and decider: how SCons learns when an engine must be built.

SCons never looks at a target's bytes. So each target depends on one shared Value, whose Decider
checks the *target*: engine modified, sidecar missing, receipt of another key. Thus --debug=explain
names that Value, `-n`, `-q` and `-c` work as usual, and only that pair is rebuilt.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import SCons.Builder
import SCons.Errors
import SCons.Node
from SCons.Scanner import Scanner

from ..artifact.filename import SIDECAR_SUFFIX
from ..errors import (
    EngineError,
    PublishError,
    RecipeError,
)
from ..recipe.key_ingredients import VERSION
from . import settings
from .nodes import data_nodes, real_place, set_class, target_of
from .session import session_of
from .target import HandoffTarget, PinnedAction, ReceiptTarget

_T = TypeVar("_T")
INTEGRITY = "the recorded bytes of engine and sidecar"


def bytes_changed(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider of the integrity Value: whether the target is out of date.

    SCons calls it again after a build; then the target is up to date.
    """
    if target.get_state() > SCons.Node.executing:
        return False
    declared: ReceiptTarget = target_of(target)
    session = session_of(target.get_build_env())
    if target.get_state() < SCons.Node.executing and declared.on_visit(target):
        session.again()
    session.mark_requested(declared)
    if settings.option("no_exec") and declared.awaits():
        return True  # its input would change first
    try:
        current = declared.up_to_date().current
    except EngineError as error:
        declared.problem = error.with_traceback(None)
        return True
    except Exception as error:  # otherwise SCons prints a stack trace
        from .failure_text import unexpected

        declared.problem = unexpected(declared, error)
        return True
    if current:
        session.tidy(declared)
    elif settings.writes():
        fault = session.files.unwritable(declared.path) or session.files.make_folder(declared.path)
        if fault:
            declared.problem = PublishError(fault)
    return not current


def out_of_date(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider of manifests and installed files, as `bytes_changed` is that of engines."""
    if target.get_state() > SCons.Node.executing:
        return False
    handoff: HandoffTarget = target_of(target)
    if target.get_state() < SCons.Node.executing:
        handoff.on_visit(target)
    try:
        if handoff.is_right(target):
            return False
    except Exception as error:
        from .failure_text import unexpected

        handoff.problem = unexpected(handoff, error)
    if settings.writes():
        session_of(target.get_build_env()).files.make_folder(handoff.path)
    return True


def preview(target: Any, source: Any, env: Any) -> None:
    """Under -n, called instead of the actions."""
    from .dry_run import preview as print_preview

    print_preview(target_of(target[0]), env, session_of(env))


def emit(target: Any, source: Any, env: Any) -> tuple[Any, Any]:
    """The emitter: adds the sidecar to the targets."""
    engine = target[0]
    return [engine, engine.dir.File(engine.name + SIDECAR_SUFFIX)], source


def prepared_of(env: Any, folder: Any, target: Any, source: Any) -> tuple[Any, ...]:
    """For the scanner: each prepared ONNX that the target may be made from instead of its source."""
    owner = target_of(target[0]) if target else None
    found = [getattr(each, "prepared", None) for each in getattr(owner, "engines", [owner])]
    return tuple(each for each in found if each is not None)


def scan(node: Any, env: Any, path: Any = ()) -> list[Any]:
    """The scanner: the external data of an ONNX, and its prepared file where it needs one. path: of
    `prepared_of`.

    Missing or irregular files are left out: the action of the engine reports them, while SCons would
    stop with an error of its own, or read a device forever.
    """
    try:
        summary = session_of(env).files.inputs.summary(real_place(node))
    except (RecipeError, OSError, ValueError):
        return []
    files = data_nodes(node, summary.external)
    there = [file for file in files if file.has_builder() or os.path.isfile(real_place(file))]
    for file in there:
        set_class(file)
    return [*there, *(each.target for each in path if each.instead_of(node) is not node)]


def scan_source(node: Any, env: Any, path: Any = ()) -> list[Any]:
    """The scanner of steps, whose sources may also be samples, scripts and other files."""
    return scan(node, env, path) if hasattr(node.attributes, "trt_onnx") else []


def _action(name: str) -> Callable[[Any, Any, Any], None]:
    """A function of actions.py, which a null build does not import."""

    def run(target: Any, source: Any, env: Any) -> None:
        from . import actions

        getattr(actions, name)(target, source, env)

    return run


def _scanner(function: Callable[[Any, Any, Any], list[Any]]) -> Any:
    return Scanner(
        function=function, name="ONNX", skeys=[".onnx"], recursive=False, path_function=prepared_of
    )


def make_builder() -> Any:
    """The builder behind `env.Engine`."""
    text = f"scons-tensorrt engine, recipe version {VERSION}"
    return SCons.Builder.Builder(
        action=PinnedAction(_action("build"), text, preview, "$TRT_ENGINECOMSTR"),
        emitter=emit,
        source_scanner=_scanner(scan),
        single_source=True,
    )


def make_step_builder() -> Any:
    """The builder behind the ONNX files that engines need."""
    return SCons.Builder.Builder(
        action=PinnedAction(_action("convert"), "scons-tensorrt conversion", preview, "$TRT_ENGINECOMSTR"),
        source_scanner=_scanner(scan_source),
    )


@cache
def make_handoff_builder(text: str, scans: bool = False) -> Any:
    """The builder behind `env.EngineManifest` or `env.InstallEngines`. text: the signature of its
    action; scans: whether its sources are ONNX files."""
    more = {"source_scanner": _scanner(scan_source)} if scans else {}
    return SCons.Builder.Builder(action=PinnedAction(_action("write"), text, preview), **more)
