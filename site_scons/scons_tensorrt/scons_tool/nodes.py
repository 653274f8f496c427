"""From what a user wrote to nodes, and back to what a user would call them, and to their bytes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Node
import SCons.Node.FS
import SCons.Script
import SCons.Util

from ..errors import RecipeError
from .settings import option

if TYPE_CHECKING:
    from .services import TargetServices

ALIAS = "engines"
REPORT = "engines-report"
PRUNE = "engines-prune"


def call_after_reading(fs: Any, check: Callable[[], None]) -> None:
    """Call `check` then: the first thing that SCons does next with its file system is to tell it its
    max_drift. Without targets, too, and under -c; not under -h. A Configure does the same before."""

    def set_max_drift(drift: int) -> None:
        type(fs).set_max_drift(fs, drift)
        if not SCons.Script.sconscript_reading:
            del fs.set_max_drift
            check()

    fs.set_max_drift = set_max_drift


def file_node(env: Any, value: Any, what: str) -> Any:
    """The file node of what a user wrote: a path, a node, or a list of one. Raises RecipeError."""
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


def files_read(top: str) -> list[str]:
    """The SConscripts that were read, and the modules of the tree that these imported; absolute."""
    nodes = getattr(SCons.Node, "SConscriptNodes", ())
    found = []
    for node in nodes:
        source = node.srcnode().rfile().get_abspath()  # a VariantDir has a copy
        found.append(source if os.path.exists(source) else node.rfile().get_abspath())
    near, ours = top + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep
    loaded = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
    for file in [file for file in loaded if file and file.startswith(near) and file.endswith(".py")]:
        if not (file.startswith(ours) or "site-packages" in file):
            found.append(file)
    return sorted(found)


def as_list(value: Any) -> list[Any]:
    """What may be one or several, as several."""
    if isinstance(value, (list, tuple, SCons.Util.NodeList)):
        return list(value)
    return [] if value is None else [value]


def named_for_cleaning(env: Any, nodes: Sequence[Any]) -> bool:
    """Whether the command line names one of `nodes`, or all engines."""
    targets = SCons.Script.COMMAND_LINE_TARGETS
    places = {node.get_abspath() for node in nodes}
    return ALIAS in targets or bool(places & _places(targets, env.fs.Top.get_abspath()))


def target_places(top: str) -> set[str]:
    """Where the targets of this run may be, absolute; of an alias, nowhere that anything is.

    SCons builds the whole tree where neither the command line nor a Default names a target, and leaves
    BUILD_TARGETS empty then."""
    return _places(SCons.Script.BUILD_TARGETS, top) or ({top} if not SCons.Script.BUILD_TARGETS else set())


def command_line_places(top: str) -> set[str]:
    """Where the targets that the command line names may be, absolute."""
    return _places(SCons.Script.COMMAND_LINE_TARGETS, top)


def _places(targets: Sequence[Any], top: str) -> set[str]:
    # Which of the two a name is below depends on --directory, -u and -D; an engine has one place.
    folders = (SCons.Script.GetLaunchDir(), top)
    places = set()
    for target in targets:
        if not isinstance(target, str):
            places.update([target.get_abspath()] if isinstance(target, SCons.Node.FS.Base) else [])
            continue
        name = target.lstrip("#").lstrip("/") if target.startswith("#") else target
        places.update(os.path.normpath(os.path.join(folder, name)) for folder in folders)
    return places


def label_of(session: TargetServices, node: Any) -> str:
    """A source as people know it: below the top, or by its last two folders and name."""
    if node not in session.labels:
        path = session.state.relative(node.get_abspath())
        session.labels[node] = "/".join(path.split("/")[-3:]) if os.path.isabs(path) else path
    return session.labels[node]


def real_path(node: Any) -> Path:
    """Where a node's bytes are: in the tree, in a Repository, or at the source of a VariantDir.

    A VariantDir without copies means its source even where an old copy stands in the variant folder, and
    under -n a VariantDir's copy is not made anew: its source tells what it will be.
    """
    path = node.rfile().get_abspath()  # this makes a VariantDir's copy
    folders = node.dir.srcdir_list()
    if folders and not node.is_derived() and (not node.duplicate or option("no_exec")):
        source = folders[0].File(node.name).rfile().get_abspath()
        path = source if os.path.exists(source) else path
    return Path(path)


def data_node(onnx: Any, location: str) -> Any:
    """The node of an external-data file; `./` because SCons takes a leading `#` for the top. Raises
    RecipeError where no file can be."""
    try:
        return onnx.dir.File(f"./{location}")
    except TypeError as error:
        why = str(error).rstrip(".")
        raise RecipeError(f"external data {location!r} cannot be a file: {why}; remove that") from None


def data_of(session: TargetServices, onnx: Any) -> list[Any]:
    """The nodes of an ONNX's external data, as it was when it was last read."""
    return data_nodes(onnx, session.inputs.known_data(str(real_path(onnx))))


def data_nodes(onnx: Any, locations: Iterable[str]) -> list[Any]:
    """The nodes of those that can be files; what is wrong with the others, `data_node` says later."""
    found = []
    for location in locations:
        with contextlib.suppress(RecipeError):
            found.append(data_node(onnx, location))
    return found
