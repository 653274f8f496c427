"""The sidecar: `<engine>.sha256`, exactly 64 lowercase hex characters and nothing else.

Loaders on devices read only that form. `read_sidecar` also accepts a trailing newline and a line of
`sha256sum` that names this engine. A symbolic link is rejected.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import SidecarError
from ..files.digest_cache import is_sha256
from ..files.reading import open_file
from .filename import SIDECAR_SUFFIX

MISMATCH = "its sha256 does not match its sidecar"
# The hash, or a line of sha256sum, each with or without a newline.
_FORM = rb"([0-9a-f]{64})(?: [ *]([^\n]+))?\n?"
_LONGEST = 4096


def sidecar_of(engine: str | os.PathLike[str]) -> Path:
    """The path of an engine's sidecar."""
    return Path(os.fspath(engine) + SIDECAR_SUFFIX)


def sidecar_bytes(sha256: str) -> bytes:
    """The contents of the sidecar of a file with this hash."""
    return sha256.encode("ascii")


def read_sidecar(engine: str | os.PathLike[str]) -> str:
    """The sha256 that an engine's sidecar states. Raises SidecarError."""
    path = os.fspath(engine) + SIDECAR_SUFFIX
    try:
        with open_file(path, follow=False) as source:
            data = source.read(_LONGEST + 1) or b""
    except FileNotFoundError:
        raise SidecarError(f"{path}: sidecar missing") from None
    except OSError as error:
        raise SidecarError(f"{path}: sidecar not readable ({error.strerror})") from None
    if not data:
        raise SidecarError(f"{path}: sidecar empty")
    text = data.decode("latin-1")
    if is_sha256(text):
        return text
    found = re.fullmatch(_FORM, data)
    if not found:
        raise SidecarError(f"{path}: sidecar malformed (not 64 lowercase hex characters)")
    if found[2] is not None and found[2] != os.fsencode(os.path.basename(engine)):
        other = found[2].decode("utf-8", "replace")
        raise SidecarError(f"{path}: sidecar names another file, {other!r}")
    return found[1].decode("ascii")
