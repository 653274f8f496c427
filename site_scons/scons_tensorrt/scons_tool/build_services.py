"""The services of a run that builds something; a null build does not create them."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..build.context import BuildContext
from ..errors import EngineError, HardwareError
from ..files.json_cache import JsonCache
from ..hardware.host import Host
from . import remote_settings, settings, store_settings
from .progress import Progress
from .providers import Providers

if TYPE_CHECKING:
    from ..build.onnx_step import OnnxContext
    from .console import Console
    from .engine_target import EngineTarget
    from .services import RunServices
    from .stop_signal import StopSignal


class BuildServices:
    """elsewhere: the shared cache and remote workers. Used by several threads."""

    def __init__(
        self,
        session: RunServices,
        console: Console,
        host: Host,
        devices: JsonCache,
        stop: StopSignal,
        lock_timeout_s: float | None,
        store: store_settings.StoreSettings,
        scheduler: remote_settings.DispatchSettings,
    ) -> None:
        self._session = session
        self._host, self._devices = host, devices
        self._stop, self._lock_timeout_s = stop, lock_timeout_s
        self._say = console.line
        self.progress = Progress(console, self._counts)
        self._asked: list[EngineTarget] | None = None
        self.elsewhere = Providers(console, store)
        if scheduler.url:
            more = self.elsewhere, host, devices
            self.elsewhere.dispatch = lambda: remote_settings.dispatcher(scheduler, *more)
        self._gpu_turn, self._gpu_asking = threading.Lock(), threading.Lock()
        self._gpu_asked = False
        self._gpu_uuid: str | None = None
        self._doom_asking = threading.Lock()
        self._doomed: list[EngineTarget] | None = None

    def build_context(self, python: str) -> BuildContext:
        """The context of engine builds. Raises HardwareError."""
        session, elsewhere = self._session, self.elsewhere.open()
        return BuildContext(
            session.state,
            session.digest_cache,
            session.interpreter(python),
            self._gpu,
            self._gpu_turn,
            self._lock_timeout_s,
            self._stop,
            self._say,
            begin=self.progress.begin,
            suppliers=elsewhere.suppliers,
            takers=elsewhere.takers,
        )

    def check_can_build(self, engine: EngineTarget) -> None:
        """Under -n: raise HardwareError or HardwareMismatchError where no TensorRT is installed that
        could compile the engine, and there is neither a store nor another machine to ask."""
        from ..build.engine import only_on_its_hardware

        if engine.hardware is None or self.elsewhere.store.url or self.elsewhere.dispatch:
            return
        try:
            interpreter = self._session.interpreter(engine.python)
            interpreter.runtime(engine.hardware.signature.product)
        except HardwareError as error:
            if engine.hardware.signature.product == "tensorrt":
                raise only_on_its_hardware(engine.hardware, error, engine.path, self._session.state) from None
            raise

    def onnx_context(self, env: Any) -> OnnxContext:
        """The context of steps."""
        from ..build.onnx_step import OnnxContext

        session, elsewhere = self._session, self.elsewhere.open()
        python = settings.onnx_python(env, session.top)
        shared = session.state, session.digest_cache, python, self._lock_timeout_s, self._stop, self._say
        more = elsewhere.step_suppliers, self.progress.begin, elsewhere.step_takers
        return OnnxContext(*shared, *more)

    def _counts(self) -> tuple[int, int]:
        """How many engines are done, and how many this run requests."""
        if self._asked is None:
            self._asked = self._session.asked_of(self._session.engines)
        done = sum(each.reported or each.state() == SCons.Node.up_to_date for each in self._asked)
        return done, len(self._asked)

    def _gpu(self) -> str | None:
        with self._gpu_asking:
            if not self._gpu_asked:
                self._gpu_asked = True
                with contextlib.suppress(EngineError):  # the worker reports it better
                    self._gpu_uuid = str(self._host.devices(self._devices)[0]["uuid"])
            return self._gpu_uuid

    def invalid_engines(self) -> list[EngineTarget]:
        """Requested engines that cannot be built, according to their recipes and models; none with -k.
        Cached."""
        with self._doom_asking:
            if self._doomed is None:
                self._doomed = [] if settings.option("keep_going") else self._find_invalid_engines()
            return self._doomed

    def _find_invalid_engines(self) -> list[EngineTarget]:
        session = self._session
        return [engine for engine in session.asked_of(session.engines) if engine.faulty()]

    def again(self) -> None:
        """Another build of an interactive session begins."""
        self._doomed = self._asked = None

    def close(self) -> None:
        """Stop showing progress."""
        self.progress.close()
