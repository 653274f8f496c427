"""Protocols of the session, for modules that it imports and that therefore cannot import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ..artifact.state import StateFolder
from ..build.inputs import Inputs
from ..files.digest_cache import DigestCache
from ..hardware.runtime import Interpreter


class TargetServices(Protocol):
    """labels: cache of `nodes.label_of`."""

    state: StateFolder
    digest_cache: DigestCache
    inputs: Inputs
    labels: dict[Any, str]

    def from_top(self, path: str) -> str:
        """A path relative to the top, also if it is outside of it."""
        ...

    def place(self, node: Any) -> str:
        """The path of a node's bytes, relative to the top."""
        ...

    def requested(self, engine: Any) -> None:
        """The run requests this engine: print the line of its hardware before any other."""
        ...

    def asked_of(self, engines: list[Any]) -> list[Any]:
        """Those of `engines` that this run requests."""
        ...

    def again(self) -> None:
        """Another build of an interactive session begins."""
        ...


class RunServices(TargetServices, Protocol):
    """top: of the tree; engines: as declared, in order; checked: the folders of engines;
    arguments_read: arguments that the SConstruct reads itself; stopped: whether the run was stopped
    before anything was built."""

    top: Path
    engines: list[Any]
    checked: set[str]
    arguments_read: Any
    stopped: bool

    def interpreter(self, python: str) -> Interpreter:
        """The interpreter of TRT_PYTHON. Raises HardwareError."""
        ...


class MadeFile(Protocol):
    """What an engine needs of an OnnxTarget."""

    target: Any
    path: Path
    label: str

    def told(self) -> Any:
        """Details for the receipts of engines."""
        ...
