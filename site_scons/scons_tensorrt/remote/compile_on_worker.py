"""The worker's side of a remote compile: from an action's digest to an engine in the store.

The compile is that of a local build, in the same child process with the same checks. Inputs are
downloaded from the store, and the engine is uploaded with an entry that this worker signs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..artifact.state_folder import StateFolder
from ..build.build_context import BuildContext
from ..build.build_engine import BuildOutcome, build_engine
from ..build.engine_spec import EngineSpec
from ..build.entry_description import describe
from ..cache.entry import ENGINE, blob_path, engine_entry
from ..cache.object_store import ObjectStore
from ..cache.shared_cache_client import CacheClient
from ..errors import DispatchError, EngineBuildError, EngineError, StoreError
from ..files.digest_cache import DigestCache
from ..files.json_cache import JsonCache
from ..files.signing_keys import load_signing_key, load_trusted_keys
from ..files.writing import remove_tree
from ..hardware.probe_host import Host
from ..hardware.runtime import Interpreter
from .action import LARGEST, Action

VARIABLE = "SCONS_TENSORRT_BENCH"  # JSON, in the environment of the process that compiles
LOG_BYTES = 256 << 10  # of a log sent back
EVERY_S = 1.0  # between two progress messages
PIECE, MOST = 4 << 10, 64 << 10  # bytes of the log: for each message, in total


class ProgressPublisher:
    """A `ProgressHandle` on the worker, which sends the progress and the log of a compile to waiting clients.

    say: sends fields; name: of the worker.
    """

    def __init__(self, say: Callable[..., None], name: str) -> None:
        self._say = say
        self.name = name
        self._doing: tuple[int | None, int | None, str] = (None, None, "")
        self._ended = threading.Event()

    def started(self, log: Path) -> None:
        """The compile begins; it writes `log`."""
        self._say(started=self.name)
        threading.Thread(target=self._follow, args=(log,), name="progress", daemon=True).start()

    def begin(self, verb: str, label: str, short: str = "", unit: str = "") -> ProgressPublisher:
        """A `BeginProgress`."""
        return self

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        self._doing = (done, total, words)

    def end(self) -> None:
        self._ended.set()

    def _follow(self, log: Path) -> None:
        sent, read = None, 0
        while not self._ended.wait(EVERY_S):
            doing, piece = self._doing, _read(log, read, min(PIECE, MOST - read))
            read += len(piece)
            if doing != sent or piece:
                sent = doing
                # Dask sets `worker` itself.
                self._say(doing=list(doing), by=self.name, log=piece.decode("utf-8", "replace"))


class RemoteExecutor:
    """folder: private to this worker; python: the interpreter with TensorRT."""

    def __init__(self, folder: Path, python: str | None, shared: CacheClient) -> None:
        self._folder = folder
        self._shared = shared
        self._interpreter = Interpreter(python)
        self._devices = JsonCache(folder / "host.json")

    def make(
        self, digest: str, key: str, publisher: ProgressPublisher, stopping: Callable[[], bool]
    ) -> dict[str, Any]:
        """Compile an action and upload its engine; returns the fields of an `Answer`."""
        jobs = self._folder / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=jobs))
        state = StateFolder(self._folder / "state", place / "inputs")
        context = BuildContext(
            *(state, DigestCache(state.digests, place), self._interpreter, self._gpu),
            stopping=stopping,
            begin=publisher.begin,
        )
        said: dict[str, Any] = {}
        try:
            action = self._action(digest, key)
            if self._there(action):  # another worker compiled it and died before it could answer
                return {"outcome": "there"}
            spec = self._download(action, place)
            publisher.started(state.log(spec.engine))
            made = self._compile(spec, context, said)
            self._upload(action, spec, state, made.sha256)
            said.update(outcome="made", seconds=made.seconds)
        except EngineError as error:
            said.update(outcome="failed", error_class=type(error).__name__, message=_without_log(error))
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            said.update(outcome="failed", error_class="DispatchError", message=what)
        finally:
            publisher.end()
            remove_tree(place)
        return said

    def _action(self, digest: str, key: str) -> Action:
        found = self._shared.remote.read(blob_path(digest), LARGEST)
        if found is None or hashlib.sha256(found[0]).hexdigest() != digest:
            raise DispatchError(f"the store has no action {digest[:12]}…")
        action = Action.read(found[0])
        if action.key != key:
            raise DispatchError("the action belongs to another key")
        return action

    def _download(self, action: Action, place: Path) -> EngineSpec:
        """The spec, with its inputs in `place`."""
        spec = action.spec(place)
        for each, path in action.places(place):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._shared.fetch(each.sha256, each.size, path, each.label):
                raise DispatchError(f"{each.label} is not in the store; run again to upload it")
        return spec

    def _compile(self, spec: EngineSpec, context: BuildContext, said: dict[str, Any]) -> BuildOutcome:
        """Compile; adds the log to `said` and removes it here."""
        log, lock = context.state.log(spec.engine), context.state.lock(spec.engine)
        try:
            return build_engine(spec, context)
        except EngineBuildError as error:
            if error.lasting:
                with contextlib.suppress(StoreError):  # the compile error is reported anyway
                    self._shared.refuse(spec, EngineBuildError(_without_log(error)))
            raise
        finally:
            said["log"] = _read(log, -LOG_BYTES, LOG_BYTES).decode("utf-8", "replace")
            for path in (log, lock, lock.with_suffix(".holder")):  # this job's path is never used again
                path.unlink(missing_ok=True)

    def _upload(self, action: Action, spec: EngineSpec, state: StateFolder, sha256: str) -> None:
        receipt = state.receipts.find_by_bytes(spec.filename, spec.key, sha256)
        assert receipt is not None
        entry = engine_entry(receipt, described=describe(spec.engine, receipt))
        self._shared.publish(entry, {receipt.sha256: spec.engine})
        if not self._there(action):
            raise DispatchError("it was compiled, but uploading it to the store failed")
        state.receipts.path(receipt).unlink(missing_ok=True)  # the store's entry replaces it

    def _there(self, action: Action) -> bool:
        entry = self._shared.lookup(ENGINE, action.key, action.filename)
        return entry is not None and all(
            self._shared.remote.size(blob_path(sha256)) == size for sha256, size in entry.blobs()
        )

    def _gpu(self) -> str | None:
        try:
            return str(Host().devices(self._devices)[0]["uuid"])
        except EngineError:  # the compile reports it better
            return None


def open_shared(said: Mapping[str, Any]) -> CacheClient:
    """The worker's store client. said: `url`, `key` (a file, or the PEM), `trust` (files). Raises
    StoreError or SigningError."""
    signing_key = load_signing_key(said["key"])
    trusted = load_trusted_keys(said["trust"], signing_key)
    return CacheClient(ObjectStore(said["url"], True), trusted, signing_key)


@lru_cache(maxsize=1)
def executor() -> RemoteExecutor:
    """The executor of this process, configured by the environment. Raises EngineError."""
    said = json.loads(os.environ[VARIABLE])
    return RemoteExecutor(Path(said["folder"]), said["python"], open_shared(said["store"]))


def _without_log(error: EngineError) -> str:
    """The error's message without the path of the log, which means nothing on other hosts."""
    return str(error).rpartition("; log: ")[0] or str(error)


def _read(log: Path, at: int, most: int) -> bytes:
    """Up to `most` bytes of the log from `at`, which counts from its end if it is negative."""
    try:
        with open(log, "rb") as source:
            source.seek(at if at >= 0 else max(0, os.fstat(source.fileno()).st_size + at))
            return source.read(most)
    except OSError:
        return b""
