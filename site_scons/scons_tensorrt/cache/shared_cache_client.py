"""The client of the shared engine cache: looks up engines before a compile, uploads them afterwards.

A store never fails a build. An entry counts only if a trusted key signed it (entry.py), its data only
if it has the signed sha256 (copy_and_hash.py); anything else is reported and treated as a miss. After the
first connection failure the store is not used again in this run.

An entry is written once: TensorRT does not repeat its bytes, so a second host with the same key keeps
its own engine and the store keeps the first. Only an unusable entry (damaged, untrusted, or without
its data) is replaced. Data is uploaded before its entry.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..build.build_context import ProvidedFile
from ..build.child_process import STOPPED
from ..build.progress import BeginProgress, ProgressHandle
from ..errors import EngineBuildError, Interrupted, StoreError
from ..files.signing_keys import SigningKey, TrustedKeys
from ..files.writing import new_file
from .copy_and_hash import DigestMismatch
from .early_downloads import ReadAhead
from .entry import (
    ENGINE,
    LARGEST,
    REFUSAL,
    STEP,
    CacheEntry,
    EntryRejected,
    blob_path,
    entry_path,
    sign_entry,
    verify_entry,
)
from .object_store import ObjectStore
from .store_threads import in_thread
from .transfer_counts import Moved

if TYPE_CHECKING:
    from ..build.build_context import BuildContext
    from ..build.engine_spec import EngineSpec
    from ..build.onnx_context import OnnxContext
    from ..build.onnx_spec import OnnxSpec

REFUSAL_S = 7 * 86400  # lifetime of a refusal
REFRESH_S = 7 * 86400  # a writer rewrites entries in use that are older, so that gc keeps them
_T = TypeVar("_T")


class CacheClient:
    """signing_key: None for a read-only client; say: prints a line; refusals: whether stored refusals (inputs
    that cannot be compiled) are honoured."""

    reads_inputs = False

    def __init__(
        self,
        remote: ObjectStore,
        trusted: TrustedKeys,
        signing_key: SigningKey | None = None,
        say: Callable[[str], None] = lambda text: None,
        refusals: bool = True,
    ) -> None:
        self.remote = remote
        self.trusted = trusted
        self.signing_key = signing_key
        self._say = say
        self._refusals = refusals
        self._lock = threading.Lock()
        self.ahead = ReadAhead(remote, trusted)
        self.off = False
        self._reported: set[str] = set()
        self.moved = Moved()

    # Downloads.

    def supply(self, spec: EngineSpec, partial: Path, context: BuildContext) -> ProvidedFile | None:
        """See `EngineProvider`. Raises EngineBuildError if a trusted host recorded that
        these inputs cannot be compiled."""
        label, short = context.state.relative(spec.engine), spec.recipe.model

        def bring() -> ProvidedFile | None:
            found = self.lookup(ENGINE, spec.key, spec.filename)
            if found:
                with _showing(context.begin, label, short) as running:
                    return self._download(found, [partial], running)
            if self._refusals:
                self._raise_refusal(self.lookup(REFUSAL, spec.key, spec.filename))
            return None

        return self.run_in_thread(bring, context.stopping)

    def supply_step(self, spec: OnnxSpec, made: Path, context: OnnxContext) -> ProvidedFile | None:
        """As `supply`, for an ONNX step."""
        label = context.state.relative(spec.target)

        def bring() -> ProvidedFile | None:
            found = self.lookup(STEP, spec.key, spec.target.name)
            if not found:
                return None
            with _showing(context.begin, label, spec.target.name) as running:
                return self._download(found, [made, made.with_name(spec.data.name)], running)

        return self.run_in_thread(bring, context.stopping)

    def _raise_refusal(self, refused: CacheEntry | None) -> None:
        if refused:
            since, until = (
                time.strftime("%Y-%m-%d", time.gmtime(at)) for at in (refused.made, refused.expires)
            )
            raise EngineBuildError(
                f"{' '.join(refused.error.split())} (recorded in the store on {since}, valid until {until}; "
                "STORE_REFUSALS=ignore compiles anyway)"
            )

    def lookup(self, kind: str, key: str, name: str) -> CacheEntry | None:
        """The trusted entry of a key, or None; a rejected entry is reported. Raises StoreError."""
        if self.off:
            return None
        path = entry_path(kind, key)
        found = self.ahead.entry(kind, key) or self.remote.read(path, LARGEST)
        if found is None:
            return None
        try:
            entry = verify_entry(found[0], self.trusted, kind, key)
            if entry.name != name:
                raise EntryRejected(f"it belongs to {entry.name}")
        except EntryRejected as refused:
            self._report_rejected(name, path, refused)
            return None
        if self.signing_key and time.time() - found[1] > REFRESH_S and kind != REFUSAL:
            self.remote.replace(path, found[0])
        return entry

    def _report_rejected(self, name: str, path: str, refused: EntryRejected) -> None:
        if refused.untrusted:
            hint = "add its .pub to STORE_TRUSTED_KEYS="
            hint = hint if self.trusted else "STORE_TRUSTED_KEYS= names no key"
            self._say_once(f"engines: ignoring untrusted entries of {self.remote.url}: {refused}; {hint}")
        elif not refused.expired:
            self._say_once(f"engines: ignoring the store's entry of {name}: {refused} ({path})")

    def _download(
        self, entry: CacheEntry, places: list[Path], running: ProgressHandle
    ) -> ProvidedFile | None:
        """Download the data of an entry; None if that fails."""
        began, whole, before = time.monotonic(), sum(size for _, size in entry.blobs()), 0

        def advance(before: int, done: int) -> None:
            running.update(before + done, whole)

        for (sha256, size), place in zip(entry.blobs(), places):
            progress = partial(advance, before)
            ahead_s = self.ahead.place(sha256, place, progress)
            if ahead_s is None and not self.fetch(sha256, size, place, entry.name, progress):
                return None
            began -= ahead_s or 0.0
            before += size
            running.update(before, whole)
        self.moved.downloaded(entry)
        where = {"from": self.remote.url, "signed_by": entry.by, "made": entry.made}
        details = {**entry.details, "fetched": where}
        return ProvidedFile("fetched", entry.sha256, entry.size, details, time.monotonic() - began)

    def fetch(
        self,
        sha256: str,
        size: int,
        to: Path,
        name: str,
        progress: Callable[[int], None] = lambda done: None,
    ) -> bool:
        """Download the object with this sha256; False, with a message, if it is missing or damaged.
        name: for messages. Raises StoreError, OSError."""
        path = blob_path(sha256)
        try:
            with new_file(to) as out:
                if self.remote.download(path, sha256, size, out, progress):
                    return True
            self._say(f"engines: the store has an entry of {name} but not its data ({path})")
        except DigestMismatch as damaged:
            removed = ""
            if self.signing_key:
                with contextlib.suppress(StoreError):
                    if self.remote.size(path) == size:  # else the signed size may be wrong
                        self.remote.remove(path)
                        removed = "; removed"
            self._say(f"engines: ignoring the store's data of {name}: {damaged} ({path}){removed}")
        return False

    # Uploads.

    def publish(self, entry: CacheEntry, files: Mapping[str, Path]) -> bool:
        """Upload an entry and its data, unless the store has a usable one; whether it was uploaded. files:
        by sha256. Raises StoreError."""
        if self.off or self.signing_key is None:
            return False
        if self._usable(entry):
            return False
        try:
            for sha256, size in entry.blobs():
                self.remote.upload(blob_path(sha256), files[sha256], sha256, size)
        except (DigestMismatch, OSError):  # another build on this host replaced the file
            return False
        data = sign_entry(entry, self.signing_key)
        if not self.remote.create(entry.path, data):
            if self._usable(entry):  # it lacked its data, or another writer was faster
                self.moved.uploaded(entry)
                return False
            self.remote.replace(entry.path, data)
        self.moved.uploaded(entry)
        return True

    def _usable(self, entry: CacheEntry) -> bool:
        """Whether the store has a trusted, complete entry of this key."""
        found = self.remote.read(entry.path, LARGEST)
        if found is None:
            return False
        try:
            there = verify_entry(found[0], self.trusted, entry.kind, entry.key)
        except EntryRejected:
            return False
        return all(self.remote.size(blob_path(sha256)) == size for sha256, size in there.blobs())

    def refuse(self, spec: EngineSpec, error: EngineBuildError) -> None:
        """Upload a refusal: these inputs cannot be compiled. Raises StoreError."""
        if self.off or self.signing_key is None:
            return
        now = int(time.time())
        what = REFUSAL, spec.key, spec.filename, spec.ingredients
        entry = CacheEntry(*what, made=now, expires=now + REFUSAL_S, error=str(error))
        self.remote.replace(entry.path, sign_entry(entry, self.signing_key))

    def forgive(self, spec: EngineSpec) -> None:
        """Remove the refusal of an engine that compiled after all. Raises StoreError."""
        if self.signing_key and not self._refusals:
            self.remote.remove(entry_path(REFUSAL, spec.key))

    # Failures.

    def run_in_thread(self, do: Callable[[], _T | None], stopping: Callable[[], bool]) -> _T | None:
        """Run `do` in a new thread: SCons's threads have small stacks, and a transfer must not delay
        Ctrl-C. On StoreError, stop using the store. Raises EngineError, OSError."""
        if self.off:
            return None
        future = in_thread(do)
        while not future.done():
            wait([future], 0.1)
            if stopping():
                raise Interrupted(STOPPED)
        try:
            return future.result()
        except StoreError as error:
            self.give_up(error)
            return None

    def give_up(self, error: StoreError) -> None:
        """Stop using the store in this run."""
        with self._lock:
            if self.off:
                return
            self.off = True
        self.ahead.close(0.0)
        self._say(f"engines: not using the store {self.remote.url} for the rest of this run: {error}")

    def _say_once(self, text: str) -> None:
        with self._lock:
            reported = text in self._reported
            self._reported.add(text)
        if not reported:
            self._say(text)


@contextlib.contextmanager
def _showing(begin: BeginProgress, label: str, short: str) -> Iterator[ProgressHandle]:
    running = begin("FETCHING", label, short, "B")
    try:
        yield running
    finally:
        running.end()
