"""Other sources of a run's engines: the shared cache and remote build workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import SigningError, StoreError
from .console import Console
from .store_settings import StoreSettings

if TYPE_CHECKING:
    from ..build.context import BuildListener, EngineProvider
    from ..build.onnx_step import OnnxListener, OnnxProvider
    from ..cache.client import CacheClient
    from ..cache.upload import Uploader
    from ..profile.recorder import Recorder
    from ..remote.provider import RemoteProvider

SLOW_S = 2.0  # of uploads at the end of a run, before a line says so


class Providers:
    """providers, listeners: see build/context.py; step_providers, step_listeners: build/onnx_step.py. A
    null build does not open the shared cache."""

    def __init__(self, console: Console, store: StoreSettings, recorder: Recorder | None = None) -> None:
        self._console = console
        self._recorder = recorder
        self.store = store
        self.providers: list[EngineProvider] = []
        self.listeners: list[BuildListener] = []
        self.step_providers: list[OnnxProvider] = []
        self.step_listeners: list[OnnxListener] = []
        self.shared: CacheClient | None = None
        self.dispatch: Callable[[], RemoteProvider] | None = None
        self._dispatcher: RemoteProvider | None = None
        self._pusher: Uploader | None = None
        self._opening = threading.Lock()
        self._opened = False

    def open(self) -> Providers:
        """Open the shared cache, if one is set and available; returns self."""
        with self._opening:
            if self.store.url and not self._opened:
                self._opened = True
                try:
                    self._open()
                except (StoreError, SigningError) as error:
                    self._console.line(f"engines: the store {self.store.url} is not used: {error}")
            if self.dispatch and self._dispatcher is None:
                self._dispatcher = self.dispatch()
                self.providers.append(self._dispatcher)
        return self

    def _open(self) -> None:
        from ..cache.client import CacheClient
        from ..cache.object_store import ObjectStore
        from ..cache.upload import Uploader
        from ..files.signing_keys import load_signing_key, load_trusted_keys

        chosen, say = self.store, self._console.line
        signing_key = load_signing_key(chosen.signing_key) if chosen.signing_key else None
        trusted = load_trusted_keys(chosen.trusted_keys, signing_key)
        remote = ObjectStore(chosen.url, chosen.writes, chosen.patience_s, chosen.timeout_s)
        kind = CacheClient
        if self._recorder:
            from .profile_store import recording_client

            kind = recording_client(self._recorder)
        shared = kind(remote, trusted, signing_key if chosen.writes else None, say, chosen.refusals)
        self.shared = shared
        self.providers.insert(0, shared)  # before remote compiles
        self.step_providers.insert(0, shared)
        if chosen.writes:
            self._pusher = Uploader(shared)
            self.listeners.append(self._pusher)
            self.step_listeners.append(self._pusher)

    def close(self, stopping: Callable[[], bool]) -> None:
        """Finish uploads within TRT_STORE_WAIT and report them."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        if self.shared is not None:
            self.shared.ahead.close()
        if self._pusher is None or self.shared is None:
            return
        left, wait_s = self._pusher.waiting, self.store.wait_s
        url = self.store.url
        if left and self._pusher.drain(min(SLOW_S, wait_s), stopping):
            self._console.line(f"engines: uploading {self._pusher.waiting} to {url}")
            left = self._pusher.drain(wait_s, stopping)
            if left and not self.shared.off:
                self._console.line(
                    f"engines: {left} not uploaded to {url} within {wait_s:g} s (TRT_STORE_WAIT)"
                )
        given = self.shared.pushed
        if given:
            size = sum(given)
            self._console.line(f"engines: {len(given)} uploaded to {url} ({size / 1e6:.1f} MB)")
            self._console.event("engine.store.given", files=len(given), size=size, store=url)
