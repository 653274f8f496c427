"""Connects to a store with obstore, and says what its errors mean."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..errors import StoreError


def connect(url: str, patience_s: float, mkdir: bool) -> tuple[Any, Any]:
    """The obstore module and its store. patience_s: to connect, or until the next byte; mkdir: make the
    folder of a file:/// URL. Raises StoreError."""
    try:
        import obstore
        import obstore.store
    except ImportError:
        raise StoreError(
            "obstore is not installed: run `python3 -m pip install obstore cryptography`"
        ) from None
    wait = timedelta(seconds=patience_s)
    bucket = {
        # For a whole body, which may be gigabytes; read_timeout is for each piece.
        "client_options": {
            "timeout": timedelta(days=1),
            "connect_timeout": min(wait, timedelta(seconds=5)),
            "read_timeout": wait,
            "allow_http": True,  # only if the endpoint's URL says so
        },
        "retry_config": {
            "max_retries": 2,
            "retry_timeout": 3 * wait,
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
        },
    }
    try:
        more = {"mkdir": mkdir} if url.startswith("file:") else bucket
        return obstore, obstore.store.from_url(url, **more)
    except Exception as error:
        raise StoreError(in_words(error)) from None


def is_missing(error: Exception) -> bool:
    """Whether the object is missing; a missing bucket is an error."""
    absent = isinstance(error, FileNotFoundError) or type(error).__name__ == "NotFoundError"
    return absent and "NoSuchBucket" not in str(error)


def is_too_short(error: Exception) -> bool:
    """Whether the object ends before the requested range."""
    return any(words in str(error) for words in ("416 Range Not Satisfiable", "range was invalid"))


def is_kept(error: Exception) -> bool:
    """Whether a conditional write found an object."""
    return type(error).__name__ in ("AlreadyExistsError", "PreconditionError")


def is_unsupported(error: Exception) -> bool:
    """Whether the server has no conditional writes."""
    return type(error).__name__ in ("NotSupportedError", "NotImplementedError")


def in_words(error: Exception) -> str:
    """The error in one line, without its debug output."""
    text = str(error).split("\n\nDebug source")[0]
    if "<Message>" in text:
        message = text.split("<Message>")[1].split("<")[0]
        text = f"{text.split(': <?xml')[0]}: {message}"
    return " ".join(text.split())[:300] or type(error).__name__
