"""`python -m scons_tensorrt scheduler`: a Dask scheduler with our settings.

It gives up a task that killed two workers, serves only its TLS port, and keeps few events of a topic.
A stock `dask scheduler` works too; it gives up after four workers.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .handshake import quiet, versions
from .tls import check_url, security

FAILURES = 1  # dead workers after which a task is still retried
EVENTS = 500  # kept for each topic


async def schedule(listen: str, certificates: Path, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises DispatchError, OSError."""
    versions()
    import dask

    from .dask_nodes import QuietScheduler

    check_url(listen)
    quiet()
    dask.config.set({"distributed.admin.low-level-log-length": EVENTS})
    secure = security(certificates)
    async with QuietScheduler(
        host=listen, security=secure, dashboard=False, allowed_failures=FAILURES
    ) as scheduler:
        say(f"scheduler: {scheduler.address}")
        await until_over(scheduler, asyncio.create_task(stopped()))


async def stopped() -> None:
    """Returns at the first SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def until_over(node: Any, stop: asyncio.Task[None]) -> None:
    """Wait until a Dask node ends or `stop` is done."""
    over = asyncio.create_task(node.finished())
    await asyncio.wait({stop, over}, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
