"""The services of a run that builds something; a null build does not create them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..build.build_context import BuildContext
from ..build.engine_spec import EngineSpec
from ..build.gates_from_search import KnownGates
from ..build.onnx_context import OnnxContext
from ..build.progress import BeginStage, no_stage
from ..build.reuse_local_engine import Reusable, ReusableEngines
from ..build.wait_for_same_inputs import TurnsOfSameInputs
from ..errors import EngineError
from . import remote_settings, settings
from .console import Console
from .engine_providers import Providers
from .fetch_option import Downloads
from .hardware_cache import HardwareCache
from .progress import Progress
from .run_files import RunFiles
from .stop_signal import StopSignal
from .store_settings import StoreSettings
from .target import ReceiptTarget

if TYPE_CHECKING:
    from ..cache.find_without_download import StoreFinder

if TYPE_CHECKING:
    from ..profile.recorder import Recorder


class BuildServices:
    """elsewhere: the shared cache and remote workers; counts: see Progress; recorder: of the run's profile,
    if it has one. Used by several threads."""

    def __init__(
        self,
        files: RunFiles,
        hardware: HardwareCache,
        console: Console,
        stop: StopSignal,
        lock_timeout_s: float | None,
        cache_size: int,
        store: StoreSettings,
        scheduler: remote_settings.DispatchSettings,
        counts: Callable[[], tuple[int, int]],
        *,
        recorder: Recorder | None = None,
    ) -> None:
        self._files, self._hardware = files, hardware
        self.stop, self._lock_timeout_s = stop, lock_timeout_s
        self._cache_size = cache_size
        self._say = console.line
        self.progress = Progress(console, counts)
        self._begin = recorder.watched(self.progress.begin) if recorder else self.progress.begin
        self._stage: BeginStage = recorder.stage if recorder else no_stage
        self.elsewhere = Providers(console, store, recorder)
        if scheduler.url:
            more = self.elsewhere, hardware.host, hardware.devices
            self.elsewhere.dispatch = lambda: remote_settings.dispatcher(scheduler, *more)
        self._gpu_turn, self._gpu_asking = threading.Lock(), threading.Lock()
        self._gpu_asked = False
        self._gpu_uuid: str | None = None
        self._known_gates, self._turns = KnownGates(), TurnsOfSameInputs()
        self.downloads = Downloads(store.fetch, str(files.top))

    def build_context(self, python: str, engine: ReceiptTarget | None = None) -> BuildContext:
        """The context of engine builds. engine: one that may stay in the shared cache, if nothing opens it.
        Raises HardwareError."""
        elsewhere = self.elsewhere.open()
        return BuildContext(
            self._files.state,
            self._files.digest_cache,
            self._hardware.interpreter(python),
            self._gpu,
            self._gpu_turn,
            self._lock_timeout_s,
            self.stop,
            self._say,
            begin=self._begin,
            providers=elsewhere.providers,
            listeners=elsewhere.listeners,
            cache_size=self._cache_size,
            stage=self._stage,
            turns=self._turns,
            finders=self._finders(engine),
        )

    def reusable(self, spec: EngineSpec, code: str) -> Reusable | None:
        """An engine that would be reused though it is not in place, for `scons -n`. code: of the up-to-date
        check."""
        kept = ReusableEngines(self._files.state, self._files.digest_cache, self._cache_size)
        return kept.find(spec, code)

    def onnx_context(self, env: Any, step: ReceiptTarget | None = None) -> OnnxContext:
        """The context of steps. step: one whose file may stay in the shared cache, if nothing opens it."""
        elsewhere, files = self.elsewhere.open(), self._files
        python = settings.onnx_python(env, files.top)
        shared = files.state, files.digest_cache, python, self._lock_timeout_s, self.stop, self._say
        more = elsewhere.step_providers, self._begin, elsewhere.step_listeners
        return OnnxContext(*shared, *more, self._known_gates, self._stage, self._finders(step))

    def _finders(self, target: ReceiptTarget | None) -> Sequence[StoreFinder]:
        """What may find the file of a target in the shared cache and leave it there."""
        return self.elsewhere.finders if target and self.downloads.may_stay_in_cache(target) else ()

    def _gpu(self) -> str | None:
        with self._gpu_asking:
            if not self._gpu_asked:
                self._gpu_asked = True
                with contextlib.suppress(EngineError):  # the worker reports it better
                    devices = self._hardware.host.devices(self._hardware.devices)
                    self._gpu_uuid = str(devices[0]["uuid"])
            return self._gpu_uuid
