"""Dask's scheduler and worker as this package runs them."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Scheduler, Worker
from distributed.http.routing import RoutingApplication

LOST = ("worker-handle-scheduler-connection-broken", "worker-heartbeat-error")
LOOK_S = 0.2


class _NoHttp:
    """Serves only the TLS port: Dask's HTTP server needs no certificate and runs even without a dashboard."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        self.http_application = RoutingApplication([])  # used when the node closes
        self.http_server = None


class QuietScheduler(_NoHttp, Scheduler):  # type: ignore[misc]  # Dask's is untyped here
    """A scheduler that serves only its TLS port."""


class DrainingWorker(_NoHttp, Worker):  # type: ignore[misc]
    """Finishes its compile when the scheduler is gone: the engine is still uploaded to the store, where the
    next build finds it."""

    async def close(self, *arguments: Any, reason: str = "worker-close", **more: Any) -> Any:
        while reason in LOST and self.state.all_running_tasks:
            await asyncio.sleep(LOOK_S)
        return await super().close(*arguments, reason=reason, **more)
