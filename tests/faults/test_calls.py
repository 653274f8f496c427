"""A fault at each system call that touches engines or state folder; see docs/faults.md.

A sample runs always; `FAULTS=all pytest tests/faults -s` tries every fault at every call.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from calls import ALL, MUTATES, Call, Point, Scenario, hit, needs_strace, scenarios

SAMPLE = int(os.environ.get("FAULTS_SAMPLE", "5"))  # points of each scenario
SEED = int(os.environ.get("FAULTS_SEED", "6"))
NAMES = ["first", "rebuild", "adopt", "adopt-half", "reuse", "return", "conversion", "prune"]
ATTEMPTS = 8  # a call's number moves when a file is hashed once more, within a clock tick of its ctime

pytestmark = needs_strace


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def every(room) -> dict[str, Scenario]:
    return scenarios(room)


def sample(points: list[Point]) -> list[Point]:
    """Most of them where something is written: between two of those nothing changes on disk."""
    chosen = random.Random(SEED)
    writes = [point for point in points if point.call.mutates]
    reads = [point for point in points if not point.call.mutates]
    reads = chosen.sample(reads, min(len(reads), SAMPLE // 4))
    return reads + chosen.sample(writes, min(len(writes), SAMPLE - len(reads)))


@pytest.mark.parametrize("name", NAMES)
def test_no_fault_at_any_call_leaves_half_a_pair_or_loses_a_compile(every, room, name, capsys) -> None:
    scenario = every[name]
    points = scenario.points(room)
    tried = points if ALL else sample(points)

    def attempt(numbered: tuple[int, Point]) -> str | None:
        number, point = numbered
        for turn in range(ATTEMPTS):
            try:
                return scenario.attempt(point, room / f"{name}-{number}-{turn}")
            except LookupError:
                continue
        return f"{name}: {point}: the fault never came where it should"

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        problems = [problem for problem in pool.map(attempt, enumerate(tried)) if problem]
    calls = len({point.call for point in points})
    with capsys.disabled():
        print(f"\n{name}: {len(tried)} of {len(points)} faults at {calls} calls tried", flush=True)
    assert not problems, f"{len(problems)} of {len(tried)}:\n" + "\n".join(problems)


def test_the_sweep_knows_every_kind_of_call_that_publishing_makes(every, room) -> None:
    """Guards the sweep itself: a filter that is too narrow would find nothing and say so of all."""
    calls = {point.call for point in every["rebuild"].points(room)}
    names = {call.name for call in calls}
    assert {"openat", "write", "fsync", "rename", "mkdir", "unlink", "flock", "read", "close"} <= names
    renamed = [call.text for call in calls if call.name == "rename"]
    for target in ('.engine"', '.engine.sha256"', '.json"', '.sconsign.dblite"'):
        assert any(target in text for text in renamed)


@pytest.mark.parametrize(
    ("text", "mutates"),
    [('openat(AT_FDCWD, "/x", O_RDONLY)', False), ('openat(AT_FDCWD, "/x", O_WRONLY|O_CREAT)', True),
     ('rename("/a", "/b")', True), ("newfstatat(3)", False), ("read(3)", False)],
)  # fmt: skip
def test_which_calls_change_the_disk(text: str, mutates: bool) -> None:
    assert bool(MUTATES.match(text)) is mutates


def test_a_kill_elsewhere_is_not_taken_for_one_at_the_folders(tmp_path) -> None:
    lines = ['openat(AT_FDCWD, "/elsewhere", O_RDONLY) = ?', "+++ killed by SIGKILL +++"]
    assert not hit(tmp_path, Call("openat", 1, ""), "signal=SIGKILL", lines)
    lines[0] = f'openat(AT_FDCWD, "{tmp_path}/engines", O_RDONLY) = ?'
    assert hit(tmp_path, Call("openat", 1, ""), "signal=SIGKILL", lines)
