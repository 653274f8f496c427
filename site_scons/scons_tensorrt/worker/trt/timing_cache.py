"""The timing cache: kernel timings that TensorRT reuses in the next compile on this hardware.

There is one file for each full hardware signature. Caches combine only within one TensorRT version and
GPU, so `ignore_mismatch` stays off, and a cache that does not fit is moved away. Each compile combines
its cache with the file under the file's lock, then replaces the file.
"""

from __future__ import annotations

import errno
import os
import stat

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.trt.shared_file import locked, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 256 << 20  # bytes


def use(config: Any, path: str) -> None:
    """Load the cache at `path` into the configuration, or an empty one. Errors are reported as notes, and
    never fail the build."""
    try:
        with locked(path):
            data = _read(path)
            cache = _create(config, data) if data else None
            if cache is not None and config.set_timing_cache(cache, False):
                return
            if data:
                _move_away(path)
    except OSError as error:
        _note(path, error, "the engine is built without it")
    config.set_timing_cache(config.create_timing_cache(b""), False)


def keep(config: Any, path: str) -> None:
    """Combine the cache of the configuration with the file at `path`."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        with locked(path):
            data = _read(path)
            other = _create(config, data) if data else None
            if data and (other is None or not cache.combine(other, False)):
                _move_away(path)
            replace(path, bytes(cache.serialize()))
    except OSError as error:
        _note(path, error, "the new timings are not saved")


def _note(path: str, error: OSError, effect: str) -> None:
    parent.send("note", text="timing cache %s: %s; %s" % (path, error.strerror, effect))


def _create(config: Any, data: bytes) -> Any:
    """The cache in `data`; None if TensorRT does not accept it."""
    try:
        return config.create_timing_cache(data)
    except (TypeError, ValueError, RuntimeError):
        return None


def _move_away(path: str) -> None:
    aside = path + ".damaged"
    os.replace(path, aside)
    parent.send("note", text="timing cache %s does not fit or is damaged; moved to %s" % (path, aside))


def _read(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(file, "rb") as source:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > LARGEST:
            raise OSError(errno.EFBIG, "more than %d bytes" % LARGEST)
        return source.read()
