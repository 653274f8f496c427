"""Inputs whose bytes are those that were hashed, for as long as a child process reads them.

Each input is opened once and hashed through that descriptor. The child reads the same descriptor
(`/proc/self/fd/N`), so a name that is renamed or relinked meanwhile changes nothing. An edit in place
shows in size, mtime or ctime when the work is done, and the step fails.

Where a stat proves too little, the child gets a private copy, hashed as it is written: a file that
somebody has open for writing (a shared mapping can write without moving mtime or ctime), and a file with
several hard links (SCons's VariantDir makes and removes them, which moves ctime).
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
from ..files.reading import blocks, open_file, open_for_writing
from ..files.writing import cause, new_file

MOST_OPEN = 32  # descriptors of one compile; a model with more data files is copied
SETTLE_S = 0.1  # a file changed so recently may change again without moving its stat


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


def is_steady(source: io.FileIO) -> bool:
    """Whether the file's stat would show every write from now on."""
    return stamp_of(source.fileno()).links <= 1 and not open_for_writing(source)


class Pinned:
    """Inputs of one child process, by ingredient name. descriptors: for the child to inherit."""

    def __init__(self, digest_cache: DigestCache | None, verb: str) -> None:
        self.descriptors: dict[str, int] = {}
        self._digest_cache = digest_cache
        self._verb = verb
        self._stamps: dict[str, tuple[Path, Stamp, bool]] = {}

    def hold(
        self,
        stack: contextlib.ExitStack,
        name: str,
        path: Path,
        sha256: str,
        always: bool = False,
    ) -> bool:
        """Keep a file open whose bytes have this sha256. False where its stat would not show a change:
        then it must be copied, unless it is held `always`. Raises EngineBuildError where it has other
        bytes by now, and OSError."""
        source = stack.enter_context(open_file(path))
        if not always and not is_steady(source):
            return False
        stamp = _settled(source)
        try:
            digest = self._digest_cache.sha256_open(source, path) if self._digest_cache else _hash(source)
        except OSError as error:
            if error.errno == errno.EBUSY:  # it grew meanwhile
                raise changed(path, self._verb) from None
            raise
        if digest != sha256 or stamp_of(source.fileno()) != stamp:
            raise changed(path, self._verb)
        self.descriptors[name] = source.fileno()
        self._stamps[name] = path, stamp, always
        return True

    def check(self) -> bool:
        """Whether every file that is held kept its bytes. False where the ctime of one moved alone: an
        edit that was undone does that, as a rename or a new hard link do, so work on a copy instead.
        Raises EngineBuildError where a file was written to, or may have been and is held `always`."""
        sure = True
        for name, (path, before, always) in self._stamps.items():
            now = stamp_of(self.descriptors[name])
            if now != before and (always or now[:4] != before[:4]):
                raise changed(path, self._verb)
            sure = sure and now == before
        return sure


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
    files: Mapping[str, tuple[Path, Path | None]],
    digests: Mapping[str, str],
    digest_cache: DigestCache | None,
    verb: str,
    copy: bool = False,
) -> Iterator[Pinned]:
    """Put each input where a child process expects it, as a link to a descriptor that the child
    inherits, or as a copy.

    files: by ingredient name, the input and the place of its link; None for a file that the child
    opens by its own path and compares with the descriptor; copy: link nothing. Raises as
    `Pinned.hold` and `copy_verified`.
    """
    pinned = Pinned(digest_cache, verb)
    with contextlib.ExitStack() as stack:
        linked = not copy and os.path.isdir("/proc/self/fd") and len(files) <= MOST_OPEN
        for name, (path, place) in files.items():
            if place is None:
                pinned.hold(stack, name, path, digests[name], always=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if linked and pinned.hold(stack, name, path, digests[name]):
                place.symlink_to(f"/proc/self/fd/{pinned.descriptors[name]}")
            else:
                copy_verified(path, place, digests[name], verb)
        yield pinned
