"""That the machine finds what it is there for: each mutant of the package must fail it.

A history that shows the fault runs always for the cheap ones; FAULTS=all shows all, and lets the
machine find each by itself.
"""

from pathlib import Path

import pytest
from calls import ALL, needs_strace
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Machine, World
from mutants import MUTANTS, mutant


def tampered_with_its_old_mtime(world: World) -> None:
    world.build()
    world.build()  # the memo believes a file only from a clock tick after its ctime
    world.tamper("a", "flip a byte", sidecar=False, keep_mtime=True)
    world.build()


def rebuilt(world: World) -> None:
    world.build()
    world.edit("a", 2, keep_mtime=False)
    world.build()


def killed_at_each_rename(world: World) -> None:
    for when in range(1, 7):
        world.edit("a", when % 3, keep_mtime=False)
        world.build_killed_at("rename", when)
        world.build()


def two_at_once(world: World) -> None:
    world.build_twice_at_once()


HISTORIES = dict(
    zip(MUTANTS, (tampered_with_its_old_mtime, rebuilt, killed_at_each_rename, two_at_once), strict=True)
)
CHEAP = list(MUTANTS)[:2]


def play(name: str, site: Path | None) -> None:
    world = World(site) if site else World()
    try:
        HISTORIES[name](world)
    finally:
        world.close()


@needs_strace
@pytest.mark.parametrize("name", MUTANTS if ALL else CHEAP)
def test_a_history_shows_a_mutant_and_passes_without_it(tmp_path, name: str) -> None:
    play(name, None)
    with pytest.raises(AssertionError) as caught:
        play(name, mutant(tmp_path, MUTANTS[name]))
    print(f"{name}: {str(caught.value).splitlines()[0]}")


@needs_strace
@pytest.mark.skipif(not ALL, reason="FAULTS=all lets the machine search")
@pytest.mark.parametrize("name", MUTANTS)
def test_the_machine_finds_a_mutant_by_itself(tmp_path, name: str) -> None:
    class Mutant(Machine):
        site = mutant(tmp_path, MUTANTS[name])

    found = settings(
        max_examples=200,
        stateful_step_count=30,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Mutant, settings=found)
    print(f"{name}: {str(caught.value).splitlines()[0]}")
