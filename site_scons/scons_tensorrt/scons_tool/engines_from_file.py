"""`env.EnginesFromFile`: declare the engines of an engines.toml."""

from __future__ import annotations

from typing import Any

import SCons.Errors
import SCons.Node
import SCons.Util

from ..errors import RecipeError
from ..files.reading import read_small
from ..recipe.engines_file import LARGEST, NAME, read_engines
from .env_engine import Engine
from .nodes import file_node, real_path


def EnginesFromFile(env: Any, file: Any = NAME) -> Any:
    """Declare every engine of an engines file; returns their nodes, a pair [engine, sidecar] each.

    file: a path or node of an `engines.toml`, whose format is in recipe/engines_file.py; the paths in it are
    relative to its folder. Raises UserError with the line of the table.
    """
    try:
        node = file_node(env, file, "engines file")
        path = real_path(node)
        entries = read_engines(env.subst(str(file)), read_small(path, LARGEST))
    except RecipeError as error:
        raise SCons.Errors.UserError(str(error)) from None
    SCons.Node.SConscriptNodes.add(node)  # part of what declares this graph
    found = SCons.Util.NodeList()
    for entry in entries:
        try:
            found += Engine(env, entry.name, entry.onnx, hardware=entry.hardware, **entry.options)
        except SCons.Errors.UserError as error:
            raise SCons.Errors.UserError(f"{entry.place}: {error}") from None
    return found
