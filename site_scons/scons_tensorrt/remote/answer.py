"""A worker's answer to a compile: a JSON object of fixed shape."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import DispatchError
from .plain_data import line

OUTCOMES = ("made", "there", "failed")
MOST = 2 << 20  # characters
MOST_LOG = 512 << 10  # characters


class Answer(NamedTuple):
    """outcome: one of OUTCOMES; error_class, message: of a failure; seconds: compile time, None if nothing
    was compiled."""

    outcome: str
    worker: str
    log: str = ""
    error_class: str = ""
    message: str = ""
    seconds: float | None = None

    @classmethod
    def read(cls, text: Any) -> Answer:
        """Parse an answer. Raises DispatchError."""
        try:
            if not isinstance(text, str) or len(text) > MOST:
                raise TypeError
            fields = json.loads(text)
            texts = [fields.get(name, "") for name in ("worker", "log", "error_class", "message")]
            if fields["outcome"] not in OUTCOMES or not all(isinstance(each, str) for each in texts):
                raise TypeError
            worker, log, error_class, message = texts
            seconds = _seconds(fields.get("seconds"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise DispatchError(
                "the worker's answer is malformed; does it run the same version of scons-tensorrt?"
            ) from None
        known = line(worker, 200), log[-MOST_LOG:], line(error_class, 80), line(message)
        return cls(fields["outcome"], *known, seconds)


def write_answer(said: Mapping[str, Any]) -> str:
    """said: the fields of an `Answer`."""
    return json.dumps(dict(said), sort_keys=True)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
        raise TypeError
    return float(value)
