"""The current phase of a compile, from the events of TensorRT's progress monitor.

Phases nest; the innermost is the current one. Its steps are its progress, unless it has only one: most of a
build is one step of one phase, with no further events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..values import Value

READING = "reading the network"  # before the first phase


class CurrentPhase(Value):
    """words: name of the phase; done, total: its steps, None if it has only one."""

    words: str
    done: int | None = None
    total: int | None = None


class Phases:
    """The open phases of one compile."""

    def __init__(self) -> None:
        self._open: list[CurrentPhase] = []
        self._begun = False

    def hear(self, event: Mapping[str, Any]) -> CurrentPhase:
        """The current phase after an event. Other events change nothing."""
        kind, name = event.get("event"), str(event.get("name"))
        at = next((i for i, each in reversed([*enumerate(self._open)]) if each.words == name), None)
        if kind == "phase":
            self._begun = True
            steps = event.get("steps")
            counts = (0, steps) if isinstance(steps, int) and steps > 1 else (None, None)
            self._open.append(CurrentPhase(name, *counts))
        elif kind == "phase_done" and at is not None:
            del self._open[at:]
        elif kind == "step" and at is not None:
            step, total = event.get("step"), self._open[at].total
            if isinstance(step, int) and total:
                self._open[at] = self._open[at]._replace(done=min(max(step, 0) + 1, total))
        if self._open:
            return self._open[-1]
        if kind == "ending":
            return CurrentPhase("ending the compiler")
        return CurrentPhase("writing the engine" if self._begun else READING)
