"""Publishes the progress and the log of a compile to waiting clients, at most once a second."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVERY_S = 1.0
PIECE, MOST = 4 << 10, 64 << 10  # bytes of the log: for each message, in total


class ProgressPublisher:
    """A `ProgressHandle` on the worker. say: sends fields; name: of the worker."""

    def __init__(self, say: Callable[..., None], name: str) -> None:
        self._say = say
        self.name = name
        self._doing: tuple[int | None, int | None, str] = (None, None, "")
        self._sent: Any = None
        self._log: Path | None = None
        self._read = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def started(self, log: Path) -> None:
        """The compile begins; it writes `log`."""
        self._log = log
        self._say(started=self.name)
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)
        self._thread.start()

    def begin(self, verb: str, label: str, short: str = "", unit: str = "") -> ProgressPublisher:
        """A `BeginProgress`."""
        return self

    def update(self, done: int | None = None, total: int | None = None, words: str = "") -> None:
        self._doing = (done, total, words)

    def end(self) -> None:
        self._ended.set()

    def _tell(self) -> None:
        while not self._ended.wait(EVERY_S):
            doing, text = self._doing, self._more()
            if doing != self._sent or text:
                self._sent = doing
                self._say(doing=list(doing), by=self.name, log=text)  # Dask sets `worker` itself

    def _more(self) -> str:
        """The next piece of the log."""
        if self._log is None or self._read >= MOST:
            return ""
        try:
            with open(self._log, "rb") as source:
                source.seek(self._read)
                data = source.read(PIECE)
        except OSError:
            return ""
        self._read += len(data)
        return data.decode("utf-8", "replace")
