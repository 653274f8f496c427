"""A Dask worker that finishes its compile when the scheduler is gone: the engine is still uploaded to the
store, where the next build finds it."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Worker

from .executor import busy
from .no_http import NoHttp

LOST = ("worker-handle-scheduler-connection-broken", "worker-heartbeat-error")
LOOK_S = 0.2


class DrainingWorker(NoHttp, Worker):  # type: ignore[misc]  # Dask's is untyped here
    """Delays closing only if the scheduler connection was lost."""

    async def close(self, *arguments: Any, reason: str = "worker-close", **more: Any) -> Any:
        while reason in LOST and busy():
            await asyncio.sleep(LOOK_S)
        return await super().close(*arguments, reason=reason, **more)
