"""`env.Engine`: declare an engine and its sidecar as targets of everything they are made from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Node
import SCons.Node.FS
import SCons.Script
import SCons.Util

from ..errors import EngineError, PublishError, RecipeError
from ..identity.filename import SIDECAR_SUFFIX, SUFFIX
from ..identity.hardware import Hardware
from ..recipe.options import Recipe, name_options, parse
from . import settings
from .builder import INTEGRITY, declare_on, tampered
from .declared import Declared, data_node
from .session import ALIAS, Session, session_of
from .signed import EngineFile, sign


def Engine(env: Any, name: Any = None, source: Any = None, *positional: Any, **options: Any) -> Any:
    """Declare the engine `name` of the ONNX `source`; returns the nodes [engine, sidecar].

    precision: fp32, tf32, fp16, bf16, int8, fp8 or mixed: what the ONNX's own types are on a
    strongly typed runtime (fp32 switches TF32 off). shapes: {input: (min, opt, max)} or
    {input: shape} for dynamic inputs, sizes in elements; a list of such maps for several
    profiles. workspace_mb: MiB. flags: BuilderFlag names. plugins: libraries to load.
    timeout_s: seconds.

    Raises UserError for what is wrong in the call itself; what is wrong with the model or the
    hardware fails the engine when it is built, so that unrelated targets still build.
    """
    session = session_of(env)
    session.settle(env)
    chosen = settings.read(env, session.top)
    try:
        options = name_options(positional, options)
        plugins = [_file(env, each, "plugin") for each in _as_list(options.get("plugins"))]
        recipe = parse(name, options, [Path(node.name) for node in plugins])
        onnx = _one_source(env, source)
    except RecipeError as error:
        raise SCons.Errors.UserError(f"Engine {name!r}: {error}") from None
    if chosen.engine_dir not in session.checked:
        _check_folder(session, chosen.engine_dir)
        session.checked.add(chosen.engine_dir)
    hardware, problem = _hardware(session, chosen)
    folder, filename = _place(chosen, recipe, hardware)
    fault = _fault_of_place(session, folder, filename)
    if fault:
        hardware, problem = None, fault
        folder, filename = _place(chosen, recipe, None)
    path = os.path.join(folder, filename)
    declared = Declared(session, str(name), recipe, hardware, problem, Path(path))
    declared.python, declared.onnx, declared.plugins = chosen.python, onnx, plugins
    _refuse_second(session, declared, folder)
    pair = env.TRT_Engine(env.fs.File(path), onnx)
    declared.pair, declared.target = pair, pair[0]
    declare_on(pair, declared)
    sign(pair[0], EngineFile)
    data = [data_node(onnx, location) for location in session.known_data(onnx.get_abspath())]
    for node in (onnx, *plugins, *data):
        sign(node)
    _depend(env, session, pair, declared)
    _protect(env, pair, declared)
    session.engines.append(declared)
    session.join_alias(env, pair[1])
    return pair


def _one_source(env: Any, source: Any) -> Any:
    sources = _as_list(source)
    if len(sources) != 1:
        raise RecipeError(f"{len(sources)} sources: give the one ONNX")
    return _file(env, sources[0], "source")


def _file(env: Any, value: Any, what: str) -> Any:
    """The file node of what a user wrote: a path, a node, or a list of one."""
    if isinstance(value, os.PathLike) and not isinstance(value, SCons.Node.Node):
        value = os.fspath(value)
    if not value or not (isinstance(value, (str, SCons.Node.Node)) or SCons.Util.is_Sequence(value)):
        raise RecipeError(f"{what} {value!r}: give the path or node of a file")
    try:
        nodes = env.arg2nodes(value, env.fs.Entry)
        node = nodes[0]
        node = node.disambiguate() if isinstance(node, SCons.Node.FS.Base) else node
    except (TypeError, AttributeError, IndexError) as error:
        raise RecipeError(f"{what} {value!r}: {error}; give the path or node of a file") from None
    if len(nodes) != 1:
        raise RecipeError(f"{len(nodes)} {what}s: give the one file")
    if isinstance(node, SCons.Node.FS.Dir):
        raise RecipeError(f"{what} {node} is a folder: give the file itself")
    if not isinstance(node, SCons.Node.FS.File):
        raise RecipeError(f"{what} {node} is not a file: give the path or node of one")
    return node


def _fault_of_place(session: Session, folder: str, filename: str) -> EngineError | None:
    """Why SCons cannot even have a node at an engine's place."""
    folders = session.folders_in(folder)
    for name in (filename, filename + SIDECAR_SUFFIX):
        if name in folders:
            where = session.state.relative(os.path.join(folder, name))
            return PublishError(f"{where} is a folder where the engine shall be; remove it")
    return None


def _check_folder(session: Session, folder: str) -> None:
    """Refuse an ENGINE_DIR that is, or lies below, a file. Raises UserError."""
    place = Path(folder)
    for above in (place, *place.parents):
        if above.is_file():
            where = session.state.relative(above)
            raise SCons.Errors.UserError(f"ENGINE_DIR: {where} is a file; name a folder")
        if above.is_dir():
            break


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple, SCons.Util.NodeList)):
        return list(value)
    return [] if value is None else [value]


def _hardware(session: Session, chosen: settings.Settings) -> tuple[Hardware | None, EngineError | None]:
    """The hardware, or the error that the engine's action shall raise. `-h` asks nobody."""
    if settings.option("help"):
        return None, None
    try:
        return session.hardware(chosen), None
    except EngineError as error:
        return None, error


def _place(chosen: settings.Settings, recipe: Recipe, hardware: Hardware | None) -> tuple[str, str]:
    """The folder and filename of an engine."""
    if hardware is None:
        return chosen.engine_dir, f"{recipe.model}__unknown{SUFFIX}"
    folder = chosen.engine_dir
    if hardware.name:
        folder = os.path.join(folder, hardware.name)
    return folder, hardware.signature.filename(recipe.model, recipe.precision).build()


def _refuse_second(session: Session, declared: Declared, folder: str) -> None:
    other = session.places.setdefault((declared.name, folder), declared)
    if other is not declared:
        raise SCons.Errors.UserError(
            f"Engine {declared.name!r} is declared twice for the same hardware (of "
            f"{other.source} and {declared.source}); give one another name"
        )


def _depend(env: Any, session: Session, pair: Any, declared: Declared) -> None:
    """Values are compared by position, so they are sorted; one each, so that a reason names it."""
    values = [session.value(env, f"{name}={text}") for name, text in sorted(declared.fields.items())]
    guard = session.value(env, INTEGRITY, tampered)
    for node in pair:
        node.add_dependency([*values, *declared.plugins, guard])


def _protect(env: Any, pair: Any, declared: Declared) -> None:
    """Old bytes stand until new ones are whole; a bare `scons -c` cannot take what this host
    may be unable to make again."""
    for node in pair:
        node.set_precious(True)
        node.set_nocache(True)
    if settings.option("clean") and not _named_for_cleaning(env, pair):
        env.NoClean(pair)
        declared.kept = os.path.lexists(declared.path)


def _named_for_cleaning(env: Any, pair: Any) -> bool:
    # Which of the two a name is below depends on --directory, -u and -D; an engine has one place.
    folders = (SCons.Script.GetLaunchDir(), env.fs.Top.get_abspath())
    places = {node.get_abspath() for node in pair}
    for target in SCons.Script.COMMAND_LINE_TARGETS:
        name = target.lstrip("#").lstrip("/") if target.startswith("#") else target
        named = {os.path.normpath(os.path.join(folder, name)) for folder in folders}
        if target == ALIAS or places & named:
            return True
    return False
