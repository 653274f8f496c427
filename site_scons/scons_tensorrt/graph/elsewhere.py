"""Where else a run's engines can come from: the team's store, and other machines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import StoreError
from .console import Console
from .settings import StoreSettings

if TYPE_CHECKING:
    from ..compile.context import Supplier, Taker
    from ..convert.make import StepSupplier, StepTaker
    from ..dispatch.client import Dispatcher
    from ..store.push import Pusher
    from ..store.shared import Shared

SLOW_S = 2.0  # of giving at the end of a run, until that is said


class Elsewhere:
    """suppliers, takers: see compile/context.py; step_suppliers, step_takers: convert/make.py. The
    store is opened when something is to be made, and not before."""

    def __init__(self, console: Console, store: StoreSettings) -> None:
        self._console = console
        self.store = store
        self.suppliers: list[Supplier] = []
        self.takers: list[Taker] = []
        self.step_suppliers: list[StepSupplier] = []
        self.step_takers: list[StepTaker] = []
        self.shared: Shared | None = None
        self.dispatch: Callable[[], Dispatcher] | None = None
        self._dispatcher: Dispatcher | None = None
        self._pusher: Pusher | None = None
        self._opening = threading.Lock()
        self._opened = False

    def open(self) -> Elsewhere:
        """This, with the store open where there is one that can be."""
        with self._opening:
            if self.store.url and not self._opened:
                self._opened = True
                try:
                    self._open()
                except StoreError as error:
                    self._console.line(f"engines: the store {self.store.url} is not used: {error}")
            if self.dispatch and self._dispatcher is None:
                self._dispatcher = self.dispatch()
                self.suppliers.append(self._dispatcher)
        return self

    def _open(self) -> None:
        from ..store.keys import Signer, Trust
        from ..store.push import Pusher
        from ..store.remote import Remote
        from ..store.shared import Shared

        chosen, say = self.store, self._console.line
        signer = Signer.load(chosen.key) if chosen.key else None
        trust = Trust.load(chosen.trust, signer)
        remote = Remote(chosen.url, chosen.writes, chosen.patience_s, chosen.timeout_s)
        shared = Shared(remote, trust, signer if chosen.writes else None, say, chosen.refusals)
        self.shared = shared
        self.suppliers.insert(0, shared)  # before a compile elsewhere
        self.step_suppliers.insert(0, shared)
        if chosen.writes:
            self._pusher = Pusher(shared)
            self.takers.append(self._pusher)
            self.step_takers.append(self._pusher)

    def close(self, stopping: Callable[[], bool]) -> None:
        """Give what is still to be given, within bounds, and say so."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        if self._pusher is None or self.shared is None:
            return
        left, wait_s = self._pusher.waiting, self.store.wait_s
        url = self.store.url
        if left and self._pusher.drain(min(SLOW_S, wait_s), stopping):
            self._console.line(f"engines: giving {self._pusher.waiting} to {url}")
            left = self._pusher.drain(wait_s, stopping)
            if left and not self.shared.off:
                self._console.line(
                    f"engines: {left} were not given to {url} within {wait_s:g} s (TRT_STORE_WAIT)"
                )
        given = self.shared.pushed
        if given:
            size = sum(given)
            self._console.line(f"engines: {len(given)} given to {url} ({size / 1e6:.1f} MB)")
            self._console.event("engine.store.given", files=len(given), size=size, store=url)
