"""Dask nodes without their HTTP server, which needs no certificate and runs even without a dashboard."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler
from distributed.http.routing import RoutingApplication


class NoHttp:
    """Mixin for a Dask node that serves only its TLS port."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        self.http_application = RoutingApplication([])  # used when the node closes
        self.http_server = None


class QuietScheduler(NoHttp, Scheduler):  # type: ignore[misc]  # Dask's is untyped here
    """A scheduler that serves only its TLS port."""
