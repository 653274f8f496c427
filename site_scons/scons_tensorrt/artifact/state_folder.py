"""The state folder: everything this package keeps that is not an engine.

receipts/      what engines were built from     (save and restore with engines/)
kept/          engines that one of another key replaced
partial/       engines not yet published
locks/  logs/  one file for each engine
digests.json   the digest cache
events.jsonl   the event log, one JSON object a line
declared.json  what the last run declared; declared/ if several trees share the folder
trees/         the paths of trees that share the folder
exports/       what each ONNX of env.EpContext was written from
onnx/          ONNX files made for engines, and the figures of accuracy gates
report/        the build report, as HTML and JSON
sensitivity/   figures of `scons-tensorrt sensitivity`, for the report
calibration/   calibration caches of TensorRT 10, each with a sidecar
interpreters/  probe results of other Python interpreters
bom/           the sha256 of the bills of materials that were written
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path

from ..files.reading import absolute
from .receipt import ReceiptFolder
from .tree_paths import hash_of, inside, known_as, register

DEFAULT = ".trt"
DATA_SUFFIX = ".data"  # suffix of the external data of a large ONNX


class StateFolder:
    """Paths in the state folder `root` of the tree `top`."""

    def __init__(self, root: Path, top: Path) -> None:
        self.root = inside(root, top)
        self.top = top

    @cached_property
    def receipts(self) -> ReceiptFolder:
        return ReceiptFolder(self.root / "receipts")

    @property
    def digests(self) -> Path:
        return self.root / "digests.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @cached_property
    def _known_as(self) -> Path:
        """The path by which an external state folder knows the tree."""
        return known_as(self.root, self.top)

    def register(self) -> None:
        """Let runs under another path of this tree find its files."""
        if not self.inside:
            with contextlib.suppress(OSError):  # the next write there reports it
                register(self.root, self.top, known_as(self.root, self.top))

    @cached_property
    def inside(self) -> bool:
        """Whether it is inside its tree and moves with it; an external one may be shared by trees."""
        return self.root.is_relative_to(self.top)

    @property
    def declared(self) -> Path:
        """What the last run declared; in an external state folder, one file for each tree."""
        name = "declared.json" if self.inside else f"declared/{hash_of(self._known_as)}.json"
        return self.root / name

    @property
    def onnx(self) -> Path:
        """Folder of intermediate ONNX files; in an external state folder, one for each tree."""
        return self.root / "onnx" if self.inside else self.root / "onnx" / hash_of(self._known_as)

    @property
    def kept(self) -> Path:
        return self.root / "kept"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration"

    def path_id(self, engine: Path) -> str:
        """A short ID of an engine's path.

        The same in every clone with an internal state folder; different for each tree in an external one.
        """
        place = self.relative(engine)
        return hash_of(place if self.inside else os.path.join(self._known_as, place))

    def lock(self, engine: Path) -> Path:
        return self.root / "locks" / f"{engine.name}.{self.path_id(engine)}.lock"

    def log(self, engine: Path) -> Path:
        return self.root / "logs" / f"{engine.name}.{self.path_id(engine)}.log"

    def partial(self, engine: Path) -> Path:
        return self.root / "partial" / self.path_id(engine)

    def bom(self, manifest: Path) -> Path:
        return self.root / "bom" / f"{self.path_id(manifest)}.json"

    def export_record(self, path: Path) -> Path:
        return self.root / "exports" / f"{self.path_id(path)}.json"

    def interpreter(self, python: str) -> Path:
        return self.root / "interpreters" / f"{hash_of(python)}.json"

    def relative(self, path: str | os.PathLike[str]) -> str:
        """`path` relative to the top, if it is inside."""
        full = absolute(path)
        return full[len(self._prefix) :] if full.startswith(self._prefix) else full

    @cached_property
    def _prefix(self) -> str:
        return f"{self.top}{os.sep}"

    def writable_by_all(self, *more: Path) -> list[Path]:
        """Those of the state folder and `more` that every user can write to."""
        return [folder for folder in (self.root, *more) if _mode(folder) & 0o002]


def _mode(folder: Path) -> int:
    try:
        return folder.stat().st_mode
    except OSError:
        return 0
