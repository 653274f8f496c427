"""Giving a store what was made here, while the build goes on."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import EngineBuildError, StoreError
from .entry import STEP
from .shared import Shared, engine_entry

if TYPE_CHECKING:
    from ..compile.wanted import Wanted
    from ..convert.step import StepWanted
    from ..integrity.receipt import Receipt

THREADS = 2


class Pusher:
    """Told by `make` and `make_step`; nothing here waits but `drain`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._jobs: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    def made(self, wanted: Wanted, receipt: Receipt) -> None:
        def push() -> None:
            self._shared.publish(engine_entry(receipt), {receipt.sha256: wanted.engine})
            self._shared.forgive(wanted)

        self._add(push)

    def refused(self, wanted: Wanted, error: EngineBuildError) -> None:
        self._add(lambda: self._shared.refuse(wanted, error))

    def made_step(self, wanted: StepWanted, receipt: Receipt) -> None:
        def push() -> None:
            files, data = {receipt.sha256: wanted.target}, None
            if receipt.details.get("data_sha256"):
                data = str(receipt.details["data_sha256"]), os.stat(wanted.data).st_size
                files[data[0]] = wanted.data
            self._shared.publish(engine_entry(receipt, STEP, data), files)

        self._add(push)

    def _add(self, job: Callable[[], object]) -> None:
        if self._shared.signer is None or self._shared.off:
            return
        with self._changed:
            self._jobs.append(job)
            if self._busy + len(self._jobs) > len(self._threads) < THREADS:
                thread = threading.Thread(target=self._work, name="store push", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs.popleft()
                self._busy += 1
            try:
                if not self._shared.off:
                    job()
            except StoreError as error:
                self._shared.give_up(error)
            except OSError:
                pass  # the file is gone again: there is nothing to give
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """What is still to be given."""
        with self._changed:
            return len(self._jobs) + self._busy

    def drain(self, seconds: float, stopping: Callable[[], bool] = lambda: False) -> int:
        """Wait until all is given, or for so many seconds; how much is not."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._jobs or self._busy:
                left = end - time.monotonic()
                if left <= 0 or stopping() or self._shared.off:
                    break
                self._changed.wait(min(left, 0.1))
            return len(self._jobs) + self._busy
