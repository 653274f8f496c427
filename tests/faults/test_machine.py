"""Everything that may befall a tree, in any order, beside a model of what must be compiled.

A few short histories run always, the same each time; FAULTS=all tries many and long ones.
"""

import os

from calls import ALL
from hypothesis import HealthCheck, Phase, settings
from machine import Machine

EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "80" if ALL else "4"))

TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30 if ALL else 12,
    derandomize=not ALL,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if ALL else [Phase.generate],
    print_blob=True,
)
