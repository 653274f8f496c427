"""What client and worker exchange: the Dask task, its answer, and the names of tasks and topics.

Both import this module, because Dask sends the function by name. Workers send progress messages through
topics of the scheduler.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ..errors import DispatchError
from ..values import Value
from .plain_data import line

OUTCOMES = ("made", "there", "failed")
MOST = 2 << 20  # characters of an answer
MOST_LOG = 512 << 10  # characters
TOPICS = 64  # few, because a scheduler never forgets a topic; each message names its key


def topic_of(key: str) -> str:
    return f"scons-tensorrt {int(key[:8], 16) % TOPICS}"


def task_of(key: str, attempt: int = 0) -> str:
    """The task name of a compile: requests for the same engine share one task."""
    return f"scons-tensorrt-{key}" + (f"-{attempt}" if attempt else "")


class Answer(Value):
    """A worker's answer: a JSON object of fixed shape.

    outcome: one of OUTCOMES; error_class, message: of a failure; seconds: compile time, None if nothing
    was compiled.
    """

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
            seconds = fields.get("seconds")
            if seconds is not None:
                if type(seconds) not in (int, float) or not 0 <= seconds <= sys.float_info.max:
                    raise TypeError
                seconds = float(seconds)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise DispatchError(
                "the worker's answer is malformed; does it run the same version of scons-tensorrt?"
            ) from None
        known = line(worker, 200), log[-MOST_LOG:], line(error_class, 80), line(message)
        return cls(fields["outcome"], *known, seconds)


def compile_action(digest: str, key: str) -> str:
    """Compile an action and upload its engine; returns the JSON text of an `Answer`."""
    from distributed import get_worker

    from .compile_on_worker import ProgressPublisher, executor

    worker = get_worker()
    topic = topic_of(key)
    publisher = ProgressPublisher(
        lambda **said: worker.log_event(topic, {"key": key, **said}), str(worker.name)
    )
    stopping = lambda: worker.status.name not in ("running", "init")  # noqa: E731
    try:
        said = executor().make(digest, key, publisher, stopping)
    except Exception as error:  # clients do not unpickle exceptions
        words = f"the worker failed: {type(error).__name__}: {error}"
        said = {"outcome": "failed", "error_class": "DispatchError", "message": words}
    return json.dumps({**said, "worker": publisher.name}, sort_keys=True)
