"""What a worker says while it compiles: short messages by way of the scheduler.

A scheduler keeps what was said under a topic for ever, up to a length; so topics are few, and each
message names its key.
"""

from __future__ import annotations

TOPICS = 64
TASK = "scons-tensorrt-"  # how the names of our tasks begin


def topic_of(key: str) -> str:
    return f"scons-tensorrt {int(key[:8], 16) % TOPICS}"


def task_of(key: str, attempt: int = 0) -> str:
    """The name of a compile for the scheduler: whoever asks for the same gets the same."""
    return f"{TASK}{key}" + (f"-{attempt}" if attempt else "")
