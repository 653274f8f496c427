"""Engines with the same inputs, such as those of one model under two names, are built one after the other in
a run: the second is then a copy of the first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..artifact.cache_key import make_key
from ..errors import EngineBuildError, Interrupted
from .child_process import POLL_SECONDS, STOPPED
from .engine_spec import EngineSpec

SAY_AFTER_SECONDS = 0.3  # most copies take less


class TurnsOfSameInputs:
    """Between threads of this process."""

    def __init__(self) -> None:
        self._ended = threading.Condition()
        self._held: dict[str, str] = {}  # the engine that is built, by key
        self._made: dict[str, Path] = {}  # the last engine, by key
        self._refused: dict[str, EngineBuildError] = {}

    @contextlib.contextmanager
    def turn(
        self, spec: EngineSpec, what: str, waiting: Callable[[str], None], stopping: Callable[[], bool]
    ) -> Iterator[Path | None]:
        """Hold the turn to build an engine with these inputs; gives one that this run has built, or None.

        what: the engine; waiting: called with what it waits for, if that takes long. Raises Interrupted,
        and again the EngineBuildError of inputs that the runtime refuses on any host.
        """
        key = make_key("", spec.ingredients)
        self._begin(key, what, waiting, stopping)
        try:
            if key in self._refused:
                raise EngineBuildError(str(self._refused[key]))
            yield self._made.get(key)
            self._made[key] = spec.engine
        except EngineBuildError as error:
            if error.lasting:
                self._refused[key] = error
            raise
        finally:
            with self._ended:
                del self._held[key]
                self._ended.notify_all()

    def _begin(
        self, key: str, what: str, waiting: Callable[[str], None], stopping: Callable[[], bool]
    ) -> None:
        began, said = time.monotonic(), False
        with self._ended:
            while key in self._held:
                if stopping():
                    raise Interrupted(STOPPED)
                if not said and time.monotonic() - began >= SAY_AFTER_SECONDS:
                    waiting(f"{self._held[key]}, which has the same inputs")
                    said = True
                self._ended.wait(POLL_SECONDS)
            self._held[key] = what
