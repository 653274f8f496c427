"""Engines with the same inputs, such as those of one model under two names, are built one after the other in
a run: the second is then a copy of the first."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from ..artifact.cache_key import make_key
from ..errors import Interrupted
from .child_process import POLL_SECONDS, STOPPED
from .spec import EngineSpec


class Turns:
    """Between threads of this process."""

    def __init__(self) -> None:
        self._ended = threading.Condition()
        self._held: dict[str, str] = {}  # the engine that is built, by key

    @contextlib.contextmanager
    def turn(
        self,
        spec: EngineSpec,
        new: bool,
        what: str,
        waiting: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> Iterator[None]:
        """Hold the turn to build an engine with these inputs. new: the engine has no receipt yet, so it may
        be a copy of one with another filename; what: the engine; waiting: called with what it waits for.
        Raises Interrupted."""
        key = make_key("" if new else spec.filename, spec.ingredients)
        with self._ended:
            if key in self._held:
                waiting(f"{self._held[key]}, which has the same inputs")
            while key in self._held:
                if stopping():
                    raise Interrupted(STOPPED)
                self._ended.wait(POLL_SECONDS)
            self._held[key] = what
        try:
            yield
        finally:
            with self._ended:
                del self._held[key]
                self._ended.notify_all()
