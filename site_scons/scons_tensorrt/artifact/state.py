"""The state folder: everything this package keeps that is not an engine.

receipts/      what engines were made from      (save and restore with engines/)
partial/       engines on their way to their place
locks/  logs/  one file an engine
digests.json   the digest memo
events.jsonl   what happened, one JSON object a line
declared.json  what the last run declared; declared/ where several trees share the folder
trees/         the paths of trees that share the folder
onnx/          ONNX files made for engines, and the figures of accuracy gates
report/        the page of a build, and the same as JSON
calibration/   what TensorRT 10's calibrators found, each with a sidecar
interpreters/  what foreign interpreters answered
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path

from ..files.reading import absolute
from .receipt import ReceiptFolder
from .trees import hash_of, inside, known_as, register

DEFAULT = ".trt"
DATA_SUFFIX = ".data"  # of the one file with a large ONNX's tensors, beside it


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
        """The path of the tree that names its files in a state folder outside."""
        return known_as(self.root, self.top)

    def register(self) -> None:
        """Let runs under another path of the tree find what this one makes."""
        if not self.inside:
            with contextlib.suppress(OSError):  # told by whatever else is written there
                register(self.root, self.top, known_as(self.root, self.top))

    @property
    def inside(self) -> bool:
        """Whether it lies in its tree and moves with it; one outside may be shared by several."""
        return self.root.is_relative_to(self.top)

    @property
    def declared(self) -> Path:
        """What the last run declared; in a state folder outside, each tree has its own."""
        name = "declared.json" if self.inside else f"declared/{hash_of(self._known_as)}.json"
        return self.root / name

    @property
    def onnx(self) -> Path:
        """Where intermediate ONNX files are; in a state folder outside, each tree has its own."""
        return self.root / "onnx" if self.inside else self.root / "onnx" / hash_of(self._known_as)

    @property
    def calibration(self) -> Path:
        return self.root / "calibration"

    def path_id(self, engine: Path) -> str:
        """A short name for one engine's place.

        The same in every clone that carries its own state folder with it; in a state folder
        outside, which two trees may share, each tree has its own.
        """
        place = self.relative(engine)
        return hash_of(place if self.inside else os.path.join(self._known_as, place))

    def lock(self, engine: Path) -> Path:
        return self.root / "locks" / f"{engine.name}.{self.path_id(engine)}.lock"

    def log(self, engine: Path) -> Path:
        return self.root / "logs" / f"{engine.name}.{self.path_id(engine)}.log"

    def partial(self, engine: Path) -> Path:
        return self.root / "partial" / self.path_id(engine)

    def interpreter(self, python: str) -> Path:
        return self.root / "interpreters" / f"{hash_of(python)}.json"

    def relative(self, path: str | os.PathLike[str]) -> str:
        """`path` as people know it: relative to the top where it lies below it."""
        full = absolute(path)
        return full[len(self._prefix) :] if full.startswith(self._prefix) else full

    @cached_property
    def _prefix(self) -> str:
        return f"{self.top}{os.sep}"

    def writable_by_all(self, *more: Path) -> list[Path]:
        """Of the state folder and others: those that every user of this machine may write to."""
        return [folder for folder in (self.root, *more) if _mode(folder) & 0o002]


def _mode(folder: Path) -> int:
    try:
        return folder.stat().st_mode
    except OSError:
        return 0
