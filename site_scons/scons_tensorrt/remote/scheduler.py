"""`python -m scons_tensorrt scheduler`: a Dask scheduler with our settings.

It gives up a task that killed two workers, serves only its TLS port, and keeps few events of a topic.
A stock `dask scheduler` works too; it gives up after four workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from .handshake import quiet, versions
from .shutdown import stopped
from .tls import check_url, security

FAILURES = 1  # dead workers after which a task is still retried
EVENTS = 500  # kept for each topic


async def schedule(listen: str, certificates: Path, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises DispatchError, OSError."""
    versions()
    import dask

    from .no_http import QuietScheduler

    check_url(listen)
    quiet()
    dask.config.set({"distributed.admin.low-level-log-length": EVENTS})
    secure = security(certificates)
    async with QuietScheduler(
        host=listen,
        security=secure,
        dashboard=False,
        allowed_failures=FAILURES,
    ) as scheduler:
        say(f"scheduler: {scheduler.address}")
        stop = asyncio.create_task(stopped())
        over = asyncio.create_task(scheduler.finished())
        await asyncio.wait({stop, over}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
