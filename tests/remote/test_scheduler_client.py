"""A scheduler that answers with an error, whatever its kind, fails an engine with one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed")

from scons_tensorrt.errors import DispatchError
from scons_tensorrt.remote.scheduler_client import SchedulerClient


def test_an_error_that_a_scheduler_answers_is_one_line_and_it_is_not_asked_again() -> None:
    asked = []

    async def identity() -> None:
        asked.append(1)
        raise RuntimeError("no\nidentity")

    link = SchedulerClient("tls://h:1", Path("certificates"), 0)
    link._client = SimpleNamespace(scheduler=SimpleNamespace(identity=identity))
    for _ in range(2):
        with pytest.raises(DispatchError, match=r"^lost the connection to tls://h:1: no identity$"):
            link.run(link.who(), lambda: False, "a")
    assert len(asked) == 1
