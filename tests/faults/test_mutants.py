"""That the machine finds what it is there for: each mutant of the package must fail it.

A history that shows the fault runs always for the cheap ones; FAULTS=all shows all, and lets the
machine find each by itself.
"""

import os
import sys
from pathlib import Path

import pytest
from calls import ALL, needs_strace
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from machine import STEPS, Machine, World, variants
from mutants import MUTANTS, mutant

from conftest import REPO


def tampered_with_its_old_mtime(world: World) -> None:
    world.build()
    world.build()  # the memo believes a file only from a clock tick after its ctime
    world.tamper("a", "flip a byte", sidecar=False, keep_mtime=True)
    world.build()


def rebuilt(world: World) -> None:
    world.build()
    world.edit("a", 2, keep_mtime=False)
    world.build()


def with_another_model_meanwhile(world: World) -> None:
    world.build_while_exchanged(world.model("c"), variants()[0])


def with_a_step_tampered_with(world: World) -> None:
    world.build()
    world.harm_step(STEPS[0], "flip a byte", keep_mtime=True)
    world.build()


def with_samples_that_fail(world: World) -> None:
    world.build()
    world.edit_samples(2, keep_mtime=True)
    world.build()


def with_the_plugin_exchanged_and_put_back(world: World) -> None:
    world.build()
    world.edit_plugin(1, keep_mtime=True)
    world.build()
    world.checkout(world.commits[0])
    world.build()


def with_a_damaged_store(world: World) -> None:
    world.use_store("write")
    world.build()
    for number in range(len(world.store.files("cas"))):
        world.harm_store("cas", number, "flip a byte")
    world.clone_fetches()


def killed_at_each_rename(world: World) -> None:
    for when in range(1, 7):
        world.edit("a", when % 3, keep_mtime=False)
        world.build_killed_at("rename", when)
        world.build()


def two_at_once(world: World) -> None:
    world.build_twice_at_once()


HISTORIES = dict(
    zip(
        MUTANTS,
        (
            tampered_with_its_old_mtime,
            rebuilt,
            with_another_model_meanwhile,
            with_a_step_tampered_with,
            with_samples_that_fail,
            with_the_plugin_exchanged_and_put_back,
            with_a_damaged_store,
            killed_at_each_rename,
            two_at_once,
        ),
        strict=True,
    )
)
CHEAP = list(MUTANTS)[:7]


def play(name: str, site: Path | None) -> None:
    world = World(site) if site else World()
    try:
        HISTORIES[name](world)
    finally:
        world.close()


def test_the_package_has_the_texts_that_the_mutants_change() -> None:
    for change in MUTANTS.values():
        for name, old in zip(change[::3], change[1::3], strict=True):
            text = (REPO / "site_scons/scons_tensorrt" / name).read_text(encoding="utf-8")
            assert text.count(old) == 1, (name, old)


@needs_strace
@pytest.mark.parametrize("name", MUTANTS if ALL else CHEAP)
def test_a_history_shows_a_mutant_and_passes_without_it(tmp_path, name: str) -> None:
    play(name, None)
    site = mutant(tmp_path, MUTANTS[name])
    with pytest.raises(AssertionError) as caught:
        play(name, site)
    print(f"{name}: {str(caught.value).splitlines()[0]}")


EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "25"))


def searching(site: Path) -> tuple[type[Machine], list[tuple[int, int, str]]]:
    """A machine with a mutant, and the list to which it adds what it finds: in the how-manyth
    example, after how many steps of all examples, and what."""
    found: list[tuple[int, int, str]] = []

    class Mutant(Machine):
        examples = steps = 0

        def teardown(self) -> None:
            problem = sys.exc_info()[1]
            try:
                super().teardown()
            except AssertionError as error:
                problem = problem or error
                raise
            finally:
                if isinstance(problem, AssertionError):
                    found.append((Mutant.examples, Mutant.steps, str(problem).splitlines()[0]))

    Mutant.site = site
    return Mutant, found


@needs_strace
@pytest.mark.skipif(not ALL, reason="FAULTS=all lets the machine search")
@pytest.mark.parametrize("name", MUTANTS)
def test_the_machine_finds_a_mutant_by_itself(tmp_path, name: str, capsys) -> None:
    machine, found = searching(mutant(tmp_path, MUTANTS[name]))
    search = settings(
        max_examples=EXAMPLES,
        stateful_step_count=20,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
    )
    # What it found may not come again: a kill at a moment is never the same twice.
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(machine, settings=search)
    example, steps, what = found[0]
    with capsys.disabled():
        print(f"\n{name}: found in example {example}, after {steps} steps: {what}", flush=True)
