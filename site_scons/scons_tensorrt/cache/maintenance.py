"""Maintenance of a store: list its entries, verify them, collect garbage.

gc removes entries first, then unreferenced data. Recent data is kept, because an upload sends data
before its entry. A reader that finds an entry without its data treats it as a miss; the next writer
repairs it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from ..files.in_parallel import in_order
from ..files.signing_keys import TrustedKeys
from ..values import Value
from .copy_and_hash import DigestMismatch
from .entry import FOLDERS, LARGEST, CacheEntry, EntryRejected, blob_path, claimed, entry_path, read_entry
from .object_store import Item, ObjectStore

THREADS = 16  # concurrent requests
AHEAD = 4 * THREADS  # of them that wait, or whose result does
GRACE_S = 86400.0  # age from which unreferenced data is removed


class StoredEntry(Value):
    """entry: without its ingredients and details, None if it was rejected; fault: why; blobs: paths of its
    data, trusted or not; foreign: not damaged, but of another team or another version."""

    item: Item
    entry: CacheEntry | None
    fault: str
    blobs: list[str]
    foreign: bool = False


class Fault(Value):
    """removed: deleted, which a foreign entry never is."""

    path: str
    reason: str
    removed: bool


class GcResult(Value):
    """What gc removed, or would remove: paths, and size in bytes."""

    entries: list[str]
    blobs: list[str]
    size: int


def entries_of(remote: ObjectStore, trusted: TrustedKeys) -> Iterator[StoredEntry]:
    """Every entry, read once. Raises StoreError."""

    def look(item: Item) -> StoredEntry:
        found = remote.read(item.path, LARGEST)
        if found is None:
            return StoredEntry(item, None, "removed meanwhile", [])
        names = [blob_path(sha256) for sha256 in claimed(found[0])]
        try:
            entry = read_entry(found[0], trusted)
        except EntryRejected as refused:
            foreign = refused.untrusted or refused.other_version
            return StoredEntry(item, None, str(refused), names, foreign)
        if entry_path(entry.kind, entry.key) != item.path:
            return StoredEntry(item, None, f"it belongs to {entry.path}", names)
        return StoredEntry(item, entry._replace(ingredients={}, details={}), "", names)

    for folder in sorted(set(FOLDERS.values())):
        yield from in_order(look, remote.all_of(folder), THREADS, AHEAD)


def blobs_of(remote: ObjectStore) -> dict[str, Item]:
    """Every data object by path. Raises StoreError."""
    return {item.path: item for item in remote.all_of("cas")}


def faults(
    remote: ObjectStore, trusted: TrustedKeys, remove: bool = False, quick: bool = False
) -> Iterator[Fault]:
    """Each faulty object. remove: delete the damaged ones; quick: compare sizes only. Data of a size that
    no trusted key signed is faulty, and not read: a sparse file has any size. Raises StoreError."""
    blobs, wrong = blobs_of(remote), dict[str, str]()
    held = list(entries_of(remote, trusted))
    signed: dict[str, set[int]] = {}
    for sha256, size in (blob for each in held if each.entry for blob in each.entry.blobs()):
        signed.setdefault(blob_path(sha256), set()).add(size)
    for path, fault in zip(signed, _data_faults(remote, signed, blobs, quick)):
        if fault:
            wrong[path] = fault
            removing = remove and path in blobs
            yield Fault(path, fault, removing)
            if removing:
                remote.remove(path)
    for each in held:
        fault = each.fault
        if each.entry:
            fault = _fault(each.entry, blobs, wrong)
        if fault:
            removing = remove and not each.foreign
            yield Fault(each.item.path, fault, removing)
            if removing:
                remote.remove(each.item.path)


def _fault(entry: CacheEntry, blobs: dict[str, Item], wrong: dict[str, str]) -> str:
    """The fault of a trusted entry's data; empty if there is none."""
    for sha256, size in entry.blobs():
        path = blob_path(sha256)
        if path in wrong:
            return f"entry of {entry.name}: its data is missing or damaged"
        if blobs[path].size != size:
            return f"entry of {entry.name}: states {size} bytes, but its data has {blobs[path].size}"
    return ""


def _data_faults(
    remote: ObjectStore, signed: dict[str, set[int]], blobs: dict[str, Item], quick: bool
) -> Iterator[str]:
    """The fault of each data object; empty if there is none. signed: signed sizes by path."""

    def check(path: str) -> str:
        there = blobs.get(path)
        if there is None:
            return "missing"
        if there.size not in signed[path]:
            return f"{there.size} bytes, but {min(signed[path])} were signed"
        if quick:
            return ""
        try:
            found = remote.download(path, path.rpartition("/")[2], there.size, None)
            return "" if found else "missing"
        except DigestMismatch as damaged:
            return str(damaged)

    yield from in_order(check, list(signed), 4)


def gc(
    remote: ObjectStore,
    trusted: TrustedKeys,
    older_s: float | None = None,
    most: int | None = None,
    dry: bool = False,
    grace_s: float = GRACE_S,
    now: Callable[[], float] = time.time,
) -> GcResult:
    """Remove expired refusals, entries that no writer used for `older_s` seconds, then the oldest entries
    until at most `most` bytes are left, and unreferenced data. Untrusted entries may belong to another
    team: only age and size remove them and their data. Raises StoreError."""
    blobs = blobs_of(remote)
    to_remove, kept = list[StoredEntry](), deque[StoredEntry]()
    for each in sorted(entries_of(remote, trusted), key=lambda each: each.item.changed):
        (to_remove if _over(each, older_s, now()) else kept).append(each)
    named = Counter(path for each in kept for path in each.blobs)
    size = sum(blobs[path].size for path in named if path in blobs)
    while most is not None and kept and size > most:
        to_remove.append(kept.popleft())
        for path in to_remove[-1].blobs:
            named[path] -= 1
            if not named[path] and path in blobs:
                size -= blobs[path].size
    # Data of a removed entry needs no grace period: only other data may still get an entry.
    theirs = {path for each in to_remove for path in each.blobs}
    unreferenced = [
        blob
        for path, blob in blobs.items()
        if not named[path] and (path in theirs or now() - blob.changed > grace_s)
    ]
    if not dry:
        for items in ([each.item for each in to_remove], unreferenced):  # every entry before any data
            for _ in in_order(lambda item: remote.remove(item.path), items, THREADS):
                pass
    paths = [each.item.path for each in to_remove]
    return GcResult(paths, [blob.path for blob in unreferenced], sum(blob.size for blob in unreferenced))


def _over(held: StoredEntry, older_s: float | None, now: float) -> bool:
    if held.entry and held.entry.expires is not None and held.entry.expires < now:
        return True
    return older_s is not None and now - held.item.changed > older_s
