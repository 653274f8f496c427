"""What every compile of a run shares, and where else a file can come from: a store, another machine.

`make` and `make_onnx` know only these protocols; the graph chooses what stands behind them. What a
supplier brings is checked and published as if it had been made here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..artifact.receipt import Receipt
from ..artifact.state import StateFolder
from ..errors import EngineBuildError
from ..files.digest_cache import DigestCache
from ..hardware.runtime import Interpreter
from .progress import BeginProgress, no_progress
from .spec import EngineSpec


class ProvidedFile(NamedTuple):
    """A file made elsewhere, whole in the partial file of whoever asked.

    how: "fetched" or "dispatched"; sha256, size (bytes): of what was written, hashed as it came;
    details: of its receipt, see `artifact.receipt`; seconds: that bringing it took.
    """

    how: str
    sha256: str
    size: int
    details: Mapping[str, Any]
    seconds: float


class EngineProvider(Protocol):
    """Asked in order, under the engine's lock, before this host compiles."""

    def supply(self, spec: EngineSpec, partial: Path, context: BuildContext) -> ProvidedFile | None:
        """Write the wanted engine to `partial`, a file that is there and empty; None where it is
        not to be had, whatever was written then.

        Raises EngineError where there is no use in compiling it here either.
        """


class BuildListener(Protocol):
    """Told what this host made; must not hold up the build, and raises nothing."""

    def made(self, spec: EngineSpec, receipt: Receipt) -> None:
        """An engine was compiled here and published."""

    def refused(self, spec: EngineSpec, error: EngineBuildError) -> None:
        """The same inputs would be refused on any host."""


@dataclass(frozen=True)
class BuildContext:
    """What every compile of a run shares.

    gpu: the UUID of the GPU that TensorRT would time kernels on, None where there is none to
    ask; gpu_turn: of the run's own threads; lock_timeout_s: seconds; stopping: whether the run
    was asked to end; say: a line for people; begin: shows what takes its time; suppliers: asked in
    this order before this host compiles; takers: told what it compiled.
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
    suppliers: Sequence[EngineProvider] = ()
    takers: Sequence[BuildListener] = ()
