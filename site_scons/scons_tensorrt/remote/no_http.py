"""Dask's scheduler and worker without their HTTP servers, which ask nobody for a certificate and are
there without a dashboard, too."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler
from distributed.http.routing import RoutingApplication


class NoHttp:
    """Beside a node of Dask's: it serves its own TLS port alone."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        self.http_application = RoutingApplication([])  # what closing a node asks for
        self.http_server = None


class QuietScheduler(NoHttp, Scheduler):  # type: ignore[misc]  # Dask's is untyped here
    """Serves its port of TLS and no other."""
