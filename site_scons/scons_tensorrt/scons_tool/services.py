"""What targets and the modules below the session ask of the run: the session offers it.

So that no module below the session imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ..artifact.state import StateFolder
from ..build.inputs import Inputs
from ..files.digest_cache import DigestCache
from ..hardware.runtime import Interpreter


class TargetServices(Protocol):
    """labels: what people call a node, once it was asked for."""

    state: StateFolder
    digest_cache: DigestCache
    inputs: Inputs
    labels: dict[Any, str]

    def from_top(self, path: str) -> str:
        """A path relative to the top, wherever it lies."""
        ...

    def place(self, node: Any) -> str:
        """Where a node's bytes are, relative to the top."""
        ...

    def requested(self, engine: Any) -> None:
        """The run asks for this engine: its hardware is named before anything is said of it."""
        ...

    def asked_of(self, engines: list[Any]) -> list[Any]:
        """Those of several engines that this run is asked for."""
        ...

    def again(self) -> None:
        """An interactive session builds once more."""
        ...


class RunServices(TargetServices, Protocol):
    """top: of the tree; engines: what was declared, in order; checked: the folders of engines;
    arguments_read: names that the SConstruct reads itself; stopped: before anything was built."""

    top: Path
    engines: list[Any]
    checked: set[str]
    arguments_read: Any
    stopped: bool

    def interpreter(self, python: str) -> Interpreter:
        """The interpreter of TRT_PYTHON. Raises HardwareError."""
        ...


class MadeFile(Protocol):
    """A file that is made of an ONNX, as an engine knows it."""

    target: Any
    path: Path
    label: str

    def told(self) -> Any:
        """What its receipt says."""
        ...
