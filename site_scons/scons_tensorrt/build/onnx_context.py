"""What all ONNX steps of a run share, and the interface of the shared cache; see build_context.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..files.digest_cache import DigestCache
from .build_context import ProvidedFile
from .gates_from_search import KnownGates
from .onnx_spec import OnnxSpec
from .progress import BeginProgress, BeginStage, no_progress, no_stage


class OnnxProvider(Protocol):
    """As `build_context.EngineProvider`, for the files of ONNX steps. `sha256` and `size` are those of the
    ONNX; `data_sha256` in the details is that of its external data."""

    def supply_step(self, spec: OnnxSpec, made: Path, context: OnnxContext) -> ProvidedFile | None:
        """Write the new file `made`, and its external data beside it."""


class OnnxFinder(Protocol):
    """As `build_context.EngineFinder`."""

    def find_step(self, spec: OnnxSpec, context: OnnxContext) -> ProvidedFile | None:
        """The file as a provider would write it, without its bytes."""


class OnnxListener(Protocol):
    """As `build_context.BuildListener`."""

    def made_step(self, spec: OnnxSpec, receipt: Receipt) -> None:
        """A file was made on this host and published."""


@dataclass(frozen=True)
class OnnxContext:
    """What all steps of a run share; see `build_context.BuildContext`. python: the interpreter that has onnx
    and onnxruntime."""

    state: StateFolder
    digest_cache: DigestCache
    python: str
    lock_timeout_s: float | None
    stopping: Callable[[], bool]
    say: Callable[[str], None]
    providers: Sequence[OnnxProvider] = ()
    begin: BeginProgress = no_progress
    listeners: Sequence[OnnxListener] = ()
    known_gates: KnownGates = field(default_factory=KnownGates)
    stage: BeginStage = no_stage
    finders: Sequence[OnnxFinder] = ()
