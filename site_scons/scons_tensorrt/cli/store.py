"""`store gc|verify|stats`: inspect and clean the shared engine cache."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import plural
from ..files.sizes import parse_size
from .common import add_command, add_json, print_json, say
from .key_options import add_trusted_key, trusted_keys

if TYPE_CHECKING:
    from ..cache.object_store import Item, ObjectStore
    from ..files.signing_keys import TrustedKeys
    from .common import Commands


def add(commands: Commands) -> None:
    store = add_command(
        commands, "store", "inspect and clean the shared engine cache", ("stats", "verify --quick")
    )
    jobs = store.add_subparsers(required=True, metavar="JOB")
    gc = add_command(
        jobs, "gc", "remove old entries and unreferenced files", ("--older 30 --dry-run", "--most 500G")
    )
    gc.add_argument("--older", type=_days, metavar="DAYS", help="remove entries unused by writers for DAYS")
    gc.add_argument(
        "--most",
        type=_size,
        metavar="SIZE",
        help="then remove the oldest entries until the cache is at most SIZE, such as 500G",
    )
    gc.add_argument("--dry-run", action="store_true", help="list what would be removed")
    gc.set_defaults(run=_gc)
    verify = add_command(jobs, "verify", "check all signatures and hashes", ("--quick", "--remove"))
    verify.add_argument("--quick", action="store_true", help="check sizes only, without downloading")
    verify.add_argument(
        "--remove", action="store_true", help="remove damaged entries and files; untrusted entries are kept"
    )
    verify.set_defaults(run=_verify)
    stats = add_command(jobs, "stats", "count entries and bytes", ("--trusted-key keys/ci.pem.pub", "--json"))
    stats.set_defaults(run=_stats)
    for job in (gc, verify, stats):
        add_json(job)
        job.add_argument("--store", metavar="URL", help="shared engine cache (default: $TRT_STORE)")
        add_trusted_key(job)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _days(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text}: not a number of days such as 30")


def _opened(arguments: argparse.Namespace) -> tuple[ObjectStore, TrustedKeys]:
    from ..cache.object_store import ObjectStore
    from ..files.signing_keys import load_trusted_keys

    url = arguments.store or os.environ.get("TRT_STORE", "")
    trusted = trusted_keys(arguments)
    if not url:
        arguments.wrong("no shared engine cache given; use --store URL or set TRT_STORE")
    if not trusted:
        arguments.wrong("no trusted keys given; use --trusted-key PATH or set TRT_STORE_TRUSTED_KEYS")
    return ObjectStore(url), load_trusted_keys(trusted)


def _gc(arguments: argparse.Namespace) -> int:
    from ..cache.maintenance import gc

    remote, trust = _opened(arguments)
    older_s = None if arguments.older is None else arguments.older * 86400
    gone = gc(remote, trust, older_s, arguments.most, arguments.dry_run)
    if arguments.json:
        removed = not arguments.dry_run
        print_json({"entries": gone.entries, "files": gone.blobs, "bytes": gone.size, "removed": removed})
        return 0
    for path in (*gone.entries, *gone.blobs):
        say(f"{'WOULD REMOVE' if arguments.dry_run else 'REMOVED'} {path}")
    entries, files = plural(len(gone.entries), "entry", "entries"), plural(len(gone.blobs), "file")
    verb = "would be removed" if arguments.dry_run else "removed"
    say(f"{entries} and {files} ({gone.size / 1e6:.1f} MB) {verb}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from ..cache.maintenance import faults

    found = []
    for fault in faults(*_opened(arguments), arguments.remove, arguments.quick):
        if not arguments.json:
            say(f"{'REMOVED' if fault.removed else 'FAILED'} {fault.path}: {fault.reason}")
        found.append(fault._asdict())
    if arguments.json:
        print_json({"faults": found})
    else:
        say(plural(len(found), "fault") if found else "OK")
    return 1 if found else 0


def _stats(arguments: argparse.Namespace) -> int:
    from ..cache.entry import blob_path
    from ..cache.maintenance import blobs_of, entries_of

    remote, trust = _opened(arguments)
    held, blobs = list(entries_of(remote, trust)), blobs_of(remote)
    referenced: set[str] = set()
    counts: dict[str, Any] = {}
    for kind, name in (("engine", "engine"), ("step", "converted file"), ("refusal", "refusal")):
        these = [each for each in held if each.entry and each.entry.kind == kind]
        paths = {blob_path(d) for each in these if each.entry for d, _ in each.entry.blobs()}
        referenced |= paths
        counts[f"{kind}s"] = {"count": len(these), "bytes": _bytes(paths, blobs)}
        if not arguments.json:
            span = _span([each.item.changed for each in these])
            say(f"{plural(len(these), name)}, {_megabytes(paths, blobs)}{span}")
    unreferenced = set(blobs) - referenced
    untrusted = sum(not each.entry for each in held)
    if arguments.json:
        files = {"count": len(unreferenced), "bytes": _bytes(unreferenced, blobs)}
        print_json({**counts, "unreferenced": files, "untrusted_entries": untrusted})
        return 0
    say(f"{plural(len(unreferenced), 'unreferenced file')}, {_megabytes(unreferenced, blobs)}")
    say(plural(untrusted, "untrusted entry", "untrusted entries"))
    return 0


def _bytes(paths: set[str], blobs: dict[str, Item]) -> int:
    return sum(blobs[path].size for path in paths if path in blobs)


def _megabytes(paths: set[str], blobs: dict[str, Item]) -> str:
    return f"{_bytes(paths, blobs) / 1e6:.1f} MB"


def _span(times: list[float]) -> str:
    if not times:
        return ""
    first, last = (time.strftime("%Y-%m-%d", time.gmtime(at)) for at in (min(times), max(times)))
    return f", from {first} to {last}"
