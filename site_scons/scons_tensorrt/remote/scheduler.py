"""`python -m scons_tensorrt scheduler`: Dask's own, with what this package relies on.

A task that ended two workers is given up, nothing is served but the scheduler's port, and what was
said under a topic is kept short. A stock `dask scheduler` serves, too; it gives up after four.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from .handshake import quiet, versions
from .shutdown import stopped
from .tls import check_url, security

FAILURES = 1  # of workers that a task survives
EVENTS = 500  # kept of each topic


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
