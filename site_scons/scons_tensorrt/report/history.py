"""Read runs from `events.jsonl`: what each did to each engine, and when.

Every run appends to the file. Runs may have been killed; damaged lines are skipped.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..files.reading import open_file
from ..files.untrusted_json import mapping, number, seconds, text

MOVED = ("downloaded", "uploaded", "not_downloaded")  # bytes of the shared cache in a run
MAX_BYTES = 64 << 20  # of one file of events
WORDS = ("reused", "built", "fetched", "found", "dispatched", "failed")  # outcomes of an engine


@dataclass
class Run:
    """One run. started, ended: seconds since the epoch; seconds, counts: from the run's summary; whole:
    whether the run wrote a summary; bytes: see MOVED; events: of engines and steps, in order."""

    id: str
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WORDS, 0))
    whole: bool = False
    bytes: dict[str, int] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def last_events(self) -> dict[str, dict[str, Any]]:
        """The last event of each engine and step, by path."""
        return {text(event.get("engine")): event for event in self.events}

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.id,
            "started": stamp(self.started),
            "seconds": round(self.seconds, 3),
            **self.counts,
            "whole": self.whole,
            "bytes": self.bytes,
        }


def parse_time(value: Any) -> float | None:
    """Seconds since the epoch of a time such as 2026-11-25T03:52:43.677Z; None for anything else."""
    for form in ("%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"):
        with contextlib.suppress(TypeError, ValueError):
            return datetime.strptime(value, form).timestamp()
    return None


def stamp(moment: float) -> str:
    """The inverse of `parse_time`, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def read_runs(events: Path, wanted: str | None = None) -> list[Run]:
    """The runs in `events.jsonl` and the rotated `events.1.jsonl`, oldest first.

    Only the last run, the one with the ID `wanted`, and runs that were killed have their events: each run of
    10,000 engines has as many.
    """
    runs: dict[str, Run] = {}
    whole: Run | None = None  # the last one with a summary, so far
    for path in (events.with_name("events.1.jsonl"), events):
        for event in _events(path):
            run = runs.setdefault(text(event.get("run"), 64), Run(text(event.get("run"), 64)))
            _add(run, event)
            if run.whole and run is not whole:
                older = min(filter(None, (run, whole)), key=lambda each: each.ended)
                if whole and older.id != wanted:
                    older.events.clear()
                whole = run if older is whole or whole is None else whole
    found = [_complete(run) for run in runs.values() if run.ended]
    return sorted(found, key=lambda run: run.ended)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError), open_file(path) as source:
        if os.fstat(source.fileno()).st_size > MAX_BYTES:
            return
        for line in io.BufferedReader(source):
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def _add(run: Run, event: dict[str, Any]) -> None:
    if event.get("event") != "engine.compile.summary":
        run.events.append(event)
        if not run.ended:
            run.started = run.ended = parse_time(event.get("time")) or 0.0
        return
    run.whole = True
    run.ended = parse_time(event.get("time")) or run.ended
    run.seconds = seconds(event.get("seconds")) or 0.0
    run.started = parse_time(event.get("started")) or run.ended - run.seconds
    for word in WORDS:
        run.counts[word] = int(number(event.get(word)) or 0)
    moved = mapping(event.get("bytes"))
    run.bytes = {name: int(number(moved[name]) or 0) for name in MOVED if name in moved}


def _complete(run: Run) -> Run:
    """Compute the summary of a run that wrote none."""
    if run.whole:
        return run
    starts = [parse_time(event.get("started")) for event in run.events]
    run.started = min([run.started, *(start for start in starts if start)])
    run.ended = max(parse_time(event.get("time")) or 0.0 for event in run.events)
    run.seconds = run.ended - run.started
    for path, event in run.last_events().items():
        outcome = text(event.get("outcome"))
        if outcome in run.counts and path.endswith(".engine"):
            run.counts[outcome] += 1
    return run


def spans(run: Run) -> list[dict[str, Any]]:
    """The steps and compiles of a run; starts in seconds since the start of the run."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in run.events:
        started, duration = parse_time(event.get("started")), seconds(event.get("duration_s"))
        if started is None or duration is None:
            continue
        path = text(event.get("engine"))
        found[path, _kind(path)] = {
            "of": path,
            "model": text(event.get("model_name")),
            "kind": _kind(path),
            "started_s": round(max(0.0, started - run.started), 3),
            "duration_s": duration,
            "compile_s": seconds(event.get("compile_duration_s")),
            "outcome": text(event.get("outcome")),
        }
    return sorted(found.values(), key=lambda span: (span["started_s"], span["of"]))


def _kind(path: str) -> str:
    name = os.path.basename(path)
    if name.endswith(".engine"):
        return "compile"
    return "check" if name.endswith(".accuracy.json") else "convert"
