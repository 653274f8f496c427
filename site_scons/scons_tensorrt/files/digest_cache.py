"""A cache of file digests, valid while the file's stat is unchanged.

An entry holds the sha256 and facts derived from the bytes alone (an ONNX's inputs). It is valid while
device, inode, size, mtime and ctime are the same: tampering that restores the mtime still changes the
ctime. On an image the mount must be the same too, and where a stat proves nothing an entry is valid for
one run (see mounts.py).

The cache file is trusted only if it belongs to this user or root and nobody else can write to it: an
attacker could approve a tampered engine.

As in Git's racy rule, a file may change twice within one tick of the filesystem's clock. So a digest
computed so soon after the ctime is not stored. Nor is that of a file open for writing: a shared mapping
can write without changing mtime or ctime. A stat cannot detect bit rot or a clock set back; `full`
hashes everything.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .mounts import Mounts
from .reading import absolute, open_file, open_for_writing
from .writing import write_atomic

SCHEMA = 1
FINE_TICK_NS = 100_000_000  # kernels tick at 1 to 10 ms
COARSE_TICK_NS = 2_100_000_000  # FAT and old NFS keep whole seconds, FAT only even ones
BLOCK = 1 << 20
LARGEST = 64 << 20  # bytes of the cache file: about 200,000 files
MINE_ALONE = 0o600
CHANGED = "it changed while it was read"  # with EBUSY
_HEX = frozenset("0123456789abcdef")


def is_sha256(value: object) -> bool:
    """Whether `value` is 64 lowercase hex characters."""
    return isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value)


def sha256_file(path: str | os.PathLike[str], follow: bool = True) -> str:
    """Hex sha256 of a regular file's bytes, in constant memory. Raises OSError."""
    with open_file(path, follow) as source:
        return sha256_of(source)[0]


def sha256_of(source: io.FileIO, begun: bytes = b"", most: int | None = None) -> tuple[str, int]:
    """Hex sha256 and size of `begun` and the rest of the file. most: maximum total size; default: the
    file's current size. Raises OSError, also for a file that grows beyond it."""
    digest, size = hashlib.sha256(begun), len(begun)
    most = os.fstat(source.fileno()).st_size if most is None else most
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    while count := source.readinto(buffer):
        digest.update(view[:count])
        size += count
        if size > most:
            raise OSError(errno.EBUSY, CHANGED)
    return digest.hexdigest(), size


