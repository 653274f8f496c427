"""What runs on a worker: Dask finds it by its name, so it stands in a module that both sides have."""

from __future__ import annotations


def compile_action(digest: str, key: str) -> str:
    """Have the engine of an action in the store; what became of it, as `answer.Answer` reads it."""
    from distributed import get_worker

    from .answer import write_answer
    from .executor import bench
    from .progress_publisher import ProgressPublisher
    from .topics import topic_of

    worker = get_worker()
    topic = topic_of(key)
    teller = ProgressPublisher(lambda **said: worker.log_event(topic, {"key": key, **said}), str(worker.name))
    stopping = lambda: worker.status.name not in ("running", "init")  # noqa: E731
    try:
        return write_answer(bench().make(digest, key, teller, stopping))
    except Exception as error:  # whoever waits takes no exceptions
        words = f"the worker failed: {type(error).__name__}: {error}"
        failed = {"outcome": "failed", "error_class": "DispatchError", "message": words}
        return write_answer({**failed, "worker": teller.name})
