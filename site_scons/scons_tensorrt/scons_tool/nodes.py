"""SCons nodes: those that a user's arguments mean, their paths, and file nodes of our own.

The content signature of such a file is the sha256 in the digest cache. SCons would hash a model again
in each run for two days, and an engine after each build and whenever something depends on it. A node
becomes one of these by a change of its class, as SCons's own Entries become Files. The class does not
depend on the requested targets, so that a Command that uses the same model sees the same signature in
each run: from the second run on, the digest cache knows an engine's external data when it is declared.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Executor
import SCons.Node
import SCons.Node.Alias
import SCons.Node.FS
import SCons.Script
import SCons.Util

from ..build.input_digests import LARGEST_ONNX
from ..errors import RecipeError
from ..recipe.option_checks import literal
from .settings import option

ALIAS = "engines"
REPORT = "engines-report"
PRUNE = "engines-prune"


def call_after_reading(fs: Any, check: Callable[[], None]) -> None:
    """Call `check` once every SConscript has been read: SCons then calls `set_max_drift` first, also
    without targets and with -c, but not with -h. A Configure calls it earlier, too."""

    def set_max_drift(drift: int) -> None:
        type(fs).set_max_drift(fs, drift)
        if not SCons.Script.sconscript_reading:
            del fs.set_max_drift
            check()

    fs.set_max_drift = set_max_drift


def file_node(env: Any, value: Any, what: str) -> Any:
    """The file node of a path, a node, or a list of one. Raises RecipeError."""
    plain = value.__class__ is str
    if not plain and isinstance(value, os.PathLike) and not isinstance(value, SCons.Node.Node):
        value = os.fspath(value)
    if plain and "$" not in value and not value.endswith("/"):
        with contextlib.suppress(TypeError):  # of a folder
            # The usual case, without the node of an Entry, which looks at the disk for what it is.
            if value and all(lookup(value) is None for lookup in env.lookup_list):
                return env.fs.File(value)
    if not value or not (isinstance(value, (str, SCons.Node.Node)) or SCons.Util.is_Sequence(value)):
        raise RecipeError(f"{what} {literal(value)}: give the path or node of a file")
    try:
        nodes = env.arg2nodes(value, env.fs.Entry)
        node = nodes[0]
        node = node.disambiguate() if isinstance(node, SCons.Node.FS.Base) else node
    except (TypeError, AttributeError, IndexError) as error:
        raise RecipeError(f"{what} {literal(value)}: {error}; give the path or node of a file") from None
    if len(nodes) != 1:
        raise RecipeError(f"{len(nodes)} {what}s: give the one file")
    if isinstance(node, SCons.Node.FS.Dir):
        raise RecipeError(f"{what} {node} is a folder: give the file itself")
    if not isinstance(node, SCons.Node.FS.File):
        raise RecipeError(f"{what} {node} is not a file: give the path or node of one")
    return node


def files_read(top: str) -> list[str]:
    """The absolute paths of the SConscripts that were read and the modules of the tree they imported."""
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
    """A value, a list of values or None, as a list."""
    if isinstance(value, (list, tuple, SCons.Util.NodeList)):
        return list(value)
    return [] if value is None else [value]


def everything_asked() -> bool:
    """Whether this run requests every engine."""
    return not {ALIAS, REPORT}.isdisjoint(map(str, SCons.Script.BUILD_TARGETS))


def real_path(node: Any) -> Path:
    """See `real_place`."""
    return path_of(real_place(node))


path_of = cache(Path)  # a run asks for the path of each file several times


def real_place(node: Any) -> str:
    """The path of a node's bytes: in the tree, in a Repository, or in the source of a VariantDir.

    Without duplicates, a VariantDir means its source even if an old copy exists in the variant folder;
    with -n, SCons does not refresh a copy, so the source is what it would be.
    """
    path: str = node.rfile().get_abspath()  # also copies a file of a VariantDir
    folders = node.dir.srcdir_list()
    if folders and not node.is_derived() and (not node.duplicate or option("no_exec")):
        source = folders[0].File(node.name).rfile().get_abspath()
        path = source if os.path.exists(source) else path
    return path


def data_node(onnx: Any, location: str) -> Any:
    """The node of an external-data file; `./` because a leading `#` means the top to SCons. Raises
    RecipeError if it cannot be a file."""
    try:
        return onnx.dir.File(f"./{location}")
    except TypeError as error:
        why = str(error).rstrip(".")
        raise RecipeError(f"external data {location!r} cannot be a file: {why}; remove that") from None


def data_nodes(onnx: Any, locations: Iterable[str]) -> list[Any]:
    """The nodes of the locations that can be files; `data_node` reports the others later."""
    found = []
    for location in locations:
        with contextlib.suppress(RecipeError):
            found.append(data_node(onnx, location))
    return found


def target_of(node: Any) -> Any:
    """The target of this plugin that a node belongs to, or None."""
    return getattr(getattr(node, "attributes", None), "trt_target", None)


@contextlib.contextmanager
def _unless_target_reports(node: Any) -> Iterator[None]:
    """Let the action report a missing input, or a folder that cannot be made: its message says more than that
    of SCons, and one is enough."""
    try:
        yield
    except (SCons.Errors.StopError, SCons.Errors.BuildError):
        if not target_of(node).fails():
            raise


class OwnExecutor(SCons.Executor.Executor):  # type: ignore[misc]  # SCons has no types
    """What runs the action of files that this plugin makes."""

    __slots__ = ()

    def prepare(self) -> None:
        with _unless_target_reports(self.batches[0].targets[0]):
            super().prepare()


class OwnFile(SCons.Node.FS.File):  # type: ignore[misc]  # SCons has no types
    """A file that this plugin makes."""

    __slots__ = ()

    def srcnode(self) -> Any:
        """Like SCons's own, but without the assertion that the source is of the same class."""
        folders = self.dir.srcdir_list()
        return folders[0].File(self.name) if folders else self

    def prepare(self) -> None:
        with _unless_target_reports(self):
            super().prepare()

    def get_ninfo(self) -> Any:
        """A Command with a timestamp Decider reads time and size. They are those of a file that had no task,
        too (skip_up_to_date.py), which are read when something that depends on it asks."""
        info = super().get_ninfo()
        if self.state == SCons.Node.up_to_date and getattr(info, "size", None) is None:
            info.timestamp, info.size = self.get_timestamp(), self.get_size()
        return info

    def is_up_to_date(self) -> bool:
        """With -q, a file that `.sconsign` does not know, as in a restored clone, is compared with what
        this run would make: without -q, its action does nothing if both are the same."""
        if super().is_up_to_date():
            return True
        target, executor = target_of(self), self.executor
        if target is None or not option("question") or executor.pre_actions or executor.post_actions:
            return False
        return self.get_stored_info().binfo.bactsig is None and target.is_right(self)


