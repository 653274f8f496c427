"""The timing cache: what TensorRT measured of kernels, for the next compile on this hardware.

One file for each full hardware signature. Caches combine only within the exact version and
GPU, so `ignore_mismatch` stays off: a cache that does not fit is set aside, never forced.
Several compiles may end at once: each combines its own with what is there, under the file's
lock, and replaces it whole.
"""

import contextlib
import errno
import fcntl
import os
import stat

from scons_tensorrt.worker.common import parent

LARGEST = 256 << 20  # bytes


def use(config, path):
    """Give the configuration the cache at `path`, or an empty one. What is wrong with the cache
    is told, and never the engine's fault."""
    try:
        with locked(path):
            data = _read(path)
            cache = _create(config, data) if data else None
            if cache is not None and config.set_timing_cache(cache, False):
                return
            if data:
                _set_aside(path)
    except OSError as error:
        _tell(path, error)
    config.set_timing_cache(config.create_timing_cache(b""), False)


def keep(config, path):
    """Join the configuration's cache into the file at `path`."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    temporary = path + ".tmp"  # one name, because the lock is held
    try:
        with locked(path):
            data = _read(path)
            other = _create(config, data) if data else None
            if data and (other is None or not cache.combine(other, False)):
                _set_aside(path)
            if os.path.lexists(temporary):  # a killed one's, or a link that leads elsewhere
                os.unlink(temporary)
            try:
                with open(temporary, "xb") as out:
                    out.write(bytes(cache.serialize()))
                    out.flush()
                    os.fsync(out.fileno())
                os.replace(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:
        _tell(path, error)


@contextlib.contextmanager
def locked(path):
    """Alone with the file at `path`, among those who ask."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Neither a link's target is made, nor a pipe's reader waited for.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock = os.open(path + ".lock", flags, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _tell(path, error):
    parent.send("note", text="timing cache %s: %s; the engine is made without it" % (path, error.strerror))


def _create(config, data):
    """The cache in `data`; None where TensorRT does not take it."""
    try:
        return config.create_timing_cache(data)
    except (TypeError, ValueError, RuntimeError):
        return None


def _set_aside(path):
    aside = path + ".damaged"
    os.replace(path, aside)
    parent.send("note", text="timing cache %s does not fit or is damaged; kept as %s" % (path, aside))


def _read(path):
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
