"""The Dask task. Client and worker both import this module: Dask sends the function by name."""

from __future__ import annotations


def compile_action(digest: str, key: str) -> str:
    """Compile an action and upload its engine; returns the text of an `Answer`."""
    from distributed import get_worker

    from .answer import write_answer
    from .executor import executor
    from .progress_publisher import ProgressPublisher
    from .topics import topic_of

    worker = get_worker()
    topic = topic_of(key)
    publisher = ProgressPublisher(
        lambda **said: worker.log_event(topic, {"key": key, **said}), str(worker.name)
    )
    stopping = lambda: worker.status.name not in ("running", "init")  # noqa: E731
    try:
        return write_answer(executor().make(digest, key, publisher, stopping))
    except Exception as error:  # clients do not unpickle exceptions
        words = f"the worker failed: {type(error).__name__}: {error}"
        failed = {"outcome": "failed", "error_class": "DispatchError", "message": words}
        return write_answer({**failed, "worker": publisher.name})
