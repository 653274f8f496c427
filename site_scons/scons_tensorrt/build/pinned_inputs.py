"""Inputs whose bytes are those that were hashed, for as long as a child process reads them.

Each input is opened once and hashed through that descriptor. The child reads the same descriptor
(`/proc/self/fd/N`), so a name that is renamed or relinked meanwhile changes nothing. An edit in place
shows in size, mtime or ctime when the work is done, and the step fails.

Where a stat proves too little, the child gets a private copy, hashed as it is written: a file that
somebody has open for writing (a shared mapping can write without moving mtime or ctime), one on a file
system where that is not seen (tmpfs, an overlay), and a file with several hard links (SCons's VariantDir
makes and removes them, which moves ctime).

A plugin is loaded by its path, since it may look for files beside it. It is loaded from a private copy in
the same cases, except that hard links do not matter and that a plugin which looks for its own folder is
never copied.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import EngineBuildError, PublishError
from ..files.digest_cache import DigestCache
from ..files.mounts import Mounts
from ..files.reading import blocks, open_file, open_for_writing
from ..files.writing import cause, new_file

MOST_OPEN = 32  # descriptors of one compile; a model with more data files is copied
SETTLE_S = 0.1  # a file changed so recently may change again without moving its stat


OWN_PLACE = (b"$ORIGIN", b"${ORIGIN}", b"dladdr", b"dlinfo")  # in a library that looks beside itself


class Stamp(NamedTuple):
    """What moves when a file changes. Times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    links: int


def stamp_of(descriptor: int) -> Stamp:
    """Raises OSError."""
    found = os.fstat(descriptor)
    return Stamp(
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink
    )


def changed(path: Path, verb: str) -> EngineBuildError:
    """The error of an input that did not hold still. verb: "compiled", "converted"."""
    return EngineBuildError(f"{path.name} changed while it was {verb}; run again")


class Pinned:
    """Inputs of one child process, by ingredient name. descriptors: for the child to inherit; plugins:
    of each, the path that the child loads and the descriptor of that file."""

    def __init__(self, digest_cache: DigestCache | None, verb: str) -> None:
        self.descriptors: dict[str, int] = {}
        self._digest_cache = digest_cache
        self._verb = verb
        self.plugins: list[tuple[str, int]] = []
        self._stamps: dict[str, tuple[Path, Stamp, io.FileIO, str]] = {}
        self._last_try: set[str] = set()
        self._mounts = Mounts()

    def hold(self, stack: contextlib.ExitStack, name: str, path: Path, sha256: str) -> bool:
        """Keep a file open whose bytes have this sha256. False where its stat would not show a change:
        then it must be copied. Raises EngineBuildError where it has other bytes by now, and OSError."""
        source = stack.enter_context(open_file(path))
        steady = stamp_of(source.fileno()).links <= 1 and not self._may_hide_writes(source, path)
        return steady and self._hold_open(source, name, path, sha256)

    def _may_hide_writes(self, source: io.FileIO, path: Path) -> bool:
        """Whether the file's stat may not show a write from now on."""
        return self._mounts.hides_writes(os.fstat(source.fileno()).st_dev, path) or open_for_writing(source)

    def hold_plugin(
        self, stack: contextlib.ExitStack, name: str, path: Path, place: Path, sha256: str, copy: bool
    ) -> None:
        """Keep a plugin open that is loaded by its path, or a copy of it at `place`. copy: prefer the
        copy. Raises as `hold`, and where a plugin that cannot be copied is open for writing."""
        source = stack.enter_context(open_file(path))
        if copy or self._may_hide_writes(source, path):
            if not _looks_beside_itself(source):
                copy_verified(path, place, sha256, self._verb)
                self.descriptors[name] = stack.enter_context(open_file(place)).fileno()
                self.plugins.append((str(place), self.descriptors[name]))
                return
            if open_for_writing(source):
                raise EngineBuildError(f"{path.name} is open for writing; run again when it is closed")
        while not self._hold_open(source, name, path, sha256):
            pass  # it was linked or renamed while it was hashed
        if copy:
            self._last_try.add(name)
        self.plugins.append((str(path), self.descriptors[name]))

    def _hold_open(self, source: io.FileIO, name: str, path: Path, sha256: str) -> bool:
        """False where the ctime alone moved meanwhile."""
        stamp = _settled(source)
        try:
            digest = self._digest_cache.sha256_open(source, path) if self._digest_cache else _hash(source)
        except OSError as error:
            if error.errno == errno.EBUSY:  # it grew meanwhile
                raise changed(path, self._verb) from None
            raise
        now = stamp_of(source.fileno())
        if digest != sha256 or now[:4] != stamp[:4]:
            raise changed(path, self._verb)
        if now != stamp:
            return False
        self.descriptors[name] = source.fileno()
        self._stamps[name] = path, stamp, source, digest
        return True

    def check(self) -> bool:
        """Whether every file that is held kept its bytes. False where the ctime of one moved alone: an
        edit that was undone does that, as a rename or a new hard link do, so work on a copy instead. A
        plugin for which that was the second try must have the bytes that it had.
        Raises EngineBuildError where a file was written to."""
        sure = True
        for name, (path, before, source, digest) in self._stamps.items():
            now = stamp_of(source.fileno())
            if now[:4] != before[:4]:
                raise changed(path, self._verb)
            if now != before and name in self._last_try:
                if _hash(source) != digest:
                    raise changed(path, self._verb)
            else:
                sure = sure and now == before
        return sure


