"""Timing whole commands, side by side: an A and a B alternate, and ratios are taken pair by pair,
so that what else the machine does falls on both."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "tests" / "support")]


@dataclass
class Cost:
    """wall, cpu: seconds (cpu: of the command and all its children); peak: bytes of the largest
    process among them."""

    wall: float
    cpu: float
    peak: int


# As users have it: some build machines forbid the .pyc files that make every import cheaper.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# A child's peak starts with that of who forked it: this one is small, the benchmark need not be.
_LAUNCH = """
import os, sys, time
began = time.perf_counter()
_, status, used = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
wall, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
print(wall, cpu, used.ru_maxrss, os.waitstatus_to_exitcode(status), file=open(int(sys.argv[1]), "w"))
"""


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> Cost:
    """One run; a status other than 0 ends the benchmark."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as figures:
        number = figures.fileno()
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(number), *command],
            cwd=cwd,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[number],
            check=True,
        )
        figures.seek(0)
        wall, cpu, peak, status = figures.read().split()
        if int(status):
            output.seek(0)
            raise SystemExit(f"{command} ended with {status}:\n{output.read()}")
    return Cost(float(wall), float(cpu), int(peak) * 1024)


def side_by_side(a, b, rounds: int) -> tuple[list[Cost], list[Cost]]:
    """`rounds` pairs of runs of the callables a and b, whose order changes from pair to pair."""
    first, second = [], []
    for number in range(rounds):
        for one, costs in ((a, first), (b, second)) if number % 2 else ((b, second), (a, first)):
            costs.append(one())
    return first, second


def report(title: str, a: list[Cost], b: list[Cost], field: str, bound: float | None = None) -> float:
    """Print medians and the median of the pairwise ratios a/b; returns the latter."""
    mine = [getattr(cost, field) for cost in a]
    theirs = [getattr(cost, field) for cost in b]
    ratio = statistics.median(x / y for x, y in zip(mine, theirs))
    scale, unit = (1 / 2**20, "MiB") if field == "peak" else (1, "s")
    print(
        f"{title}: {field} {statistics.median(mine) * scale:.3f} {unit} against "
        f"{statistics.median(theirs) * scale:.3f} {unit}, median of {len(mine)} ratios {ratio:.3f}"
        + (f" (bound {bound})" if bound else "")
    )
    return ratio


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
