"""What a profile says of a run: phases, the longest chain, and the file."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from traces import read_trace

from scons_tensorrt.profile.trace import PHASE, TASK, Slice, figures, is_profile, to_json


def task(name: str, began: float, ended: float, track: str = "job 1", *needs: Slice) -> Slice:
    return Slice(track, name, TASK, began, ended, {}, needs)


def phases(start: float, build: float, end: float) -> list[Slice]:
    bounds = {"start": (0.0, start), "build": (start, build), "end": (build, end)}
    return [Slice("SCons", name, PHASE, *both) for name, both in bounds.items()]


def chain(*tasks: Slice) -> list[tuple[str, str]]:
    return [(link.task.name, link.why) for link in figures(tasks, 2, 1.0, 2).chain]


def test_the_chain_goes_from_input_to_input() -> None:
    one = task("one", 0, 4, "job 1")
    other = task("other", 0, 3, "job 2")
    assert chain(one, other, task("last", 4, 9, "job 2", one, other)) == [("one", "build"), ("last", "input")]


def test_a_task_that_waited_for_a_free_job_follows_that_one() -> None:
    first = task("first", 0, 2, "job 2")
    assert chain(first, task("slow", 0, 5), task("next", 5, 6, "job 1", first)) == [
        ("slow", "build"),
        ("next", "job"),
    ]


def test_without_tasks_there_is_no_chain() -> None:
    found = figures(phases(1.0, 3.0, 3.5), 2, 1.75, 4)
    (line,) = found.lines()
    assert line == "profile: 3.50 s: start 1.00, build 2.00, end 0.50; 0.5 of 4 cores busy"


def test_the_summary_names_the_longest_steps_of_the_chain_in_their_order() -> None:
    tasks = [task(f"t{i}", 1 + i, 2 + i - 0.1 * (i % 2)) for i in range(6)]
    tasks += [task("tiny", 8.0, 8.001)]
    found = figures([*phases(1.0, 9.0, 9.0), *tasks], 1, 9.0, 2)
    line, longest = found.lines()
    assert "actions ran in 71% of the time of 1 job; 1.0 of 2 cores busy" in line
    assert longest.startswith("profile: longest chain 5.70 s: t0 1.00 → ")
    assert longest.endswith(" and 2 more")
    assert re.findall(r"t\d", longest) == sorted(re.findall(r"t\d", longest))


MICROSECONDS = st.integers(0, 10**7)


@given(times=st.lists(st.tuples(*[MICROSECONDS] * 3, st.sampled_from(["job 1", "job 2"])), max_size=12))
def test_slices_of_the_file_nest_and_the_chain_never_overlaps(times: list, tmp_path_factory) -> None:
    slices, free = phases(0.5, 250.0, 251.0), {"job 1": 500_000, "job 2": 500_000}
    for number, (wait, first, second, track) in enumerate(times):
        began = free[track] + wait
        middle, ended = began + first, began + first + second
        free[track] = ended
        needs = [each for each in slices[3:] if each.ended <= began / 1e6]
        slices.append(task(f"t{number}", began / 1e6, ended / 1e6, track, *needs))
        slices.append(Slice(track, "a", "stage", began / 1e6, middle / 1e6))
        slices.append(Slice(track, "b", "stage", middle / 1e6, ended / 1e6))
    path = Path(tmp_path_factory.mktemp("trace")) / "p.json"
    path.write_text("".join(to_json(slices, figures(slices, 2, 1.0, 2), {"run": "x"})))
    trace = read_trace(path)
    assert len(trace.all()) == len(slices)
    assert trace.jobs[-1] == 0
    assert is_profile(path.read_bytes()[:256])


def test_other_files_are_no_profiles() -> None:
    assert is_profile(b"")
    assert not is_profile(b'{"displayTimeUnit":"ms","otherData":{"program":"bazel"')
    assert not is_profile(b"ONNX")
