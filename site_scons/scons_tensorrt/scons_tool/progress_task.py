"""One running compile, conversion or download."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import one_line

QUIET_AFTER_S = 2.0  # without an update, a bar pulses and says so


class ProgressTask:
    """A `ProgressHandle`. label: the file, as in lines; short: the text of its bar; began, line_due: the
    start, and when its next line is due in a log, in `time.monotonic`."""

    def __init__(
        self, verb: str, label: str, short: str, unit: str, on_end: Callable[[ProgressTask], None]
    ) -> None:
        self.verb, self.label, self.short, self._unit = verb, label, short, unit
        self.began = self._heard = time.monotonic()
        self.line_due = 0.0
        self._state: tuple[int, int | None, str] = (0, None, "")  # one value: several threads
        self._on_end = on_end

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        self._state = done or 0, total or None, words
        self._heard = time.monotonic()

    def end(self) -> None:
        self._on_end(self)

    def shown(self, now: float) -> tuple[int, int | None, str]:
        """How much is done, of how much (None if that is unknown, or was not updated for a while), and
        the same in words."""
        done, total, words = self._state
        parts = [words] if words else []
        if total and self._unit == "B":
            parts.append(f"{done / 1e6:.1f} of {total / 1e6:.1f} MB")
        elif total:
            parts.append(f"{done}/{total}")
        quiet_s = now - self._heard
        if quiet_s < QUIET_AFTER_S:
            return done, total, one_line(" ".join(parts))
        if parts:
            parts.append(f"(silent {quiet_s:.0f} s)")
        return done, None, one_line(" ".join(parts))
