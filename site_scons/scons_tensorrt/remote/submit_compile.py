"""The client's side of one remote compile: submit, follow, wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import DispatchError, EngineBuildError, EngineError, Interrupted
from ..files.writing import new_file
from .capability import choose
from .handshake import versions
from .plain_data import KILLED, line, whole
from .scheduler_client import LOOK_S, SchedulerClient
from .task import MOST_LOG, Answer, compile_action, task_of

if TYPE_CHECKING:
    from ..build.build_context import BuildContext
    from ..build.engine_spec import EngineSpec
    from ..build.progress import ProgressHandle

ATTEMPTS = 4  # after workers that died before they started this compile
GONE_S = 20.0  # without any suitable worker
MOST_STARTS = 16  # recorded for one compile
# Errors that a worker may report; any other becomes a DispatchError.
FROM_A_WORKER = (
    *(DispatchError, EngineBuildError, errors.AccuracyError, errors.CalibrationCacheError),
    *(errors.HardwareError, errors.HardwareMismatchError, errors.LockTimeout),
    *(errors.PublishError, errors.RecipeError),
)
LOOKS = 4  # LOOK_S intervals between two checks for a suitable worker


class RemoteCompile:
    """One compile on a worker."""

    def __init__(
        self, spec: EngineSpec, context: BuildContext, link: SchedulerClient, running: ProgressHandle
    ) -> None:
        self._spec, self._context, self._link, self._running = spec, context, link, running
        self._what = context.state.relative(spec.engine)
        self._name = f"{spec.hardware.name or 'its own host'} ({spec.hardware.signature.describe()})"
        self._starts: list[str] = []  # names of workers that started it
        self._log = ""

    def check_workers(self) -> None:
        """Raises DispatchError if no worker can compile it; called before the upload."""
        self._link.run(self._find(), self._context.stopping, self._what)

    def result(self, digest: str) -> Answer:
        """The worker's answer. Raises EngineError."""
        try:
            said = self._link.run(self._ask(digest), self._context.stopping, self._what)
        except Interrupted:
            who = f" ({self._starts[-1]})" if self._starts else ""
            raise Interrupted(
                f"stopped; the compile continues there{who}, and the next run fetches it from the store"
            ) from None
        where = self._write(said.log or self._log)
        if said.outcome != "failed":
            return said
        kind: type[EngineError] = errors.by_name(said.error_class)
        if kind not in FROM_A_WORKER:
            kind = DispatchError
        log = f"; log: {where}" if kind is EngineBuildError else ""
        raise kind(f"{said.message} (on {said.worker}){log}")

    def _write(self, text: str) -> str:
        log = self._context.state.log(self._spec.engine)
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            with new_file(log) as out:
                out.write(text.encode("utf-8", "replace"))
        return self._context.state.relative(log)

    # In the event loop of the link.

    async def _find(self) -> str:
        waiting = f"waiting for a worker of {self._link.url}"
        signature = self._spec.hardware.signature
        return await self._link.find(signature, self._name, lambda: self._running.update(words=waiting))

    async def _ask(self, digest: str) -> Answer:
        from distributed import fire_and_forget

        client = await self._link.client()
        key = self._spec.key
        await self._link.listen(key, self._hear)
        try:
            for attempt in range(ATTEMPTS):
                resource = await self._find()
                self._running.update(words=f"queued at {self._link.url}")
                future = client.submit(
                    *(compile_action, digest, key),
                    key=task_of(key, attempt),
                    resources={resource: 1},
                    pure=False,
                )
                fire_and_forget(future)  # it continues if this run ends
                said = await self._outcome(future)
                if said is not None:
                    return said
            raise DispatchError(
                f"workers of {self._link.url} die before they start the compile; see their logs"
            )
        finally:
            self._link.unlisten(key, self._hear)

    async def _outcome(self, future: Any) -> Answer | None:
        """The answer of a task; None if its workers died before they started it. Raises EngineError."""
        waiting = asyncio.ensure_future(future.result())
        gone_since: float | None = None
        try:
            while not (await asyncio.wait({waiting}, timeout=LOOK_S * LOOKS))[0]:
                gone_since = await self._check_connected(gone_since)
        finally:
            waiting.cancel()
        error = None if waiting.cancelled() else waiting.exception()
        if waiting.cancelled() or (error and future.status in ("cancelled", "lost")):
            raise self._link.lose(
                f"lost the connection to {self._link.url} while waiting for {self._what}; run again"
            )
        if error is None:
            return Answer.read(waiting.result())
        if str(error) != KILLED:
            raise DispatchError(f"the worker failed: {line(str(error))}")
        if len(self._starts) < 2:
            return None
        where = self._write(self._log)
        raise EngineBuildError(
            f"{len(self._starts)} workers died while compiling it ({', '.join(self._starts)}); log: {where}"
        )

    async def _check_connected(self, gone_since: float | None) -> float | None:
        """Since when no suitable worker is connected; None if one is. Raises DispatchError after GONE_S."""
        known = await self._link.who()
        if choose(known, self._spec.hardware.signature, versions()["distributed"]):
            return None
        now = time.monotonic()
        if gone_since is not None and now - gone_since > GONE_S:
            raise DispatchError(
                f"the last worker of {self._link.url} that can compile for {self._name} is gone; it will "
                "be compiled when one is back, and a later run fetches it"
            )
        return gone_since or now

    def _hear(self, said: Mapping[str, Any]) -> None:
        """Handle a progress message. Untrusted: any holder of a certificate can send one."""
        started = line(said.get("started"), 200)
        if started and len(self._starts) < MOST_STARTS:
            self._starts.append(started)
            self._log += f"-- {started}\n"
            self._running.update(words=f"on {started}")
        doing, log = said.get("doing"), said.get("log")
        if isinstance(log, str):
            self._log += log[: max(0, MOST_LOG - len(self._log))]
        if isinstance(doing, (list, tuple)) and len(doing) == 3:
            done, total = whole(doing[0]), whole(doing[1])
            counted = done is not None and total is not None and total > 0
            words = f"{line(doing[2], 200) or 'compiling'}, on {line(said.get('by'), 200)}"
            self._running.update(done if counted else None, total if counted else None, words)
