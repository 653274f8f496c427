"""A run's use of other machines: a supplier of engines that this host cannot compile.

The inputs go to the store, their description's sha256 to a worker, the engine comes from the store:
by its entry there, never by what a worker says. The compile goes on when this run ends, and the next
run, or a colleague's, finds its engine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DispatchError, EngineBuildError, Interrupted, StoreError
from ..identity.host import Host
from ..identity.remember import Remembered
from ..store.entry import blob_path
from ..store.moving import Damaged
from .action import write_action
from .here import why_not_here
from .link import Link
from .sending import Sending

if TYPE_CHECKING:
    from ..compile.context import Supplied, Workshop
    from ..compile.wanted import Wanted
    from ..progress import Running
    from ..store.shared import Shared


class Dispatcher:
    """A `compile.context.Supplier`. shared: the open store, or None where there is none."""

    def __init__(
        self, link: Link, shared: Callable[[], Shared | None], host: Host, devices: Remembered
    ) -> None:
        self._link = link
        self._shared = shared
        self._host = host
        self._devices = devices

    def supply(self, wanted: Wanted, partial: Path, shop: Workshop) -> Supplied | None:
        """The engine, compiled elsewhere; None where this host can compile it. Raises EngineError."""
        signature = wanted.hardware.signature
        why = why_not_here(signature, shop.interpreter.runtime, self._host, self._devices)
        if why is None:
            return None
        what = shop.state.relative(wanted.engine)
        shared = self._shared()
        if shared is None or shared.off:
            raise DispatchError(
                f"it can be compiled only on {wanted.hardware.name or 'other hardware'}, and DISPATCH= "
                "needs a STORE= that works, which carries the bytes"
            )
        began = time.monotonic()
        running = shop.begin("COMPILING", what, f"{wanted.recipe.model} {wanted.recipe.precision}", "")
        try:
            sending = Sending(wanted, shop, self._link, running)
            sending.check_workers()
            digest = self._give(wanted, shop, shared, running)
            shop.say(f"SENT {what}: to {self._link.url}, because {why}")
            result = sending.result(digest)
        finally:
            running.end()
        supplied = shared.supply(wanted, partial, shop)
        if supplied is None:
            raise DispatchError(
                f"{result.worker} compiled it, and the store's entry of it is not believed here; "
                "name that worker's public key in STORE_TRUST="
            )
        details = {**supplied.details, "dispatched": {"worker": result.worker}}
        return supplied._replace(how="dispatched", details=details, seconds=time.monotonic() - began)

    def _give(self, wanted: Wanted, shop: Workshop, shared: Shared, running: Running) -> str:
        """Have all that the compile takes in the store; the sha256 of its description. Raises
        EngineError."""

        def sent(done: int) -> None:
            running.update(words=f"sending its inputs to the store, {done >> 20} MiB of a file")
            if shop.stopping():
                raise Interrupted("stopped while its inputs were sent to the store; run again to go on")

        try:
            data, inputs = write_action(wanted, shop.state)
            for each, path in inputs:
                place = blob_path(each.sha256)
                if shared.remote.size(place) != each.size:
                    shared.remote.upload(place, path, each.sha256, each.size, sent)
            digest = hashlib.sha256(data).hexdigest()
            if shared.remote.size(blob_path(digest)) != len(data):
                shared.remote.replace(blob_path(digest), data)
            return digest
        except StoreError as error:
            if shop.stopping():  # which ended an upload from within
                raise Interrupted("stopped; run again to go on") from None
            raise DispatchError(f"the store does not take what is to be compiled: {error}") from None
        except Damaged:
            raise EngineBuildError("an input changed while it was sent; run again") from None

    def close(self) -> None:
        self._link.close()