class DigestFile(OwnFile):
    """A model, its external data, a plugin, or an ONNX that this plugin makes."""

    __slots__ = ()

    def get_csig(self) -> str:
        info = self.get_ninfo()
        if getattr(info, "csig", None) is None:
            csig = self._sha256()
            if csig is None:
                return self._unknown()
            info.csig = csig
        return str(info.csig)

    def _unknown(self) -> str:
        """The signature of what cannot be hashed; SCons would read a pipe or a device forever."""
        path = real_place(self)
        if os.path.exists(path):
            if not os.path.isfile(path):
                return "not a regular file"
            if self._most(path) is not None and os.path.getsize(path) > LARGEST_ONNX:
                return "no ONNX is so large"
        return str(super().get_csig())

    def _most(self, path: str) -> int | None:
        return LARGEST_ONNX if path.endswith(".onnx") else None

    def _sha256(self) -> str | None:
        path = real_place(self)
        try:
            return str(self.fs.scons_tensorrt_session.files.digest_cache.sha256(path, most=self._most(path)))
        except OSError:
            return None


class EngineFile(DigestFile):
    """An engine, whose sha256 is known once it was checked or built."""

    __slots__ = ()

    def _sha256(self) -> str | None:
        known = target_of(self).sha256
        return known if known is not None else super()._sha256()


class PreparedFile(EngineFile):
    """A prepared ONNX. Where its original needs no preparation, there is nothing to make."""

    __slots__ = ()

    def is_up_to_date(self) -> bool:
        return not target_of(self).is_needed() or super().is_up_to_date()


def set_class(node: Any, kind: type[OwnFile] = DigestFile) -> None:
    """Make a plain file node one of `kind`."""
    if type(node) is SCons.Node.FS.File:
        node.__class__ = kind
