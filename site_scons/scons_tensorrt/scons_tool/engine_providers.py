"""Other sources of a run's engines: the shared cache and remote build workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..errors import SigningError, StoreError
from .console import Console
from .store_settings import ALL, StoreSettings

if TYPE_CHECKING:
    from ..build.build_context import BuildListener, EngineProvider
    from ..build.onnx_context import OnnxListener, OnnxProvider
    from ..cache.find_without_download import StoreFinder
    from ..cache.shared_cache_client import CacheClient
    from ..cache.transfer_counts import Sum
    from ..cache.upload_queue import Uploader
    from ..profile.recorder import Recorder
    from ..remote.provider import RemoteProvider

SLOW_S = 2.0  # of uploads at the end of a run, before a line says so


class Providers:
    """providers, listeners, finders: see build/build_context.py; step_providers, step_listeners:
    build/onnx_context.py. A null build does not open the shared cache."""

    def __init__(self, console: Console, store: StoreSettings, recorder: Recorder | None = None) -> None:
        self._console = console
        self._recorder = recorder
        self.store = store
        self.providers: list[EngineProvider] = []
        self.listeners: list[BuildListener] = []
        self.step_providers: list[OnnxProvider] = []
        self.step_listeners: list[OnnxListener] = []
        self.finders: list[StoreFinder] = []
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
        from ..cache.object_store import ObjectStore
        from ..cache.shared_cache_client import CacheClient
        from ..cache.upload_queue import Uploader
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
        if chosen.fetch != ALL:
            from ..cache.find_without_download import StoreFinder

            self.finders.append(StoreFinder(shared))
        if chosen.writes:
            self._pusher = Uploader(shared)
            self.listeners.append(self._pusher)
            self.step_listeners.append(self._pusher)

    def close(self, stopping: Callable[[], bool]) -> Mapping[str, Sum]:
        """Finish uploads within TRT_STORE_WAIT, and report what was moved; returns it."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        if self.shared is None:
            return {}
        self.shared.ahead.close()
        if self._pusher is not None:
            self._finish_uploads(self._pusher, self.shared, stopping)
        return self._report(self.shared)

    def _finish_uploads(self, pusher: Uploader, shared: CacheClient, stopping: Callable[[], bool]) -> None:
        url, wait_s = self.store.url, self.store.wait_s
        if pusher.waiting and pusher.drain(min(SLOW_S, wait_s), stopping):
            self._console.line(f"engines: uploading {pusher.waiting} to {url}")
            left = pusher.drain(wait_s, stopping)
            if left and not shared.off:
                self._console.line(
                    f"engines: {left} not uploaded to {url} within {wait_s:g} s (TRT_STORE_WAIT)"
                )

    def _report(self, shared: CacheClient) -> Mapping[str, Sum]:
        """Print how much was moved."""
        moved, url = shared.moved.sums(), self.store.url
        here, there, left = moved["downloaded"], moved["uploaded"], moved["not_downloaded"]
        if there.files:
            self._console.line(f"engines: {there.files} uploaded to {url} ({there.size / 1e6:.1f} MB)")
            self._console.event("engine.store.given", files=there.files, size=there.size, store=url)
        if here.files or left.files:
            more = f", {left.files} not downloaded ({left.size / 1e6:.1f} MB)" if left.files else ""
            size = f" ({here.size / 1e6:.1f} MB)" if here.files else ""
            self._console.line(f"engines: {here.files} downloaded from {url}{size}{more}")
        return moved
