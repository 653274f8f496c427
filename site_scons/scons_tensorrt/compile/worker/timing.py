"""The timing cache: what TensorRT measured of kernels, for the next compile on this hardware.

One file for each full hardware signature. Caches combine only within the exact version and
GPU, so `ignore_mismatch` stays off: a cache that does not fit is set aside, never forced.
Several compiles may end at once: each combines its own with what is there, under the file's
lock, and replaces it whole.
"""

import contextlib
import fcntl
import os

from scons_tensorrt.compile.worker import link


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
    temporary = "%s.%d.tmp" % (path, os.getpid())
    try:
        with locked(path):
            data = _read(path)
            other = _create(config, data) if data else None
            if data and (other is None or not cache.combine(other, False)):
                _set_aside(path)
            with open(temporary, "xb") as out:
                out.write(bytes(cache.serialize()))
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, path)
    except OSError as error:
        _tell(path, error)
        if os.path.exists(temporary):
            os.unlink(temporary)


@contextlib.contextmanager
def locked(path):
    """Alone with the file at `path`, among those who ask."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell(path, error):
    link.send("note", text="timing cache %s: %s; the engine is made without it" % (path, error.strerror))


def _create(config, data):
    """The cache in `data`; None where TensorRT does not take it."""
    try:
        return config.create_timing_cache(data)
    except (TypeError, ValueError, RuntimeError):
        return None


def _set_aside(path):
    aside = path + ".damaged"
    os.replace(path, aside)
    link.send("note", text="timing cache %s does not fit or is damaged; kept as %s" % (path, aside))


def _read(path):
    try:
        with open(path, "rb") as source:
            return source.read()
    except FileNotFoundError:
        return b""
