"""What is recorded of the shared cache in the profile of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.entry import CacheEntry
from ..cache.shared_cache_client import CacheClient
from ..errors import EngineBuildError
from ..profile.recorder import Recorder

if TYPE_CHECKING:
    from ..build.engine_spec import EngineSpec


def recording_client(recorder: Recorder) -> type[CacheClient]:
    """A CacheClient whose lookups, downloads and uploads are slices, with their bytes."""

    class RecordingClient(CacheClient):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.ahead.around = self._ahead

        @contextlib.contextmanager
        def _ahead(self, entry: CacheEntry, size: int) -> Iterator[None]:
            with recorder.slice(f"download {entry.name}", key=entry.key, bytes=size) as slice:
                yield
                slice.args["outcome"] = "downloaded"

        def lookup(self, kind: str, key: str, name: str) -> CacheEntry | None:
            with recorder.slice(f"look up {name}", key=key, kind=kind) as slice:
                found = super().lookup(kind, key, name)
                slice.args["outcome"] = "found" if found else "missing"
                return found

        def fetch(
            self,
            sha256: str,
            size: int,
            to: Path,
            name: str,
            progress: Callable[[int], None] = lambda done: None,
        ) -> bool:
            with recorder.slice(f"download {name}", sha256=sha256, bytes=size) as slice:
                fetched = super().fetch(sha256, size, to, name, progress)
                slice.args["outcome"] = "downloaded" if fetched else "missing"
                return fetched

        def publish(self, entry: CacheEntry, files: Mapping[str, Path]) -> bool:
            size = sum(size for _, size in entry.blobs())
            with recorder.slice(f"upload {entry.name}", key=entry.key, bytes=size) as slice:
                uploaded = super().publish(entry, files)
                slice.args["outcome"] = "uploaded" if uploaded else "already there"
                return uploaded

        def refuse(self, spec: EngineSpec, error: EngineBuildError) -> None:
            with recorder.slice(f"upload the refusal of {spec.filename}", key=spec.key):
                super().refuse(spec, error)

    return RecordingClient
