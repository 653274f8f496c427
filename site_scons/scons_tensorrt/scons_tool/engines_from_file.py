"""`env.EnginesFromFile`: declare the engines of an engines.toml. `scons-tensorrt build` uses it, too."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import SCons.Errors
import SCons.Node
import SCons.Script
import SCons.Util

from ..build.declared_engines import last_declaration
from ..errors import one_line
from ..files.reading import read_small
from ..recipe.engines_file import LARGEST, NAME, EngineEntry, EnginesFileError, distinct_name, read_engines
from ..recipe.option_checks import hint, messages_in
from ..recipe.sample_options import split_reader
from . import settings, store_settings
from .call_errors import add_error, call_errors, declared_at, label_of
from .env_engine import Engine
from .nodes import file_node, real_path
from .session import Session, session_of


def EnginesFromFile(env: Any, file: Any = NAME) -> Any:
    """Declare every engine of an engines file; returns their nodes, a pair [engine, sidecar] each.

    file: a path or node of an `engines.toml`, whose format is in recipe/engines_file.py. It must exist when
    SCons reads the SConstruct; the paths in it are relative to its folder. Each wrong table is an error with
    its line.
    """
    node = file_node(env, file, "engines file")
    try:
        data = read_small(real_path(node), LARGEST)
        entries = read_engines(label_of(node.srcnode().get_abspath(), env.fs), data)
    except EnginesFileError as error:
        for place, text in error.problems:
            call_errors(env).add(place, text)
        entries = list(error.entries)
    except OSError as error:
        why = f"{error.strerror}; it must exist when SCons reads the SConstruct"
        raise SCons.Errors.UserError(f"{node}: {why}") from None
    SCons.Node.SConscriptNodes.add(node)  # part of what declares this graph
    return _declare(env, entries, node.dir) or call_errors(env).stand_in(env, "EnginesFromFile")


def declare_or_exit(
    env: Any, entries: Sequence[EngineEntry], file: str | None = None, named: bool = False
) -> None:
    """Declare engines for a run whose SConstruct the user did not write: what is wrong is one line each,
    without it. file: the engines file of the entries; named: whether the user gave the name of the engine,
    which may then replace that of another ONNX."""
    known = {*settings.ARGUMENTS, *store_settings.RENAMED}
    unknown = [name for name in SCons.Script.ARGUMENTS if name not in known]
    if unknown:
        from ..recipe.options import DEFAULTS

        given = unknown[0]
        flag = f"an engine's option is written --{given.lower().replace('_', '-')}"
        right = flag if given.lower() in DEFAULTS else hint(given, sorted(settings.ARGUMENTS))
        problems = [f"{given}= is not a setting; {right}"]
    else:
        if file:
            SCons.Node.SConscriptNodes.add(env.fs.File(file))
        _declare(env, entries, env.fs.Top)
        if not file:
            session_of(env).adds = True
        problems = call_errors(env).lines()
        call_errors(env).clear()
        if not file and not named and not problems:
            problems = _replacing(session_of(env))
    if problems:
        sys.stderr.write("".join(f"{one_line(problem)}\n" for problem in problems))
        sys.exit(2)


def _replacing(session: Session) -> list[str]:
    """What is wrong with engines that would replace those of other ONNX files, named by their filenames
    alone."""
    from ..build.merge_declarations import other_source

    earlier = last_declaration(session.state, session.digest_cache)
    found: list[str] = []
    if earlier is None:
        return found
    for engine in session.engines:
        known, onnx = earlier.engine(engine.path), str(engine.original)
        place = real_path(engine.original)
        other = known and other_source(known, place)
        if other:
            taken = {engine.name, *(each.name for each in earlier.engines if each.original != place)}
            found.append(
                f"{onnx}: its engine would replace that of {other}, {engine.label}; give it another name, "
                f"such as --name {distinct_name(onnx, taken)}"
            )
    return found


def _declare(env: Any, entries: Sequence[EngineEntry], folder: Any) -> Any:
    """folder: the node of the folder that paths are relative to."""
    found = SCons.Util.NodeList()
    for entry in entries:
        with declared_at(entry.declared_at()), messages_in(toml=bool(entry.keys)):
            try:
                options = {name: _with_nodes(name, value, folder) for name, value in entry.options.items()}
                onnx = _node(entry.onnx, folder)
                found += Engine(env, entry.name, onnx, hardware=entry.hardware, **options)
            except Exception as error:
                add_error(env, "Engine", [entry.name], error)
    return found


def _with_nodes(option: str, value: Any, folder: Any) -> Any:
    """An option with nodes for its paths."""
    if option == "plugins":
        return [_node(each, folder) for each in (value if isinstance(value, (list, tuple)) else [value])]
    if option == "timing_cache":
        by_name = isinstance(value, Mapping)
        return (
            {name: _node(each, folder) for name, each in value.items()} if by_name else _node(value, folder)
        )
    if option not in ("calibration", "accuracy") or not value:
        return value
    first = "data" if option == "calibration" else "inputs"
    given = dict(value) if isinstance(value, Mapping) else {first: value}
    where = given.get(first)
    reader = split_reader(where)
    if reader and not given.get("function"):
        given |= {first: reader[0], "function": reader[1]}
    for name in {first, "reference"} & given.keys():
        given[name] = _node(given[name], folder)
    if isinstance(given.get("files"), (list, tuple)):
        given["files"] = [_node(each, folder) for each in given["files"]]
    return given


def _node(path: Any, folder: Any) -> Any:
    """The node of a path that is taken as it is written: a node, because SCons expands `$` in a text, and
    takes a `#` at its beginning for the top."""
    if not isinstance(path, str) or not path:
        return path
    literal = path if path.startswith("/") else f"./{path}"
    try:
        return folder.File(literal) if not folder.Entry(literal).isdir() else folder.Dir(literal)
    except TypeError as error:  # a file where a folder is meant, or the reverse
        raise SCons.Errors.UserError(f"{path}: {error}; use another path") from None
