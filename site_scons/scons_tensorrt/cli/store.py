"""`store gc|verify|stats`: looking after the team's store."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import time
from typing import TYPE_CHECKING

from ..errors import StoreError
from .common import say

if TYPE_CHECKING:
    from ..cache.keys import TrustedSigners
    from ..cache.object_store import Item, ObjectStore
    from .common import Commands

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def add(commands: Commands) -> None:
    store = commands.add_parser("store", help="look after the team's store")
    jobs = store.add_subparsers(required=True, metavar="JOB")
    gc = jobs.add_parser("gc", help="remove what is old or too much, and bytes without an entry")
    gc.add_argument("--older", type=_days, metavar="DAYS", help="entries not used by a writer for so long")
    gc.add_argument("--most", type=_size, metavar="SIZE", help="then the oldest, down to SIZE, as in 500G")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.set_defaults(run=_gc)
    verify = jobs.add_parser("verify", help="are all entries signed, and all bytes what was signed")
    verify.add_argument("--quick", action="store_true", help="believe sizes and read no bytes")
    verify.add_argument("--remove", action="store_true", help="remove what is wrong")
    verify.set_defaults(run=_verify)
    stats = jobs.add_parser("stats", help="what is there")
    stats.set_defaults(run=_stats)
    for job in (gc, verify, stats):
        job.add_argument("--store", metavar="URL", help="default: $TRT_STORE")
        job.add_argument(
            "--trust",
            metavar="FILES",
            help=f"public keys, or folders of *.pub, with {os.pathsep!r} between; default: $TRT_STORE_TRUST",
        )


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([kMGT]?)B?", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: write a size such as 500G")
    return int(float(found[1]) * _UNITS[found[2]])


def _days(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text}: write days, such as 30")


def _opened(arguments: argparse.Namespace) -> tuple[ObjectStore, TrustedSigners]:
    from ..cache.keys import TrustedSigners
    from ..cache.object_store import ObjectStore

    url = arguments.store or os.environ.get("TRT_STORE")
    trust = arguments.trust or os.environ.get("TRT_STORE_TRUST")
    if not url:
        raise StoreError("which store? Give --store URL, or set TRT_STORE")
    if not trust:
        raise StoreError("whose entries are sound? Give --trust FILES, or set TRT_STORE_TRUST")
    return ObjectStore(url), TrustedSigners.load(trust.split(os.pathsep))


def _gc(arguments: argparse.Namespace) -> int:
    from ..cache.gc import gc

    remote, trust = _opened(arguments)
    older_s = None if arguments.older is None else arguments.older * 86400
    gone = gc(remote, trust, older_s, arguments.most, arguments.dry_run)
    for path in (*gone.entries, *gone.blobs):
        say(f"{'WOULD REMOVE' if arguments.dry_run else 'REMOVED'} {path}")
    say(
        f"{len(gone.entries)} entries and {len(gone.blobs)} files ({gone.size / 1e6:.1f} MB) "
        f"{'would be ' if arguments.dry_run else ''}removed"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from ..cache.gc import faults

    count = 0
    for path, fault in faults(*_opened(arguments), arguments.remove, arguments.quick):
        say(f"{'REMOVED' if arguments.remove else 'FAILED'} {path}: {fault}")
        count += 1
    say(f"{count} faults" if count else "OK")
    return 1 if count else 0


def _stats(arguments: argparse.Namespace) -> int:
    from ..cache.entry import blob_path
    from ..cache.gc import blobs_of, entries_of

    remote, trust = _opened(arguments)
    held, blobs = list(entries_of(remote, trust)), blobs_of(remote)
    spoken: set[str] = set()
    for kind, words in (("engine", "engines"), ("step", "converted files"), ("refusal", "refusals")):
        these = [each for each in held if each.entry and each.entry.kind == kind]
        paths = {blob_path(d) for each in these if each.entry for d, _ in each.entry.blobs()}
        spoken |= paths
        say(f"{len(these)} {words}, {_bytes(paths, blobs)}{_span([e.item.changed for e in these])}")
    loose = set(blobs) - spoken
    say(f"{len(loose)} files without an entry, {_bytes(loose, blobs)}")
    say(f"{sum(not each.entry for each in held)} entries that are not believed")
    return 0


def _bytes(paths: set[str], blobs: dict[str, Item]) -> str:
    return f"{sum(blobs[path].size for path in paths if path in blobs) / 1e6:.1f} MB"


def _span(times: list[float]) -> str:
    if not times:
        return ""
    first, last = (time.strftime("%Y-%m-%d", time.gmtime(at)) for at in (min(times), max(times)))
    return f", from {first} to {last}"
