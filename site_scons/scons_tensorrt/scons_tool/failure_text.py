"""The text of what failed: its place, and each cause in full only once."""

from __future__ import annotations

import re
import traceback

from ..errors import EngineBuildError, one_line
from . import settings
from .call_errors import SEE_STACK
from .target import Target

_LOG = re.compile(r"; log: \S+$")


class Failures:
    """The errors of a run that were printed."""

    def __init__(self) -> None:
        self._causes: set[tuple[str, str]] = set()  # error class and message

    def text(self, target: Target, error: Exception) -> str:
        """A target, its place, and the text of its error: in full the first time, then a reference."""
        name, place = type(error).__name__, target.place_of(error)
        text = f"{name}: {error}"
        if not self.is_new(error, target):
            log = _LOG.search(str(error))
            text = f"{name}, see error above{log[0] if log else ''}"
        return f"{target.label}: {place}: {text}" if place else f"{target.label}: {text}"

    def is_new(self, error: Exception, target: Target) -> bool:
        """Whether the error was not printed yet, for this or another target, each with its own log and
        temporary files."""
        text = _LOG.sub("", str(error))
        for own in (str(target.path), target.label, target.path.name, target.path_id):
            text = text.replace(own, "…")
        cause = type(error).__name__, text
        known = cause in self._causes
        self._causes.add(cause)
        return not known

    def has(self, text: str) -> bool:
        """Whether an error with this text in it was printed."""
        return any(text in cause for _, cause in self._causes)


def unexpected(target: Target, error: Exception) -> EngineBuildError:
    """An error of a target that no message was written for."""
    return EngineBuildError(f"{target.label}: {in_one_line(error, 'check the paths of its inputs')}")


def in_one_line(error: Exception, *steps: str) -> str:
    """An error that no message was written for; --debug=stacktrace prints its stack."""
    if "stacktrace" in settings.option("debug"):
        traceback.print_exception(error)
    return "; ".join((f"{type(error).__name__}: {one_line(str(error))}", *steps, SEE_STACK))
