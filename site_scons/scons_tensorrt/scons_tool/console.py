"""Writes lines to standard output, and events to the state folder. Their texts: run_messages.py."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..errors import one_line
from .stop_signal import fail_run

EVENTS_BYTES = 8 << 20  # then the file is renamed to events.1.jsonl
_GREEN, _RED, _YELLOW, _CYAN, _DIM = "32", "31", "33", "36", "2"
_COLORS = {
    **dict.fromkeys(("BUILT", "PREPARED", "CONVERTED", "CHECKED", "FETCHED", "DISPATCHED"), _GREEN),
    **dict.fromkeys(("WROTE", "INSTALLED", "PRUNED"), _GREEN),
    **dict.fromkeys(("INTERRUPTED", "WAITING"), _YELLOW),
    **dict.fromkeys(("WOULD", "SENT"), _CYAN),
    "FAILED": _RED,
    "REUSED": _DIM,
}


class Console:
    """Lines and events of one run.

    quiet: `-s`; silent: nothing at all (`-q`, `-h`, `-c`).
    """

    def __init__(self, quiet: bool, silent: bool) -> None:
        self._quiet = quiet
        self._silent = silent
        self._lock = threading.Lock()
        self.run = os.urandom(6).hex()
        self._pending: list[str] = []
        self._unlogged: list[str] = []  # events of what would be done
        self._last = (0, "")
        self.on_event: Callable[[Mapping[str, Any]], None] | None = None  # of the profile

    @property
    def speaks(self) -> bool:
        """Whether anything but failures is printed."""
        return not (self._silent or self._quiet)

    def line(self, text: str, failure: bool = False) -> None:
        """Print one line in one write; under `-s` only failures, to standard error."""
        self.lines([text], failure)

    def lines(self, texts: Iterable[str], failure: bool = False) -> None:
        """Print several lines in one write."""
        if self._silent or (self._quiet and not failure):
            return
        with self._lock:
            say(*texts, stream=sys.stderr if self._quiet else sys.stdout)

    def event(self, name: str, **fields: Any) -> None:
        """Record an event, written by `flush`."""
        with self._lock:
            self._pending.append(self._event_line(name, fields))
        if self.on_event:
            self.on_event(fields)

    def would(self, name: str, **fields: Any) -> None:
        """Record what would be done, which only `copy` writes."""
        with self._lock:
            self._unlogged.append(self._event_line(name, fields))

    def _event_line(self, name: str, fields: dict[str, Any]) -> str:
        head = {"event": name, "time": self.stamp(time.time()), "run": self.run}
        return json.dumps({**head, **fields}) + "\n"

    def stamp(self, when: float) -> str:
        """A time in seconds since the epoch as in events: UTC, to the millisecond."""
        second, text = self._last
        if int(when) != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))
            self._last = int(when), text
        return f"{text}.{int(when * 1000) % 1000:03}Z"

    def copy(self, file: str | None) -> None:
        """Write the events that are not flushed yet to a file, if there is one."""
        if file:
            with self._lock, open(file, "w", encoding="utf-8") as out:
                out.writelines([*self._pending, *self._unlogged])

    def flush(self, events: Path) -> None:
        """Append the events in one write, so that two runs do not interleave. Raises OSError."""
        with self._lock:
            lines, self._pending = self._pending, []
        if not lines:
            return
        events.parent.mkdir(parents=True, exist_ok=True)
        try:
            if events.stat().st_size > EVENTS_BYTES:
                os.replace(events, events.with_name("events.1.jsonl"))
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(events, flags, 0o666), "ab", buffering=0) as out:
            out.write("".join(lines).encode("utf-8"))


def say(*texts: str, stream: TextIO | None = None) -> None:
    """Print lines, the first word in colour on a terminal, replacing what the stream cannot encode;
    without lines, only flush. A closed pipe (`| head`) is ignored; a full disk is reported once and
    fails the run."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    try:
        lines = [one_line(text) + "\n" for text in texts]
        if terminal(stream) is not None and not os.environ.get("NO_COLOR"):
            lines = [_colored(line) for line in lines]
        stream.write("".join(lines).encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        _drop(stream)
    except OSError as error:
        _drop(stream)
        if stream is not sys.stderr:
            say(f"engines: standard output: {error.strerror}; make room for it", stream=sys.stderr)
        fail_run()


def _colored(line: str) -> str:
    """The line with its first word in colour, if that is one of ours."""
    word, space, rest = line.partition(" ")
    color = _RED if line.startswith("WOULD FAIL ") else _COLORS.get(word)
    return f"\x1b[{color}m{word}\x1b[0m{space}{rest}" if color else line


def terminal(stream: TextIO) -> int | None:
    """The descriptor of a terminal that can show colours and bars; None for a file, a pipe, CI or a dumb
    terminal."""
    try:
        if not stream.isatty() or os.environ.get("CI", "").lower() not in ("", "0", "false"):
            return None
        return None if os.environ.get("TERM", "") in ("", "dumb", "unknown") else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _drop(stream: TextIO) -> None:
    """Redirect a stream, and what it has buffered, to /dev/null."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
