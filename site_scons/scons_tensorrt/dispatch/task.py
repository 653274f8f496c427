"""What runs on a worker: Dask finds it by its name, so it stands in a module that both sides have."""

from __future__ import annotations

from typing import Any


def compile_action(digest: str, key: str) -> dict[str, Any]:
    """Have the engine of an action in the store; what became of it: `outcome` is "made", "there" or
    "failed", then with `error_class` and `message`; `seconds` of the compile, `worker`, `log`."""
    from distributed import get_worker

    from .bench import bench
    from .teller import Teller
    from .topics import topic_of

    worker = get_worker()
    topic = topic_of(key)
    teller = Teller(lambda **said: worker.log_event(topic, {"key": key, **said}), str(worker.name))
    return bench().make(digest, key, teller, lambda: worker.status.name not in ("running", "init"))
