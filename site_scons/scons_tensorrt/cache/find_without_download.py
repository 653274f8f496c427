"""Finds engines and ONNX files in the store without downloading them (`FETCH=none`, `FETCH=needed`).

What was found is as sure as its signed entry, and the store's word that objects of the right sizes are there.
Their bytes are not hashed: who needs them downloads them, and then they are.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..build.build_context import ProvidedFile
from ..build.entry_description import description_of
from .entry import ENGINE, STEP, blob_path
from .shared_cache_client import CacheClient

if TYPE_CHECKING:
    from ..build.build_context import BuildContext
    from ..build.engine_spec import EngineSpec
    from ..build.onnx_context import OnnxContext
    from ..build.onnx_spec import OnnxSpec


class StoreFinder:
    """An `EngineFinder` and an `OnnxFinder`."""

    def __init__(self, shared: CacheClient) -> None:
        self._shared = shared

    def find(self, spec: EngineSpec, context: BuildContext) -> ProvidedFile | None:
        return self._shared.run_in_thread(
            lambda: self._find(ENGINE, spec.key, spec.filename), context.stopping
        )

    def find_step(self, spec: OnnxSpec, context: OnnxContext) -> ProvidedFile | None:
        return self._shared.run_in_thread(
            lambda: self._find(STEP, spec.key, spec.target.name), context.stopping
        )

    def _find(self, kind: str, key: str, name: str) -> ProvidedFile | None:
        """What an entry says of its files; None if the entry is not used, does not describe them, or one is
        not there: then the download says so. Raises StoreError."""
        began, shared = time.monotonic(), self._shared
        entry = shared.lookup(kind, key, name)
        if entry is None or description_of(name, entry.details) is None:
            return None
        if any(shared.remote.size(blob_path(sha256)) != size for sha256, size in entry.blobs()):
            return None
        shared.moved.left(entry)
        where = {"from": shared.remote.url, "signed_by": entry.by, "made": entry.made, "downloaded": False}
        details = {**entry.details, "fetched": where}
        return ProvidedFile("found", entry.sha256, entry.size, details, time.monotonic() - began)
