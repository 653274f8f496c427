"""Ensures that a child process reads the same bytes that were hashed.

Each input is opened once and hashed through that descriptor. The child reads the same descriptor
(`/proc/self/fd/N`), so renaming or relinking the path has no effect. An edit in place changes size, mtime or
ctime, which is checked afterwards; then the step fails.

Where a stat may not show a write, the child gets a private copy, which is hashed while it is written: for a
file that is open for writing (a shared mapping can write without changing mtime or ctime), on a file system
that does not show such writes (tmpfs, overlay), and for a file with several hard links (SCons makes and
removes them for a VariantDir, which changes ctime).

A plugin is loaded by its path, since it may look for files beside it. It is copied in the same cases, but
hard links do not matter, and a plugin that looks for its own folder is never copied.
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

from ..errors import EngineBuildError, PublishError
from ..files.digest_cache import DigestCache
from ..files.mounts import Mounts
from ..files.reading import blocks, open_file, open_for_writing
from ..files.writing import cause, new_file
from ..values import Value

MOST_OPEN = 32  # descriptors of one compile; beyond that, files are copied
SETTLE_S = 0.1  # after a change, another one may leave the stat as it is for so long


OWN_PLACE = (b"$ORIGIN", b"${ORIGIN}", b"dladdr", b"dlinfo")  # in a library that looks for files beside it


class Stamp(Value):
    """The fields of a stat that show a change. Times in nanoseconds."""

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
    """The error for an input that changed. verb: for example "compiled"."""
    return EngineBuildError(f"{path.name} changed while it was {verb}; run again")


class Pinned:
    """The inputs of one child process. descriptors: by ingredient name, inherited by the child; plugins: of
    each, the path that the child loads and the descriptor of that file."""

    def __init__(self, digest_cache: DigestCache | None, verb: str) -> None:
        self.descriptors: dict[str, int] = {}
        self._digest_cache = digest_cache
        self._verb = verb
        self.plugins: list[tuple[str, int]] = []
        self._stamps: dict[str, tuple[Path, Stamp, io.FileIO, str]] = {}
        self._last_try: set[str] = set()
        self._mounts = Mounts()

    def hold(self, stack: contextlib.ExitStack, name: str, path: Path, sha256: str) -> bool:
        """Hold a file with this sha256 open. False if its stat may not show a change: then copy it. Raises
        EngineBuildError if it has another sha256, and OSError."""
        source = stack.enter_context(open_file(path))
        steady = stamp_of(source.fileno()).links <= 1 and not self._may_hide_writes(source, path)
        return steady and self._hold_open(source, name, path, sha256)

    def _may_hide_writes(self, source: io.FileIO, path: Path) -> bool:
        """Whether the file's stat may fail to show a write from now on."""
        return self._mounts.hides_writes(os.fstat(source.fileno()).st_dev, path) or open_for_writing(source)

    def hold_plugin(
        self, stack: contextlib.ExitStack, name: str, path: Path, place: Path, sha256: str, copy: bool
    ) -> None:
        """Hold a plugin open that is loaded by its path, or a copy of it at `place`. copy: prefer the copy.
        Raises as `hold`; also EngineBuildError if a plugin that must not be copied is open for writing."""
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
            pass  # it was linked or renamed meanwhile
        if copy:
            self._last_try.add(name)
        self.plugins.append((str(path), self.descriptors[name]))

    def _hold_open(self, source: io.FileIO, name: str, path: Path, sha256: str) -> bool:
        """False if only the ctime changed meanwhile."""
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
        """Whether no held file changed. False if only a ctime changed, by a rename, a new hard link, or an
        edit that was undone: then repeat the work with copies. A plugin at its second try is hashed again
        instead. Raises EngineBuildError if a file changed."""
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
    """Whether a library may look for its own folder, so that a copy may not work."""
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
    """The file's stamp, once any further write would change it."""
    while True:
        stamp = stamp_of(source.fileno())
        if not wait_until_settled(stamp.ctime):
            return stamp


def wait_until_settled(changed_ns: int) -> bool:
    """Wait until a new change would get another ctime than `changed_ns`, the file's present one. Returns
    whether it had to wait. (An mtime can be set to anything.)"""
    age = time.time() - changed_ns / 1e9
    if not 0 <= age < SETTLE_S:
        return False
    time.sleep(SETTLE_S - age)
    return True


def copy_verified(path: Path, place: Path, sha256: str, verb: str) -> None:
    """Copy an input to `place`. Raises as `copy_hashed`, and EngineBuildError if it has another sha256."""
    copy_hashed(path, place, {path: sha256}, verb)


def copy_hashed(path: Path, place: Path, digests: dict[Path, str], verb: str) -> None:
    """Copy an input to the new file `place`, and add its sha256 to `digests`. Raises EngineBuildError if it
    is missing or `digests` has another sha256 of it, PublishError if the copy cannot be written, and OSError
    if the input cannot be read."""
    try:
        with open_file(path) as source:
            digest = _copy(source, place)
    except FileNotFoundError:
        raise changed(path, verb) from None
    if digests.setdefault(path, digest) != digest:
        raise changed(path, verb)


def _copy(source: io.FileIO, place: Path) -> str:
    """The sha256 of the copy."""
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
    """Put each input where a child process expects it, as a link to an inherited descriptor or as a copy.

    files: by ingredient name, the input and the place of its link; plugins: the library and the place of its
    copy; copy: copy everything. Raises as `Pinned.hold_plugin` and `copy_verified`.
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
