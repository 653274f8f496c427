"""One row of progress: what it is, how far, and how that is said."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import one_line

QUIET_AFTER_S = 2.0  # a pulse then says for how long nothing was heard


class ProgressRow(NamedTuple):
    """One row. done, total: None for a pulse; seconds: since it began; quiet_s: since it was last
    heard of."""

    verb: str
    label: str
    short: str
    unit: str
    words: str
    done: int | None
    total: int | None
    seconds: float
    quiet_s: float

    @property
    def pulses(self) -> bool:
        """Whether how far it is cannot be said, or has not changed for a while."""
        return not self.total or self.quiet_s >= QUIET_AFTER_S

    @property
    def doing(self) -> str:
        """In words: what, how far, and for how long it has said nothing."""
        parts = [self.words, self.counted if self.total else ""]
        if self.quiet_s >= QUIET_AFTER_S and (self.words or self.total):
            parts.append(f"(silent {clock(self.quiet_s)})")
        return one_line(" ".join(part for part in parts if part))

    @property
    def counted(self) -> str:
        if self.unit != "B":
            return f"{self.done}/{self.total}"
        return f"{_mb(self.done or 0)} of {_mb(self.total or 0)} MB"


def clock(seconds: float) -> str:
    """12 s, 4:05, 1:02:03."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
