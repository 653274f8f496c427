"""What a file's stat proves, depending on its file system.

If the kernel keeps the times, every change updates the ctime. On an image (squashfs, a loop device, a
read-only disk) the times come with the data, and two images mounted one after the other can show the
same stat: there the mount is part of the stat. Some file systems have no ctime, or a made-up one: there
a stat proves nothing. Neither does it in memory: a write through a shared mapping need not move any time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..values import Value

NO_CTIME = ("afs", "cifs", "exfat", "hfs", "msdos", "ntfs", "smb3", "smbfs", "vfat")
IN_MEMORY = ("devtmpfs", "hugetlbfs", "ramfs", "rootfs", "tmpfs")
IMAGES = ("cramfs", "erofs", "iso9660", "overlay", "romfs", "squashfs", "udf")
IMAGE_DEVICES = (7, 43)  # loop devices, network block devices
MOUNT_TABLE = "/proc/self/mountinfo"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_STATX_UNIQUE, _STATX_BYTES, _ID_AT = 0x4000, 256, 144  # of statx(2), since Linux 6.8
_AT_FDCWD = -100


class Mount(Value):
    """A line of the mount table. device: as st_dev; line: the whole line."""

    device: int
    place: str
    kind: str
    read_only: bool
    line: str


class Mounts:
    """The mounts at the time of this run."""

    def __init__(self) -> None:
        self._table: list[Mount] | None = None

    def identity(self, device: int, path: str | os.PathLike[str]) -> str | None:
        """What to add to the stat of files on this device, such as `path`: "" if a stat is proof enough;
        None if a stat proves nothing."""
        if not os.path.exists("/proc/sys/kernel"):
            return ""  # not Linux
        mount = self._mount_of(device, path)
        if mount is None:
            return _identity(os.fspath(path), None)
        if mount.kind in (*NO_CTIME, *IN_MEMORY) or mount.kind.split(".")[0] in ("fuse", "fuseblk"):
            return None
        if mount.read_only or mount.kind in IMAGES or os.major(device) in IMAGE_DEVICES:
            there = _device_of(mount.place) == device
            return _identity(mount.place if there else os.fspath(path), mount)
        return ""

    def hides_writes(self, device: int, path: str | os.PathLike[str]) -> bool:
        """Whether a write through a mapping can move no time of a file on this device, one of which is
        `path`, although nobody has it open: an overlay does not tell who has mapped a file."""
        mount = self._mount_of(device, path)
        return mount is not None and mount.kind in (*IN_MEMORY, "overlay")

    def _mount_of(self, device: int, path: str | os.PathLike[str]) -> Mount | None:
        """The first mount of the device; if none has its number (btrfs), the mount of the path."""
        if self._table is None:
            self._table = _mount_table()
        for mount in self._table:
            if mount.device == device:
                return mount
        full = os.path.join(os.path.realpath(path), "")
        above = [each for each in self._table if full.startswith(os.path.join(each.place, ""))]
        return max(above, key=lambda each: len(each.place), default=None)


def mount_below(top: Path, path: Path) -> Path | None:
    """The mount point between a folder and a path below it; None if there is none."""
    places = {mount.place for mount in _mount_table()}
    between = [path, *path.parents][: len(path.parts) - len(top.parts)]
    return next((each for each in between if os.path.realpath(each) in places), None)


def _mount_table() -> list[Mount]:
    try:
        lines = Path(MOUNT_TABLE).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return [_mount(line) for line in lines]
    except (OSError, ValueError, IndexError):
        return []


def _mount(line: str) -> Mount:
    """See proc_pid_mountinfo(5). Raises ValueError or IndexError."""
    first, _, last = line.partition(" - ")
    major, minor = first.split(" ")[2].split(":")
    place = first.split(" ")[4]
    for code, letter in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        place = place.replace(code, letter)
    fields = last.split(" ")
    read_only = "ro" in fields[-1].split(",")
    return Mount(os.makedev(int(major), int(minor)), place, fields[0], read_only, line)


def _identity(place: str, mount: Mount | None) -> str | None:
    """An ID of the mount that is unique until reboot. None if there is none."""
    try:
        boot = Path(BOOT_ID).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    unique = _unique_id(place)
    if unique is not None:
        return f"{boot} {unique}"
    # An older kernel reuses mount numbers; the layers of an overlay have unique names.
    return f"{boot} {mount.line}" if mount and mount.kind == "overlay" else None


def _unique_id(place: str) -> int | None:
    import ctypes  # needed only for images

    try:
        statx = ctypes.CDLL(None).statx
    except (OSError, AttributeError):
        return None
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(_AT_FDCWD, os.fsencode(place), 0, _STATX_UNIQUE, found) != 0:
        return None
    if not int.from_bytes(found.raw[:4], sys.byteorder) & _STATX_UNIQUE:
        return None
    return int.from_bytes(found.raw[_ID_AT : _ID_AT + 8], sys.byteorder)


def _device_of(place: str) -> int | None:
    try:
        return os.stat(place).st_dev
    except OSError:
        return None
