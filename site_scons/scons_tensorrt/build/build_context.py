"""What all compiles of a run share, and the interface of the shared cache and of remote workers.

`make` and `make_onnx` know only these protocols. A file from a provider is checked and published as if it had
been made on this host.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..errors import EngineBuildError
from ..files.digest_cache import DigestCache
from ..hardware.runtime import Interpreter
from ..values import Value
from .engine_spec import EngineSpec
from .progress import BeginProgress, BeginStage, no_progress, no_stage
from .wait_for_same_inputs import TurnsOfSameInputs


class ProvidedFile(Value):
    """A file that a provider wrote.

    how: "fetched", "dispatched", or "found" by a finder, which writes no file; sha256, size (bytes): of the
    file, from the transfer; details: of its receipt, see `artifact.receipt`; seconds: that the transfer took.
    """

    how: str
    sha256: str
    size: int
    details: Mapping[str, Any]
    seconds: float


class EngineProvider(Protocol):
    """Called under the engine's lock, before this host compiles. reads_inputs: whether it needs the input
    files themselves, not only their digests."""

    reads_inputs: bool

    def supply(self, spec: EngineSpec, partial: Path, context: BuildContext) -> ProvidedFile | None:
        """Write the engine to `partial`, an empty file. Returns None if it cannot be provided; what is in the
        file then does not count. Raises EngineError if a compile on this host would fail as well."""


class EngineFinder(Protocol):
    """Called before the providers, for an engine that nothing opens in this run."""

    def find(self, spec: EngineSpec, context: BuildContext) -> ProvidedFile | None:
        """The engine as a provider would write it, without its bytes; None if it cannot be provided."""


class BuildListener(Protocol):
    """Notified of what this host built. Must not delay the build, and raises nothing."""

    def made(self, spec: EngineSpec, receipt: Receipt) -> None:
        """An engine was compiled here and published."""

    def refused(self, spec: EngineSpec, error: EngineBuildError) -> None:
        """TensorRT refused an engine whose inputs every host would refuse."""


@dataclass(frozen=True)
class BuildContext:
    """What all compiles of a run share.

    gpu: the UUID of the GPU that TensorRT times kernels on, None if there is none; gpu_turn: between threads
    of this run; lock_timeout_s: seconds, None to wait without limit; stopping: whether the run was asked to
    stop; say: print a line; begin, stage: see `progress`; providers: called in this order; listeners:
    told of what was built; cache_size: the limit of kept engines, in bytes; turns: of engines with the same
    inputs; finders: for an engine that nothing opens in this run.
    """

    state: StateFolder
    digest_cache: DigestCache
    interpreter: Interpreter
    gpu: Callable[[], str | None] = lambda: None
    gpu_turn: threading.Lock = field(default_factory=threading.Lock)
    lock_timeout_s: float | None = None
    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda text: None
    begin: BeginProgress = no_progress
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    providers: Sequence[EngineProvider] = ()
    listeners: Sequence[BuildListener] = ()
    cache_size: int = 0
    stage: BeginStage = no_stage
    turns: TurnsOfSameInputs = field(default_factory=TurnsOfSameInputs)
    finders: Sequence[EngineFinder] = ()