class DigestCache:
    """The cache of one run, loaded from `path` and saved there.

    full: hash each file once in every run.
    """

    def __init__(self, path: Path, top: Path, full: bool = False) -> None:
        self._path = path
        self._top = os.path.join(top, "")
        self._full = full
        self._mounts = Mounts()
        self._on_device: dict[int, list[str]] = {}
        self._this_run = f"run {os.urandom(8).hex()}"
        self._fresh: set[str] = set()
        self._changed: set[str] = set()
        self._names: dict[str, str] = {}  # of entries, by the paths that were asked for
        self._entries: dict[str, dict[str, Any]] = _load(path)

    def sha256(self, path: str | os.PathLike[str], follow: bool = True, most: int | None = None) -> str:
        """Hex sha256 of a file, cached while its stat is unchanged. follow: see `open_file`; most: maximum
        size in bytes. Raises OSError."""
        return self._sha256(path, self._name(path), follow, most)

    def _sha256(
        self, path: str | os.PathLike[str], name: str, follow: bool = True, most: int | None = None
    ) -> str:
        stamp = self._stamp(os.stat(path, follow_symlinks=follow), path)
        if most is not None and stamp[2] > most:
            raise OSError(errno.EFBIG, f"{stamp[2]} bytes, more than {most}", path)
        entry = self._entries.get(name)
        if entry and entry["stat"] == stamp and (not self._full or name in self._fresh):
            return str(entry["sha256"])
        now = time.time_ns()
        with open_file(path, follow) as source:
            written = open_for_writing(source)  # first: a later writer changes the stat
            opened = self._stamp(os.fstat(source.fileno()), path)
            digest = sha256_of(source)[0]
        after = self._stamp(os.stat(path, follow_symlinks=follow), path)
        facts = entry["facts"] if entry and entry["sha256"] == digest else {}
        if after == opened == stamp and not (written or _changed_too_recently(stamp, now)):
            self._entries[name] = {"stat": stamp, "sha256": digest, "facts": facts}
            self._fresh.add(name)
            self._changed.add(name)
        elif self._entries.pop(name, None):
            self._changed.add(name)
        return digest

    def sha256_open(self, source: io.FileIO, path: str | os.PathLike[str]) -> str:
        """Hex sha256 of a file opened at `path`: cached if the stat of the open file matches, else hashed
        through the descriptor. Raises OSError."""
        stamp = self._stamp(os.fstat(source.fileno()), path)
        name = self._name(path)
        entry = None if self._this_run in stamp else self._entries.get(name)
        if entry and entry["stat"] == stamp and (not self._full or name in self._fresh):
            return str(entry["sha256"])
        source.seek(0)
        return sha256_of(source)[0]

    def fact(
        self,
        path: str | os.PathLike[str],
        name: str,
        compute: Callable[[io.FileIO], Any] | None = None,
        most: int | None = None,
    ) -> Any:
        """A fact derived from the file's bytes: cached, or computed, or None without `compute`.

        The fact must be JSON. most: maximum size in bytes. Raises OSError.
        """
        file = self._name(path)
        self._sha256(path, file, most=most)
        entry = self._entries.get(file)
        if entry and name in entry["facts"]:
            return entry["facts"][name]
        if compute is None:
            return None
        with open_file(path) as source:  # another file may stand there by now
            stamp = self._stamp(os.fstat(source.fileno()), path)
            value = compute(source)
            after = self._stamp(os.fstat(source.fileno()), path)
        unchanged = entry and entry["stat"] == stamp == after and self._entries.get(file) is entry
        if entry and unchanged and value is not None:
            entry["facts"][name] = value
            self._changed.add(file)
        return value

    def known_fact(self, path: str | os.PathLike[str], name: str) -> Any:
        """A fact that is cached for the file as it is now; None if the file would have to be read. Raises
        OSError."""
        file = self._name(path)
        trusted = not self._full or file in self._fresh
        return self.last_fact(path, name) if trusted and self.stamp(path) else None

    def last_fact(self, path: str | os.PathLike[str], name: str) -> Any:
        """A fact as last stored, even if the file has changed; None if there is none."""
        entry = self._entries.get(self._name(path))
        return entry["facts"].get(name) if entry else None

    def stamp(self, path: str | os.PathLike[str]) -> list[Any] | None:
        """The file's stat, if the cache has an entry for it; else None. Raises OSError."""
        entry = self._entries.get(self._name(path))
        stamp = self._stamp(os.stat(path), path)
        return stamp if entry and entry["stat"] == stamp else None

    def forget_missing(self) -> None:
        """Remove the entries of files that no longer exist."""
        for name in list(self._entries):  # a copy: other threads add entries
            if not os.path.lexists(os.path.join(self._top, name)):
                self._entries.pop(name, None)
                self._changed.add(name)

    def save(self) -> None:
        """Save the cache if it changed, merged with what other processes saved meanwhile.

        Without fsync: a lost cache only costs time. Raises OSError.
        """
        if not self._changed:
            return
        entries = _load(self._path)
        for name in self._changed:
            if name in self._entries:
                entries[name] = self._entries[name]
            else:
                entries.pop(name, None)
        text = json.dumps({"schema": SCHEMA, "files": entries}, separators=(",", ":"))
        write_atomic(self._path, text.encode("utf-8"), durable=False, mode=MINE_ALONE)
        self._changed.clear()

    def _stamp(self, stat: os.stat_result, path: str | os.PathLike[str]) -> list[Any]:
        """What must be unchanged for an entry to be valid."""
        device = stat.st_dev
        more = self._on_device.get(device)
        if more is None:
            mount = self._mounts.identity(device, path)
            more = [self._this_run if mount is None else mount] if mount != "" else []
            self._on_device[device] = more
        return [device, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, *more]

    def _name(self, path: str | os.PathLike[str]) -> str:
        text = os.fspath(path)
        name = self._names.get(text)
        if name is None:
            full = absolute(text)
            name = self._names[text] = full[len(self._top) :] if full.startswith(self._top) else full
        return name


def _changed_too_recently(stamp: list[Any], hashed_at_ns: int) -> bool:
    changed = max(stamp[3], stamp[4]) if stamp[3] <= hashed_at_ns else stamp[4]
    tick = COARSE_TICK_NS if stamp[4] % 1_000_000_000 == 0 else FINE_TICK_NS
    return bool(hashed_at_ns - changed < tick)


def _load(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a cache file; none if it is damaged or writable by others."""
    try:
        with open_file(path) as source:
            stat = os.fstat(source.fileno())
            if stat.st_uid not in (os.geteuid(), 0) or stat.st_mode & 0o022 or stat.st_size > LARGEST:
                return {}
            saved = json.loads(source.readall())
        if saved["schema"] != SCHEMA:
            return {}
        return {
            name: entry
            for name, entry in saved["files"].items()
            if isinstance(entry["stat"], list)
            and is_sha256(entry["sha256"])
            and isinstance(entry["facts"], dict)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
