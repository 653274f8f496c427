"""Names of topics and tasks. Workers send progress messages through topics of the scheduler.

A scheduler never forgets a topic. So there are few, and each message names its key.
"""

from __future__ import annotations

TOPICS = 64
TASK = "scons-tensorrt-"  # prefix of task names


def topic_of(key: str) -> str:
    return f"scons-tensorrt {int(key[:8], 16) % TOPICS}"


def task_of(key: str, attempt: int = 0) -> str:
    """The task name of a compile: requests for the same engine share one task."""
    return f"{TASK}{key}" + (f"-{attempt}" if attempt else "")
