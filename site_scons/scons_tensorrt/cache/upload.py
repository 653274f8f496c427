"""Uploads in the background during the build."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import EngineBuildError, StoreError
from .client import CacheClient, engine_entry
from .entry import STEP

if TYPE_CHECKING:
    from ..artifact.receipt import Receipt
    from ..build.onnx_spec import OnnxSpec
    from ..build.spec import EngineSpec

THREADS = 2


class Uploader:
    """Called by `make` and `make_onnx`; only `drain` blocks."""

    def __init__(self, shared: CacheClient) -> None:
        self._shared = shared
        self._jobs: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    def made(self, spec: EngineSpec, receipt: Receipt) -> None:
        def push() -> None:
            self._shared.publish(engine_entry(receipt), {receipt.sha256: spec.engine})
            self._shared.forgive(spec)

        self._add(push)

    def refused(self, spec: EngineSpec, error: EngineBuildError) -> None:
        self._add(lambda: self._shared.refuse(spec, error))

    def made_step(self, spec: OnnxSpec, receipt: Receipt) -> None:
        def push() -> None:
            files, data = {receipt.sha256: spec.target}, None
            if receipt.details.get("data_sha256"):
                data = str(receipt.details["data_sha256"]), os.stat(spec.data).st_size
                files[data[0]] = spec.data
            self._shared.publish(engine_entry(receipt, STEP, data), files)

        self._add(push)

    def _add(self, job: Callable[[], object]) -> None:
        if self._shared.signing_key is None or self._shared.off:
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
                pass  # the file is gone: nothing to upload
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Number of pending uploads."""
        with self._changed:
            return len(self._jobs) + self._busy

    def drain(self, seconds: float, stopping: Callable[[], bool] = lambda: False) -> int:
        """Wait until all is uploaded, or for `seconds`; returns the number of pending uploads."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._jobs or self._busy:
                left = end - time.monotonic()
                if left <= 0 or stopping() or self._shared.off:
                    break
                self._changed.wait(min(left, 0.1))
            return len(self._jobs) + self._busy
