"""The connection of a run to its scheduler.

It runs an event loop in a separate thread: the stacks of SCons's threads are too small for Dask, and
Ctrl-C must end their waits at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DispatchError, Interrupted
from ..hardware.signature import HardwareSignature
from .capability import Worker, choose, connected, workers
from .handshake import ANSWER_S, cause, check_scheduler, quiet, versions
from .plain_data import fields_of, only_plain
from .task import topic_of
from .tls import security

T = TypeVar("T")
POLL_S = 0.1
LOOK_S = 0.5  # between two checks of the connected workers
CLOSE_S = 2.0
Heard = Callable[[Mapping[str, Any]], None]


class SchedulerClient:
    """wait_s: seconds to wait for the scheduler, or for a suitable worker."""

    def __init__(self, url: str, certificates: Path, wait_s: float) -> None:
        self.url = url
        self._certificates = certificates
        self._wait_s = wait_s
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._lost: str | None = None  # why this run no longer uses the scheduler
        self._heard: defaultdict[str, list[Heard]] = defaultdict(list)
        self._topics: set[str] = set()

    def run(self, work: Coroutine[Any, Any, T], stopping: Callable[[], bool], what: str) -> T:
        """Run a coroutine in the event loop, from any thread. Raises what it raises, and Interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        while not concurrent.futures.wait([future], timeout=POLL_S).done:
            if stopping():
                future.cancel()
                raise Interrupted(f"stopped while waiting for {what} from {self.url}; run again to continue")
        return future.result()

    def close(self) -> None:
        """Disconnect, for at most CLOSE_S."""
        loop, client = self._loop, self._client
        if loop is None:
            return
        if client is not None:
            future = asyncio.run_coroutine_threadsafe(_goodbye(client), loop)
            concurrent.futures.wait([future], timeout=CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="dispatch", daemon=True).start()
            return self._loop

    # In the event loop.

    async def client(self) -> Any:
        """The connected client. Raises DispatchError; a lost connection is not retried."""
        async with self._connecting:
            if self._lost:
                raise DispatchError(self._lost)
            if self._client is None:
                try:
                    self._client = await self._connect()
                except DispatchError as error:
                    self._lost = str(error)
                    raise
            return self._client

    async def _connect(self) -> Any:
        versions()
        quiet()
        await only_plain()
        from distributed import Client

        secure = security(self._certificates)
        end = time.monotonic() + self._wait_s
        while True:
            try:
                await check_scheduler(self.url, secure)
                break
            except DispatchError as error:
                if time.monotonic() >= end or "must be the same" in str(error):
                    raise
            await asyncio.sleep(LOOK_S)
        try:
            return await Client(
                self.url,
                security=secure,
                asynchronous=True,
                timeout=ANSWER_S,
                set_as_default=False,
                serializers=["msgpack"],  # results are text, see plain_data.py
                deserializers=["msgpack"],
            )
        except (OSError, asyncio.TimeoutError) as error:
            raise DispatchError(f"{self.url} does not answer: {cause(error)}") from None

    def lose(self, why: str) -> DispatchError:
        """Stop using the scheduler in this run; returns the error to raise."""
        self._lost = self._lost or why
        return DispatchError(why)

    async def who(self) -> list[Worker]:
        """The connected workers. Raises DispatchError."""
        client = await self.client()
        try:
            return workers(await asyncio.wait_for(client.scheduler.identity(), ANSWER_S))
        except Exception as error:  # also what Dask makes of an answer of another shape
            raise self.lose(f"lost the connection to {self.url}: {cause(error)}") from None

    async def find(self, spec: HardwareSignature, name: str, waiting: Callable[[], None]) -> str:
        """The resource to request; waits for a worker up to wait_s. Raises DispatchError."""
        ours = versions()["distributed"]
        end = time.monotonic() + self._wait_s
        while True:
            known = await self.who()
            resource = choose(known, spec, ours)
            if resource:
                return resource
            if time.monotonic() >= end:
                waited = f", waited for {self._wait_s:g} s (DISPATCH_WAIT)" if self._wait_s else ""
                raise DispatchError(
                    f"no worker of {self.url} can compile for {name}{waited}; "
                    f"{connected(known, spec, ours)}; start one there, or wait for one with "
                    "DISPATCH_WAIT=SECONDS"
                )
            waiting()
            await asyncio.sleep(LOOK_S)

    async def listen(self, key: str, heard: Heard) -> None:
        """Call `heard` with each progress message of a key."""
        client = await self.client()
        self._heard[key].append(heard)
        topic = topic_of(key)
        if topic not in self._topics:
            self._topics.add(topic)
            client.subscribe_topic(topic, self._hear)

    def unlisten(self, key: str, heard: Heard) -> None:
        self._heard[key].remove(heard)

    def _hear(self, event: Any) -> None:
        try:
            said = fields_of(event[1])
            for heard in list(self._heard.get(said["key"], ())):
                heard(said)
        except (LookupError, TypeError, AttributeError, ValueError):
            pass  # not one of our messages


async def _goodbye(client: Any) -> None:
    await client.close(timeout=CLOSE_S)
