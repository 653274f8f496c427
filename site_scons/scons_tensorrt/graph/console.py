"""What a run says: a line an engine, a summary last, and the same as events in the state folder."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

EVENTS_BYTES = 8 << 20  # then the file is set aside as events.1.jsonl


class Console:
    """Lines and events of one run.

    events: the file, or None when the run may not write; quiet: `-s`; silent: nothing at all
    (`-q`, `-h`, `-c`).
    """

    def __init__(self, events: Path | None, quiet: bool, silent: bool) -> None:
        self._events = events
        self._quiet = quiet
        self._silent = silent
        self._lock = threading.Lock()
        self._run = uuid.uuid4().hex[:12]
        self._pending: list[str] = []

    def line(self, text: str, failure: bool = False) -> None:
        """Print one line whole; under `-s` only failures, to standard error."""
        if self._silent or (self._quiet and not failure):
            return
        stream = sys.stderr if self._quiet else sys.stdout
        with self._lock:
            encoding = stream.encoding or "utf-8"
            stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            stream.flush()

    def event(self, name: str, **fields: Any) -> None:
        """Keep an event for `flush`."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
        line = json.dumps({"event": name, "time": stamp, "run": self._run, **fields})
        with self._lock:
            self._pending.append(line + "\n")

    def flush(self) -> None:
        """Append the events in one write, so that those of two runs do not mix. Raises OSError."""
        with self._lock:
            lines, self._pending = self._pending, []
        if not lines or self._events is None:
            return
        self._events.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self._events.stat().st_size > EVENTS_BYTES:
                os.replace(self._events, self._events.with_name("events.1.jsonl"))
        except FileNotFoundError:
            pass
        with open(self._events, "ab", buffering=0) as out:
            out.write("".join(lines).encode("utf-8"))
