"""Everything that may befall a tree, in any order, beside a model of what must be compiled.

A few short histories run always, the same each time; FAULTS=all tries many and long ones, with
FAULTS_EXAMPLES=N a number of them, which then are not shrunk. `--hypothesis-seed=N` repeats a run; `-s`
tells the number of steps.
"""

import os

from calls import ALL
from hypothesis import HealthCheck, Phase, settings
from machine import Machine

CHOSEN = "FAULTS_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "40" if ALL else "3"))


class TestMachine(Machine.TestCase):  # type: ignore[name-defined, misc]
    @classmethod
    def tearDownClass(cls) -> None:
        print(f"\n{Machine.examples} histories, {Machine.steps} steps", flush=True)


TestMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25 if ALL else 12,
    derandomize=not ALL,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if ALL and not CHOSEN else [Phase.generate],
    print_blob=True,
)
