"""What a worker tells while it compiles: what changed, the log in pieces, and not for ever."""

from __future__ import annotations

import time

from scons_tensorrt.remote import compile_on_worker as module
from scons_tensorrt.remote.compile_on_worker import ProgressPublisher


def test_what_changes_is_told_with_the_log_and_no_field_that_dask_sets(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    said: list[dict] = []
    log = tmp_path / "log"
    log.write_bytes(b"x" * (module.MOST + 10))
    teller = ProgressPublisher(lambda **fields: said.append(fields), "bench")
    teller.started(log)
    teller.begin("COMPILING", "a").update(1, 4, "phase")
    end = time.monotonic() + 10
    while sum(len(each.get("log", "")) for each in said) < module.MOST and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    teller.end()
    assert said[0] == {"started": "bench"}
    assert {each["by"] for each in said[1:]} == {"bench"}
    assert said[-1]["doing"] == [1, 4, "phase"]
    assert sum(len(each["log"]) for each in said[1:]) == module.MOST  # the rest comes with the result
    assert len(said) == 1 + module.MOST // module.PIECE
    assert not any("worker" in each for each in said)
