"""`python -m scons_tensorrt worker`: a remote build worker.

A Dask nanny starts the process that compiles, and restarts it if it dies. This process probes the
hardware and offers it as the name of a resource.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DispatchError, HardwareError
from ..files.json_cache import JsonCache
from ..files.writing import cause, remove_tree
from ..hardware.probe_host import Host
from ..hardware.runtime import Interpreter
from ..hardware.signature import HardwareSignature
from ..values import Value
from .capability import WorkerCapability, host_signature
from .compile_on_worker import VARIABLE, open_shared
from .handshake import check_scheduler, quiet, versions
from .scheduler import stopped, until_over
from .tls import check_url, security

AGAIN_S = 2.0  # between two attempts to reach a scheduler
PRODUCTS = ("tensorrt", "tensorrt_rtx")


class Options(Value):
    """store: see `open_shared`; jobs: concurrent compiles; folder: private to this worker; verbose: with
    Dask's logs."""

    scheduler: str
    certificates: Path
    store: dict[str, Any]
    folder: Path
    python: str | None
    name: str
    jobs: int = 1
    host: str | None = None
    verbose: bool = False


async def work(options: Options, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, reconnecting to the scheduler. Raises EngineError."""
    found = versions()
    check_url(options.scheduler)
    quiet()
    if not options.verbose:  # for the process that the nanny starts
        os.environ["DASK_LOGGING__DISTRIBUTED"] = "critical"
    secure = security(options.certificates)
    offers = [WorkerCapability.of(each, found["distributed"]) for each in products(options)]
    if options.jobs > 1 and any(each.machine["product"] == "tensorrt" for each in offers):
        raise DispatchError(
            f"--jobs {options.jobs}: a GPU runs one compile at a time; start a worker for each GPU"
        )
    open_shared(options.store)  # report a wrong store before serving
    lock = _own(options.folder)
    for each in offers:
        say(f"worker {options.name}: offers {each.describe()}")
    stop = asyncio.create_task(stopped())
    reported = ""
    try:
        while not stop.done():
            try:
                await check_scheduler(options.scheduler, secure)
            except DispatchError as error:
                if "must be the same" in str(error):
                    raise
                if str(error) != reported:
                    reported = str(error)
                    say(f"worker {options.name}: {reported}; retrying")
                await asyncio.wait({stop}, timeout=AGAIN_S)
                continue
            reported = ""
            await _serve(options, secure, offers, stop, say)
    finally:
        os.close(lock)


async def _serve(
    options: Options, secure: Any, offers: list[WorkerCapability], stop: Any, say: Callable[[str], None]
) -> None:
    from distributed import Nanny

    from .dask_nodes import DrainingWorker

    known = {"folder": str(options.folder), "python": options.python, "store": options.store}
    nanny = Nanny(
        options.scheduler,
        nthreads=options.jobs,
        resources={each.resource: options.jobs for each in offers},
        name=options.name,
        security=secure,
        memory_limit=0,  # the compile runs in another process, which the kernel limits
        local_directory=str(options.folder / "dask"),
        host=options.host,
        env={VARIABLE: json.dumps(known)},
        worker_class=DrainingWorker,
        config={"distributed.worker.profile.enabled": False},
        dashboard=False,
    )
    try:
        async with nanny:
            say(f"worker {options.name}: connected to {options.scheduler}")
            await until_over(nanny, stop)
    except (OSError, asyncio.TimeoutError, RuntimeError) as error:
        say(f"worker {options.name}: {error}; retrying")
        await asyncio.wait({stop}, timeout=AGAIN_S)


def products(options: Options) -> list[HardwareSignature]:
    """This machine's signature for each installed product. Raises HardwareError if there is none."""
    interpreter, host = Interpreter(options.python), Host()
    devices = JsonCache(options.folder / "host.json")
    found, why = [], []
    for product in PRODUCTS:
        try:
            found.append(host_signature(product, interpreter.runtime, host, devices))
        except HardwareError as error:
            why.append(str(error))
    if not found:
        raise HardwareError(f"this machine cannot compile engines: {'; '.join(why)}")
    return found


def _own(folder: Path) -> int:
    """Lock the folder and remove leftovers of a killed worker. Raises DispatchError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DispatchError(f"{folder} is in use by another worker; name another --folder") from None
        for name in ("jobs", "dask", "state/partial", "state/receipts", "state/logs", "state/locks"):
            remove_tree(folder / name)
    except OSError as error:
        raise DispatchError(f"{folder}: {cause(error, 'name another --folder')}") from None
    return lock
