"""Timing whole commands, side by side: an A and a B alternate, and ratios are taken pair by pair,
so that what else the machine does falls on both."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests" / "end_to_end"))


@dataclass
class Cost:
    """wall, cpu: seconds (cpu: of the command and all its children); peak: bytes of the largest
    process among them."""

    wall: float
    cpu: float
    peak: int


# As users have it: some build machines forbid the .pyc files that make every import cheaper.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> Cost:
    """One run; a status other than 0 ends the benchmark."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{command} ended with {process.returncode}:\n{output.read().decode()}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


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
