"""Provides engines that this host cannot compile, through remote workers.

The inputs are uploaded to the store, and the sha256 of their description is sent to a worker. The
engine is downloaded from the store and checked by its entry there; the worker's answer is not trusted.
The compile continues if this run ends, and the next build finds its engine in the store.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.copy_and_hash import DigestMismatch
from ..cache.entry import blob_path
from ..errors import DispatchError, EngineBuildError, Interrupted, StoreError
from ..files.json_cache import JsonCache
from ..hardware.probe_host import Host
from .action import write_action
from .capability import why_not_here
from .scheduler_client import SchedulerClient
from .submit_compile import RemoteCompile

if TYPE_CHECKING:
    from ..build.build_context import BuildContext, ProvidedFile
    from ..build.engine_spec import EngineSpec
    from ..build.progress import ProgressHandle
    from ..cache.shared_cache_client import CacheClient


class RemoteProvider:
    """An `EngineProvider`. shared: returns the store, or None if there is none."""

    reads_inputs = True

    def __init__(
        self, link: SchedulerClient, shared: Callable[[], CacheClient | None], host: Host, devices: JsonCache
    ) -> None:
        self._link = link
        self._shared = shared
        self._host = host
        self._devices = devices

    def supply(self, spec: EngineSpec, partial: Path, context: BuildContext) -> ProvidedFile | None:
        """The engine, compiled by a worker; None if this host can compile it. Raises EngineError."""
        signature = spec.hardware.signature
        why = why_not_here(signature, context.interpreter.runtime, self._host, self._devices)
        if why is None:
            return None
        what = context.state.relative(spec.engine)
        shared = self._shared()
        if shared is None or shared.off:
            raise DispatchError(
                f"it can be compiled only on {spec.hardware.name or 'other hardware'}, and DISPATCH= "
                "needs a working STORE= to transfer files"
            )
        began = time.monotonic()
        running = context.begin("COMPILING", what, f"{spec.recipe.model} {spec.recipe.precision}", "")
        try:
            sending = RemoteCompile(spec, context, self._link, running)
            sending.check_workers()
            digest = self._upload(spec, context, shared, running)
            context.say(f"SENT {what}: to {self._link.url}, because {why}")
            result = sending.result(digest)
        finally:
            running.end()
        supplied = shared.supply(spec, partial, context)
        if supplied is None:
            raise DispatchError(
                f"{result.worker} compiled it, but the store's entry is untrusted here; add that worker's "
                "trusted key to STORE_TRUSTED_KEYS="
            )
        details = {**supplied.details, "dispatched": {"worker": result.worker}}
        return supplied._replace(how="dispatched", details=details, seconds=time.monotonic() - began)

    def _upload(
        self, spec: EngineSpec, context: BuildContext, shared: CacheClient, running: ProgressHandle
    ) -> str:
        """Upload the inputs and the action; returns the action's sha256. Raises EngineError."""

        def sent(done: int) -> None:
            running.update(words=f"uploading its inputs, {done >> 20} MiB of a file")
            if context.stopping():
                raise Interrupted("stopped while uploading its inputs; run again to continue")

        try:
            data, inputs = write_action(spec, context.state)
            for each, path in inputs:
                place = blob_path(each.sha256)
                if shared.remote.size(place) != each.size:
                    shared.remote.upload(place, path, each.sha256, each.size, sent)
            digest = hashlib.sha256(data).hexdigest()
            if shared.remote.size(blob_path(digest)) != len(data):
                shared.remote.replace(blob_path(digest), data)
            return digest
        except StoreError as error:
            if context.stopping():  # it was the interrupt that ended the upload
                raise Interrupted("stopped; run again to continue") from None
            raise DispatchError(f"cannot upload the inputs to the store: {error}") from None
        except DigestMismatch:
            raise EngineBuildError("an input changed while it was uploaded; run again") from None

    def close(self) -> None:
        self._link.close()
