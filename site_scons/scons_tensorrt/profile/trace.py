"""The profile of a run: its slices, in Chrome's Trace Event Format, and what they say in a few lines.

Perfetto and chrome://tracing open the file. Of a slice, the format has its start and duration in
microseconds, here whole ones since the start of the process. On one track slices nest or do not meet;
Perfetto drops others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..errors import plural
from ..values import Value

PHASE, TASK, STAGE, CHECK, WORK = "phase", "task", "stage", "check", "work"
MAIN, CHAIN = "SCons", "longest chain"
SHOWN = 5  # steps of the chain in the summary
_HEAD = '{"displayTimeUnit":"ms","otherData":{"program":"scons-tensorrt"'


@dataclass(eq=False)
class Slice:
    """What a thread did. kind: PHASE of the run, TASK of SCons that runs an action, STAGE of the slice
    around it, CHECK whether something is up to date, or other WORK; began, ended: of the monotonic clock,
    in seconds; needs: tasks that made its inputs."""

    track: str
    name: str
    kind: str
    began: float
    ended: float = 0.0
    args: dict[str, Any] = field(default_factory=dict)
    needs: tuple[Slice, ...] = ()

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Link(Value):
    """A step of the longest chain. why: it began when its "input" was made, when a "job" was free, or with
    the "build"."""

    task: Slice
    why: str


class Figures(Value):
    """What a profile says of a run. phases: seconds by name, in order; their sum is the wall time; busy: the
    share of the jobs' time in which an action ran, from 0 to 1; jobs: of -j; cpu_s: of all processes;
    cores: that they could use."""

    phases: Mapping[str, float]
    chain: tuple[Link, ...]
    busy: float
    jobs: int
    cpu_s: float
    cores: int

    @property
    def wall_s(self) -> float:
        return sum(self.phases.values())

    def lines(self) -> Iterator[str]:
        """The summary, as printed."""
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.phases.items())
        cores = self.cpu_s / self.wall_s if self.wall_s else 0.0
        ran = f"actions ran in {self.busy:.0%} of the time of {plural(self.jobs, 'job')}; " * bool(self.chain)
        yield f"profile: {self.wall_s:.2f} s: {parts}; {ran}{cores:.1f} of {plural(self.cores, 'core')} busy"
        whole = sum(link.task.seconds for link in self.chain)
        if whole:
            notable = [link for link in self.chain if link.task.seconds >= whole / 100]
            longest = sorted(notable, key=lambda link: -link.task.seconds)[:SHOWN]
            named = [f"{link.task.name} {link.task.seconds:.2f}" for link in self.chain if link in longest]
            rest = len(self.chain) - len(named)
            more = f" and {rest} more" if rest else ""
            yield f"profile: {CHAIN} {whole:.2f} s: {' → '.join(named)}{more}"


def figures(slices: Sequence[Slice], jobs: int, cpu_s: float, cores: int) -> Figures:
    """The figures of a run whose slices have all ended."""
    phases = {each.name: each.seconds for each in slices if each.kind == PHASE}
    tasks = [each for each in slices if each.kind == TASK]
    build_s = phases.get("build", 0.0) * jobs
    busy = min(1.0, sum(each.seconds for each in tasks) / build_s) if build_s else 0.0
    return Figures(phases, tuple(_chain(tasks)), busy, jobs, cpu_s, cores)


def _chain(tasks: Sequence[Slice]) -> list[Link]:
    """The tasks that determined when the last one ended: each waited for the one before it, because that
    made an input of it or because it had the job."""
    by_track: dict[str, list[Slice]] = {}
    for each in sorted(tasks, key=lambda task: task.began):
        by_track.setdefault(each.track, []).append(each)
    before = {each: last for track in by_track.values() for last, each in pairwise(track)}
    found: list[Link] = []
    task = max(tasks, key=lambda task: task.ended, default=None)
    while task is not None:
        began, inputs, previous = task.began, task.needs, before.get(task)
        asked = [*inputs, *([previous] if previous else [])]
        asked = [each for each in asked if each.ended <= began]
        last = max(asked, key=lambda each: (each.ended, each in inputs), default=None)
        found.append(Link(task, "build" if last is None else "input" if last in inputs else "job"))
        task = last
    return found[::-1]


def is_profile(head: bytes) -> bool:
    """Whether a file that begins with `head` is a profile."""
    return not head or head.startswith(_HEAD.encode())


def to_json(slices: Sequence[Slice], found: Figures, about: Mapping[str, Any]) -> Iterator[str]:
    """The file's text, in pieces. about: further facts of the run."""
    start = min((each.began for each in slices), default=0.0)
    facts = {
        **about,
        "seconds": {name: round(seconds, 6) for name, seconds in found.phases.items()},
        "cpu_seconds": round(found.cpu_s, 3),
        "cores": found.cores,
        "jobs": found.jobs,
        "busy": round(found.busy, 4),
        "longest_chain": [
            {"name": link.task.name, "seconds": round(link.task.seconds, 6), "waited_for": link.why}
            for link in found.chain
        ],
    }
    yield f"{_HEAD},{json.dumps(facts)[1:]},\n"
    yield '"traceEvents":[\n'
    events = _events(slices, found, start)
    yield json.dumps(next(events))
    for event in events:
        yield ",\n" + json.dumps(event)
    yield "\n]}\n"


def _events(slices: Sequence[Slice], found: Figures, start: float) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "scons"}}
    names = [CHAIN] * bool(found.chain) + list(dict.fromkeys(each.track for each in slices))
    tracks = {name: at for at, name in enumerate(sorted(names, key=lambda name: name != MAIN), 1)}
    for at, name in enumerate(sorted(names, key=_order)):
        track = {"ph": "M", "pid": 1, "tid": tracks[name]}
        yield {**track, "name": "thread_name", "args": {"name": name}}
        yield {**track, "name": "thread_sort_index", "args": {"sort_index": at}}
    for link in found.chain:
        yield _event(link.task, tracks[CHAIN], start, {"waited_for": link.why, "on": link.task.track})
    for each in sorted(slices, key=lambda each: (each.began, -each.ended)):
        yield _event(each, tracks[each.track], start, each.args)
    yield from _counter("jobs", [each for each in slices if each.kind == TASK], start)


def _order(track: str) -> tuple[int, str, int]:
    """Where a track stands: the chain, SCons itself, jobs, uploads."""
    word, _, number = track.partition(" ")
    first = {CHAIN: 0, MAIN: 1}.get(track, 2 if word == "job" else 3)
    return first, word, int(number) if number.isdigit() else 0


def _event(each: Slice, track: int, start: float, args: Mapping[str, Any]) -> dict[str, Any]:
    # Both ends are rounded down, so that what was inside another slice stays inside.
    began, ended = (int((at - start) * 1e6) for at in (each.began, each.ended))
    what = {"ph": "X", "pid": 1, "tid": track, "name": each.name, "cat": each.kind}
    return {**what, "ts": began, "dur": ended - began, **({"args": args} if args else {})}


def _counter(name: str, slices: Iterable[Slice], start: float) -> Iterator[dict[str, Any]]:
    """How many of the slices were open, at each change."""
    changes: dict[int, int] = {}
    for each in slices:
        for at, change in ((each.began, 1), (each.ended, -1)):
            moment = int((at - start) * 1e6)
            changes[moment] = changes.get(moment, 0) + change
    count = 0
    for moment, change in sorted(changes.items()):
        count += change
        if change:
            yield {"ph": "C", "pid": 1, "name": name, "ts": moment, "args": {"running": count}}