def _looks_beside_itself(library: io.FileIO) -> bool:
    """Whether a library may look for its folder, and so would not work as a copy elsewhere."""
    library.seek(0)
    end = b""
    for block in blocks(library):
        text = end + block
        if any(word in text for word in OWN_PLACE):
            return True
        end = block[-max(map(len, OWN_PLACE)) :]
    return False


def _hash(source: io.FileIO) -> str:
    source.seek(0)
    digest = hashlib.sha256()
    for block in blocks(source):
        digest.update(block)
    return digest.hexdigest()


def _settled(source: io.FileIO) -> Stamp:
    """The file's stamp, once it is too old for another write to leave it as it is."""
    while True:
        stamp = stamp_of(source.fileno())
        if not wait_until_settled(stamp.ctime):
            return stamp


def wait_until_settled(changed_ns: int) -> bool:
    """Wait until a change of now would show in the clock of the file system. changed_ns: when the file
    last changed, its ctime: an mtime can be set to anything. Whether there was anything to wait for."""
    age = time.time() - changed_ns / 1e9
    if not 0 <= age < SETTLE_S:
        return False
    time.sleep(SETTLE_S - age)
    return True


def copy_verified(path: Path, place: Path, sha256: str, verb: str) -> None:
    """A private copy of an input at `place`. Raises EngineBuildError where its bytes have another
    sha256, PublishError, and OSError where it cannot be read."""
    with open_file(path) as source:
        digest = copy_hashed(source, place)
    if digest != sha256:
        raise changed(path, verb)


def copy_hashed(source: io.FileIO, place: Path) -> str:
    """Copy an open file to `place`, which is new; the sha256 of what was written. Raises PublishError
    where it cannot be written, OSError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        out = new_file(place)
    except OSError as error:
        raise _unwritable(place, error) from None
    with out:
        for block in blocks(source):
            digest.update(block)
            try:
                out.write(block)
            except OSError as error:
                raise _unwritable(place, error) from None
    return digest.hexdigest()


def _unwritable(place: Path, error: OSError) -> PublishError:
    return PublishError(f"{place}: {cause(error, 'make room or make the folder writable')}")


@contextlib.contextmanager
def links_to(
    files: Mapping[str, tuple[Path, Path]],
    plugins: Mapping[str, tuple[Path, Path]],
    digests: Mapping[str, str],
    digest_cache: DigestCache | None,
    verb: str,
    copy: bool = False,
) -> Iterator[Pinned]:
    """Put each input where a child process expects it, as a link to a descriptor that the child
    inherits, or as a copy.

    files: by ingredient name, the input and the place of its link; plugins: the library, which the
    child loads by its path and compares with the descriptor, and the place of a copy; copy: link
    nothing. Raises as `Pinned.hold_plugin` and `copy_verified`.
    """
    pinned = Pinned(digest_cache, verb)
    with contextlib.ExitStack() as stack:
        linked = not copy and os.path.isdir("/proc/self/fd") and len(files) + len(plugins) <= MOST_OPEN
        for name, (path, place) in files.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            if linked and pinned.hold(stack, name, path, digests[name]):
                place.symlink_to(f"/proc/self/fd/{pinned.descriptors[name]}")
            else:
                copy_verified(path, place, digests[name], verb)
        for name, (path, place) in plugins.items():
            pinned.hold_plugin(stack, name, path, place, digests[name], copy)
        yield pinned
