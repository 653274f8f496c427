"""Power lost at each call that changes the disk: the tree is on an ext4 image of its own, which is
copied as it is at that moment, with nothing of what the kernel still holds; the copy is mounted.

Twice for each call: as it is, and after a commit of ext4's journal, which writes all names and sizes
and not the bytes that wait for their place. Only root may mount; FAULTS=all runs it.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from calls import ALL, Call, Point, Scenario, calls_of, needs_strace, scenarios, touches, traced
from mutants import mutant

from conftest import Tree

IMAGE_BYTES = 24 << 20
NO_FLUSH = ("artifact/publish.py", "            sync_file(engine)\n", "")
ATTEMPTS = 12  # a call's number moves on a busy machine; see test_calls.py
EVERY = int(os.environ.get("FAULTS_EVERY", "1"))  # each how-manyth call

pytestmark = [
    pytest.mark.skipif(not ALL, reason="FAULTS=all runs it"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount"),
    needs_strace,
    pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="mkfs.ext4 is not installed"),
]


class Disk:
    """An ext4 image with a tree on it, as a scenario has it. path: where it is mounted."""

    def __init__(self, room: Path, scenario: Scenario) -> None:
        self._room, self._scenario = room, scenario
        self._clean = room / f"{scenario.name}.img"
        self.path = room / "disk"
        self.path.mkdir(exist_ok=True)
        with open(self._clean, "wb") as out:
            out.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._clean], check=True)
        self._mount(self._clean)
        scenario.copy(self.path / "tree")
        self._unmount()

    def calls(self) -> list[Call]:
        """The calls that change the disk, in order."""
        tree, image = self._fresh()
        log = self._room / "log"
        _, lines = traced(tree, log=log)
        self._unmount()
        image.unlink()
        return [call for call in calls_of(tree.root, lines) if call.mutates]

    def lose_power(self, call: Call, journal: bool) -> str | None:
        """What is wrong when the power goes at `call`. Raises LookupError when it went elsewhere."""
        tree, image = self._fresh()
        run, lines = traced(tree, "signal=SIGKILL", call, self._room / "log")
        last = lines[-2] if len(lines) > 1 else ""
        if journal:
            with open(self.path / "elsewhere", "w") as other:
                other.write("x")
                os.fsync(other.fileno())
        after = self._room / "after.img"
        shutil.copyfile(image, after)
        self._unmount()
        image.unlink()
        if not touches(tree.root, last):
            raise LookupError(str(call))
        self._mount(after)
        problem = self._scenario.check_up_to_date(tree, run, Point(call, "signal=SIGKILL"))
        self._unmount()
        when = "with the journal" if journal else "as it was"
        return problem and f"{self._scenario.name}, {when}, {call}:\n  {problem}"

    def _fresh(self) -> tuple[Tree, Path]:
        image = self._room / "now.img"
        shutil.copyfile(self._clean, image)
        self._mount(image)
        tree = Tree.__new__(Tree)
        tree.root, tree.environment = self.path / "tree", self._scenario.template.environment
        return tree, image

    def _mount(self, image: Path) -> None:
        # Without ext4's guesses about programs that do not flush.
        command = ["mount", "-o", "loop,noauto_da_alloc", image, self.path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop device here: {done.stderr.strip()}")

    def _unmount(self) -> None:
        subprocess.run(["umount", self.path], check=True)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("power")


@pytest.fixture(scope="module")
def every(room) -> dict[str, Scenario]:
    return scenarios(room)


def problems_of(disk: Disk, calls: list[Call]) -> tuple[int, list[str]]:
    tried, problems = 0, []
    for call in calls:
        for journal in (False, True):
            for _ in range(ATTEMPTS):
                try:
                    problem = disk.lose_power(call, journal)
                    break
                except LookupError:
                    continue
            else:
                problem = f"{call}: the power never went where it should"
            tried += 1
            problems += [problem] if problem else []
    return tried, problems


@pytest.mark.parametrize("name", ["first", "rebuild", "adopt", "adopt-half"])
def test_power_lost_at_each_call_that_changes_the_disk(every, room, name: str, capsys) -> None:
    disk = Disk(room, every[name])
    tried, problems = problems_of(disk, disk.calls()[::EVERY])
    with capsys.disabled():
        print(f"\n{name}: power lost {tried} times", flush=True)
    assert not problems, f"{len(problems)} of {tried}:\n" + "\n".join(problems)


def test_an_engine_that_is_not_flushed_is_found_out(every, room, tmp_path) -> None:
    """The test itself can fail: ext4 would give a name to an engine of no bytes."""
    scenario = every["first"]
    tree = Tree.__new__(Tree)
    tree.root = scenario.template.root
    site = str(mutant(tmp_path, NO_FLUSH))
    tree.environment = {**scenario.template.environment, "PYTHONPATH": site}
    disk = Disk(room, replace(scenario, name="mutant", template=tree))
    calls = disk.calls()
    moved = next(n for n, call in enumerate(calls) if call.name == "rename" and '.engine"' in call.text)
    _, problems = problems_of(disk, calls[moved + 1 : moved + 6])
    assert any("half a pair" in problem for problem in problems), problems
