"""Reads the profile of a run, and checks it against the Trace Event Format and the rules of Perfetto."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

CHAIN = "longest chain"


@dataclass(eq=False)
class Slice:
    """A slice with those inside it. ts, dur: microseconds."""

    name: str
    kind: str
    ts: int
    dur: int
    args: dict[str, Any]
    inner: list[Slice] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.ts + self.dur

    def walk(self) -> list[Slice]:
        return [self, *(each for slice in self.inner for each in slice.walk())]

    def stages(self) -> list[str]:
        return [each.name for each in self.inner if each.kind == "stage"]


@dataclass
class Trace:
    """tracks: the outermost slices of each, in order; facts: of the run; jobs: the counter."""

    tracks: dict[str, list[Slice]]
    facts: dict[str, Any]
    jobs: list[int]

    def all(self) -> list[Slice]:
        """Every slice, without the copies on the track of the chain."""
        tracks = [slices for name, slices in self.tracks.items() if name != CHAIN]
        return [each for slices in tracks for slice in slices for each in slice.walk()]

    def of(self, kind: str) -> list[Slice]:
        return [each for each in self.all() if each.kind == kind]

    def named(self, part: str) -> Slice:
        """The one slice that has `part` in its name and is no check."""
        (found,) = [each for each in self.all() if part in each.name and each.kind != "check"]
        return found

    def engine(self, model: str) -> Slice:
        """The task of an engine."""
        (found,) = [each for each in self.of("task") if f"/{model}__" in each.name]
        return found


def read_trace(path: Path) -> Trace:
    """The profile at `path`. Fails where it breaks the format, and where two slices of a track overlap
    without one being inside the other, which Perfetto drops."""
    data = json.loads(path.read_text(encoding="utf-8"))
    assert set(data) == {"displayTimeUnit", "otherData", "traceEvents"}
    names: dict[int, str] = {}
    slices: dict[int, list[Slice]] = {}
    jobs = [0]
    for event in data["traceEvents"]:
        assert event["pid"] == 1
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            if event["name"] == "thread_name":
                names[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "C":
            jobs.append(event["args"]["running"])
        else:
            assert event["ph"] == "X"
            assert type(event["ts"]) is type(event["dur"]) is int
            assert min(event["ts"], event["dur"]) >= 0
            more = event["ts"], event["dur"], event.get("args", {})
            slices.setdefault(event["tid"], []).append(Slice(event["name"], event["cat"], *more))
    assert len(set(names.values())) == len(names)
    assert slices.keys() == names.keys()
    return Trace({names[at]: nested(each) for at, each in slices.items()}, data["otherData"], jobs)


def nested(slices: list[Slice]) -> list[Slice]:
    """The outermost slices of a track, with the others inside them."""
    top: list[Slice] = []
    around: list[Slice] = []
    for each in sorted(slices, key=lambda slice: (slice.ts, -slice.dur)):  # as Perfetto does
        while around and _is_after(each, around[-1]):
            around.pop()
        if around:
            assert each.end <= around[-1].end, f"{each.name} ends after {around[-1].name}"
        (around[-1].inner if around else top).append(each)
        around.append(each)
    assert all(one.end <= other.ts for one, other in pairwise(top))
    return top


def _is_after(later: Slice, slice: Slice) -> bool:
    """Whether a slice is after another, not inside it. Of two that take no time, the second is inside."""
    return slice.end < later.ts or (slice.end == later.ts and bool(slice.dur or later.dur))
