"""`.sconsign` of a tree that cannot be written: read if it is there, and kept in memory, where SCons would
end with a Python stack. A `dbm_module` of SCons."""

from __future__ import annotations

import contextlib
from typing import Any

import SCons.dblite

_Dblite: Any = getattr(SCons.dblite, "_Dblite", None) or SCons.dblite.dblite  # before SCons 4.5


class _InMemory(_Dblite):  # type: ignore[misc]  # SCons has no types
    def __init__(self, file: str, mode: int) -> None:
        with contextlib.suppress(OSError):  # there is none
            super().__init__(file, "r", mode)
        self._flag = "c"

    def sync(self) -> None:
        self._needs_sync = False


def open(file: str, flag: str = "r", mode: int = 0o666) -> Any:  # its name in such modules
    """The database that a file has, in memory."""
    return _InMemory(file, mode)
