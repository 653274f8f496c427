"""Looking after a store: what it holds, whether that is sound, and what may go.

Entries go first, then the bytes that no entry speaks for any more; bytes that came only lately stay,
because a push brings them before their entry. Whoever reads meanwhile finds an entry whose bytes are
gone: a miss, and the next writer heals it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ..record import Record
from .entry import FOLDERS, LARGEST, Entry, Refused, blob_path, claimed, entry_path, unseal_any
from .keys import Trust
from .moving import Damaged
from .remote import Item, Remote

THREADS = 16  # of requests at once
GRACE_S = 86400.0  # for bytes without an entry


class Held(Record):
    """One entry. fault: why it is not believed; entry: where it is; blobs: paths of the bytes it
    names, believed or not."""

    item: Item
    entry: Entry | None
    fault: str
    blobs: list[str]


class Gone(Record):
    """What gc removed, or would: paths and bytes."""

    entries: list[str]
    blobs: list[str]
    size: int


def entries_of(remote: Remote, trust: Trust) -> Iterator[Held]:
    """Every entry. Raises StoreError."""

    def look(item: Item) -> Held:
        found = remote.read(item.path, LARGEST)
        if found is None:
            return Held(item, None, "it went meanwhile", [])
        names = [blob_path(sha256) for sha256 in claimed(found[0])]
        try:
            entry = unseal_any(found[0], trust)
        except Refused as refused:
            return Held(item, None, str(refused), names)
        if entry_path(entry.kind, entry.key) != item.path:
            return Held(item, None, f"it is the entry of {entry.path}", names)
        return Held(item, entry, "", names)

    with ThreadPoolExecutor(THREADS) as pool:
        for folder in sorted(set(FOLDERS.values())):
            yield from pool.map(look, list(remote.all_of(folder)))


def blobs_of(remote: Remote) -> dict[str, Item]:
    """Every object of bytes by its path. Raises StoreError."""
    return {item.path: item for item in remote.all_of("cas")}


def faults(
    remote: Remote, trust: Trust, remove: bool = False, quick: bool = False
) -> Iterator[tuple[str, str]]:
    """What is wrong with a store: path and reason. remove: it, too; quick: believe sizes, and read no
    bytes. Raises StoreError."""
    blobs, wrong = blobs_of(remote), dict[str, str]()
    held = list(entries_of(remote, trust))
    wanted = {blob: None for each in held if each.entry for blob in each.entry.blobs()}
    for (sha256, _), fault in zip(wanted, _judged(remote, list(wanted), blobs, quick)):
        if fault:
            path = blob_path(sha256)
            wrong[path] = fault
            yield path, fault
            if remove and path in blobs:
                remote.remove(path)
    for each in held:
        fault = each.fault
        if each.entry:
            bad = [blob_path(digest) for digest, _ in each.entry.blobs() if blob_path(digest) in wrong]
            fault = f"of {each.entry.name}: its bytes are not to be had" if bad else ""
        if fault:
            yield each.item.path, fault
            if remove:
                remote.remove(each.item.path)


def _judged(
    remote: Remote, wanted: list[tuple[str, int]], blobs: dict[str, Item], quick: bool
) -> Iterator[str]:
    def judge(blob: tuple[str, int]) -> str:
        sha256, size = blob
        there = blobs.get(blob_path(sha256))
        if there is None:
            return "missing"
        if there.size != size:
            return f"{there.size} bytes, and {size} were signed"
        if quick:
            return ""
        try:
            return "" if remote.download(there.path, sha256, size, None) else "missing"
        except Damaged as damaged:
            return str(damaged)

    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(judge, wanted)


def gc(
    remote: Remote,
    trust: Trust,
    older_s: float | None = None,
    most: int | None = None,
    dry: bool = False,
    grace_s: float = GRACE_S,
    now: Callable[[], float] = time.time,
) -> Gone:
    """Remove entries not used by a writer for `older_s` seconds, then the oldest until all that
    remains has `most` bytes, refusals that have expired, and bytes that no entry names. Entries that
    are not believed here may be another team's: they, and what they name, go by age and size alone.
    Raises StoreError."""
    blobs = blobs_of(remote)
    going, staying = list[Held](), deque[Held]()
    for each in sorted(entries_of(remote, trust), key=lambda each: each.item.changed):
        (going if _over(each, older_s, now()) else staying).append(each)
    named = Counter(path for each in staying for path in each.blobs)
    size = sum(blobs[path].size for path in named if path in blobs)
    while most is not None and staying and size > most:
        going.append(staying.popleft())
        for path in going[-1].blobs:
            named[path] -= 1
            if not named[path] and path in blobs:
                size -= blobs[path].size
    # Bytes of an entry that goes came with it: the grace is of those that may still get one.
    theirs = {path for each in going for path in each.blobs}
    loose = [
        blob
        for path, blob in blobs.items()
        if not named[path] and (path in theirs or now() - blob.changed > grace_s)
    ]
    if not dry:
        for item in [each.item for each in going] + loose:
            remote.remove(item.path)
    paths = [each.item.path for each in going]
    return Gone(paths, [blob.path for blob in loose], sum(blob.size for blob in loose))


def _over(held: Held, older_s: float | None, now: float) -> bool:
    if held.entry and held.entry.expires is not None and held.entry.expires < now:
        return True
    return older_s is not None and now - held.item.changed > older_s
