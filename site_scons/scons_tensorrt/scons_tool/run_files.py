"""The files of a run, as its targets see them: state folder, digests, paths and labels."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX
from ..artifact.state_folder import StateFolder
from ..build.input_digests import Inputs
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from ..files.writing import cause
from ..hardware.signature import HardwareSignature
from ..recipe.key_ingredients import value_fields
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.options import Recipe
from .nodes import data_nodes, real_place


class RunFiles:
    """top: of the tree; full: hash every file (VERIFY=full)."""

    def __init__(self, top: Path, state_dir: str, full: bool) -> None:
        self.top = top
        self.state = StateFolder(Path(state_dir), top)
        # A state folder outside the tree is shared by several trees, so its paths are absolute.
        near = top if self.state.inside else Path("/")
        self.digest_cache = DigestCache(self.state.digests, near, full)
        self.inputs = Inputs(self.digest_cache)
        self._labels: dict[Any, str] = {}
        self._places: dict[Any, str] = {}
        self._folders: dict[str, frozenset[str]] = {}
        self._leftovers: list[str] | None = None
        self.on_check: Callable[[Any, float], None] | None = None  # of the profile; began: monotonic
        self._fields: dict[tuple[int, int], tuple[Recipe, HardwareSignature, Mapping[str, str]]] = {}

    def label(self, node: Any) -> str:
        """The label of a source: its path below the top, or its last two folders and name."""
        if node not in self._labels:
            path = self.state.relative(node.get_abspath())
            self._labels[node] = "/".join(path.split("/")[-3:]) if os.path.isabs(path) else path
        return self._labels[node]

    def fields(self, recipe: Recipe, signature: HardwareSignature) -> Mapping[str, str]:
        """The ingredients of an engine that are not files: one map for all engines of equal options (their
        recipes share `settings`, see env_engine.py) and hardware."""
        known = id(recipe.settings), id(signature)  # of objects that the entry keeps
        if known not in self._fields:
            self._fields[known] = recipe, signature, value_fields(recipe, signature)
        return self._fields[known][2]

    def from_top(self, path: str) -> str:
        """A path relative to the top, also if it is outside of it."""
        near = self.state.relative(path)
        return os.path.relpath(path, self.top) if os.path.isabs(near) else near

    def place(self, node: Any) -> str:
        """The path of a node's bytes, relative to the top; cached, so call it once that is final."""
        if node not in self._places:
            self._places[node] = self.from_top(real_place(node))
        return self._places[node]

    def data_nodes(self, onnx: Any) -> list[Any]:
        """The nodes of an ONNX's external data, as last read."""
        return data_nodes(onnx, self.inputs.known_data(real_place(onnx)))

    def summary_if_there(self, node: Any, read: bool = True) -> OnnxSummary | None:
        """The summary of an ONNX while the graph is read; None if it has yet to be built or cannot be
        read, which the build reports. read: also if the file must be read for it."""
        if node.has_builder():
            return None
        try:
            place = real_place(node)
            return self.inputs.summary(place) if read else self.inputs.known_summary(place)
        except (EngineError, OSError):
            return None

    def is_folder(self, folder: str, name: str) -> bool:
        """Whether a subfolder of this name exists, cached: a file cannot replace it."""
        if folder not in self._folders:
            self._folders[folder] = frozenset()
            with contextlib.suppress(OSError):
                self._folders[folder] = frozenset(e.name for e in os.scandir(folder) if e.is_dir())
        return name in self._folders[folder]

    def has_leftovers(self, path: Path, engines: Iterable[tuple[str, str]]) -> bool:
        """Whether a killed build of the file at `path` has left files. engines: folder and filename of
        each; their folders are read once."""
        if self._leftovers is None:
            names: list[str] = []
            for folder in {folder for folder, _ in engines} | {str(self.state.root / "partial")}:
                with contextlib.suppress(OSError):
                    names += os.listdir(folder)
            self._leftovers = [n for n in names if not n.endswith((SUFFIX, SIDECAR_SUFFIX))]
        return bool(self._leftovers) and any(self.state.path_id(path) in n for n in self._leftovers)

    def make_folder(self, path: Path) -> str | None:
        """Create a target's folder before SCons does, for a better error message. Returns the error, or
        None."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return None
        except OSError as error:
            inside = path.is_relative_to(self.state.root)
            step = "name another TRT_STATE_DIR" if inside else "name another ENGINE_DIR="
            return f"{self.state.relative(path.parent)}/ cannot be made: {cause(error, step)}"

    def unwritable(self, path: Path, setting: str = "ENGINE_DIR=") -> str | None:
        """Why no file can be made at `path`, if its folder or the state folder cannot be written. setting:
        what names the path, unless it is in the state folder."""
        inside = path.is_relative_to(self.state.root)
        steps = {self.state.root: "TRT_STATE_DIR", path.parent: "TRT_STATE_DIR" if inside else setting}
        for folder in (path.parent, self.state.root):
            there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
            if not there.is_dir():
                return f"{self.state.relative(there)} is not a folder; remove it, or move it away"
            if not os.access(there, os.W_OK | os.X_OK):
                number = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
                where = "the tree" if there == self.top else f"{self.state.relative(there)}/"
                step = f"make it writable, or name another {steps[folder]}"
                return f"{where} cannot be written: {os.strerror(number)}; {step}"
        return None

    def last_duration_s(self, path: Path) -> float | None:
        """The duration of the last build of a file of this name, from its receipt."""
        with contextlib.suppress(EngineError):
            return self.state.receipts.last_duration_s(path.name)
        return None
