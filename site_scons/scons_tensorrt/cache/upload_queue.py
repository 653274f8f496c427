"""Queues uploads during the build; `upload` in object_store.py does each."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import TYPE_CHECKING

from ..build.entry_description import describe
from ..errors import EngineBuildError, StoreError
from .entry import STEP, engine_entry
from .shared_cache_client import CacheClient

if TYPE_CHECKING:
    from ..artifact.receipt import Receipt
    from ..build.engine_spec import EngineSpec
    from ..build.onnx_spec import OnnxSpec

THREADS = 2


class Uploader:
    """Called by `make` and `make_onnx`; only `drain` blocks."""

    def __init__(self, shared: CacheClient) -> None:
        self._shared = shared
        self._jobs: Queue[Callable[[], object]] = Queue()
        for _ in range(THREADS):
            threading.Thread(target=self._work, name="store push", daemon=True).start()

    def made(self, spec: EngineSpec, receipt: Receipt) -> None:
        def push() -> None:
            entry = engine_entry(receipt, described=describe(spec.engine, receipt))
            self._shared.publish(entry, {receipt.sha256: spec.engine})
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
            entry = engine_entry(receipt, STEP, data, describe(spec.target, receipt))
            self._shared.publish(entry, files)

        self._add(push)

    def _add(self, job: Callable[[], object]) -> None:
        if not self._shared.off:
            self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if not self._shared.off:
                    job()
            except StoreError as error:
                self._shared.give_up(error)
            except OSError:
                pass  # the file is gone: nothing to upload
            finally:
                self._jobs.task_done()

    @property
    def waiting(self) -> int:
        """Number of pending uploads."""
        return self._jobs.unfinished_tasks

    def drain(self, seconds: float, stopping: Callable[[], bool] = lambda: False) -> int:
        """Wait until all is uploaded, or for `seconds`; returns the number of pending uploads."""
        end = time.monotonic() + seconds
        with self._jobs.all_tasks_done:
            while self.waiting and not (stopping() or self._shared.off):
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._jobs.all_tasks_done.wait(min(left, 0.1))
        return self.waiting
