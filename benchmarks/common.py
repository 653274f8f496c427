"""Costs of whole commands, side by side: runs of A and B alternate, and ratios are taken pair by pair, so
that other work on the machine slows both.

Each figure is one line of JSON on stdout (`Figure`), and a sentence on stderr. benchmarks/all.py runs all
benchmarks, and compares the ratios with those of benchmarks/accepted.json.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "tests" / "support")]

SCHEMA = 1  # of a figure's JSON
CONFIDENCE = 0.95
UNITS = {"wall": "s", "cpu": "s", "peak": "bytes", "instructions": "instructions"}

# As users have it: some build machines forbid the .pyc files that make every import cheaper.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass
class Cost:
    """wall, cpu: seconds (cpu: of the command and all its children); peak: bytes of the largest
    process among them. instructions: of the command and all its children; 0 from `run`."""

    wall: float
    cpu: float
    peak: int
    instructions: int = 0


@dataclass(frozen=True)
class Figure:
    """What a benchmark found. JSON has these fields, `name`, `schema`, `unit` and `host`.

    compares: what was measured, and what beside it. measure: a field of Cost. medians: of the two, in `unit`.
    ratio: median of the ratios of pairs. low, high: the interval of that median, whose `confidence` is at
    least 0.95 from six rounds on (with fewer: smallest and largest ratio). bound: the promise, if any.
    """

    compares: tuple[str, str]
    measure: str
    medians: tuple[float, float]
    ratio: float
    low: float
    high: float
    confidence: float
    rounds: int
    bound: float | None = None

    @property
    def name(self) -> str:
        return f"{' / '.join(self.compares)}: {self.measure}"

    @property
    def misses(self) -> bool:
        return self.bound is not None and self.ratio > self.bound

    def sentence(self) -> str:
        mine, theirs = (_readable(value, UNITS[self.measure]) for value in self.medians)
        bound = f"; bound {self.bound:g}{', MISSED' * self.misses}" if self.bound is not None else ""
        return (
            f"{self.name}: {mine} against {theirs}, ratio {self.ratio:.3f} "
            f"({self.low:.3f} to {self.high:.3f}, median of {self.rounds}){bound}"
        )


# A child's peak memory starts at that of the process that forked it, so a small process forks the command.
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


def count(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> Cost:
    """One run in valgrind, which counts the instructions that the command and its children execute (the
    other costs are those of valgrind). They hardly depend on the machine's load: those of a null build repeat
    within 0.1 %, those of a build that waits for compiles within 0.5 %."""
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is missing: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        options += ["--trace-children=yes", f"--log-file={folder}/%p"]
        # Sets and dicts of strings in one order each time.
        environment = {**(os.environ if env is None else env), "PYTHONHASHSEED": "0"}
        cost = run(["valgrind", *options, *command], cwd, environment)
        logs = [path.read_text() for path in Path(folder).iterdir()]
    counts = [re.findall(r"I +refs: +([\d,]+)", log)[-1] for log in logs if " refs: " in log]
    instructions = sum(int(each.replace(",", "")) for each in counts)
    return dataclasses.replace(cost, instructions=instructions)


def side_by_side(a: Callable[[], Cost], b: Callable[[], Cost], rounds: int) -> tuple[list[Cost], list[Cost]]:
    """`rounds` pairs of runs of the callables a and b, whose order changes from pair to pair."""
    first, second = [], []
    for number in range(rounds):
        for one, costs in ((a, first), (b, second)) if number % 2 else ((b, second), (a, first)):
            costs.append(one())
    return first, second


def report(title: str, a: list[Cost], b: list[Cost], field: str, bound: float | None = None) -> float:
    """Print the figure for one field of Cost, and return the median of the pairwise ratios a/b.

    title: the two that are compared, "null build of 100 engines / of 100 plain commands". With the field, it
    is the name under which benchmarks/accepted.json keeps the ratio, so leave out what changes from run to
    run (ValueError without exactly one " / ").
    """
    compares = tuple(title.split(" / "))
    if len(compares) != 2:
        raise ValueError(f'"{title}" does not name two things, with " / " between them')
    mine, theirs = ([getattr(cost, field) for cost in costs] for costs in (a, b))
    ratios = [x / y for x, y in zip(mine, theirs)]
    low, high, confidence = interval(ratios)
    figure = Figure(
        compares=compares,
        measure=field,
        medians=(statistics.median(mine), statistics.median(theirs)),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        confidence=confidence,
        rounds=len(ratios),
        bound=bound,
    )
    emit(figure)
    return figure.ratio


def emit(figure: Figure) -> None:
    """Print a figure: JSON to stdout, a sentence to stderr."""
    told = {"schema": SCHEMA, "name": figure.name, "unit": UNITS[figure.measure]}
    print(json.dumps({**told, **dataclasses.asdict(figure), "host": host()}), flush=True)
    say(figure.sentence())


def figures_of(text: str) -> Iterator[Figure]:
    """The figures among the lines that a benchmark printed; ValueError for those of another schema."""
    known = [field.name for field in dataclasses.fields(Figure)]
    for line in filter(str.strip, text.splitlines()):
        told = json.loads(line)
        if told["schema"] != SCHEMA:
            raise ValueError(f"a figure of schema {told['schema']}; this is a reader of {SCHEMA}")
        values = {name: told[name] for name in known}
        values |= {name: tuple(told[name]) for name in ("compares", "medians")}
        yield Figure(**values)


def say(text: str) -> None:
    """Print what is no figure, for a reader."""
    print(text, file=sys.stderr, flush=True)


@functools.cache
def host() -> dict[str, str | int | float]:
    """The machine. load: how many processes ran or waited for a core when the first figure was printed."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "scons": importlib.metadata.version("scons"),
        "load": round(os.getloadavg()[0], 2),
    }


def interval(values: list[float]) -> tuple[float, float, float]:
    """(low, high, confidence) of the median: the narrowest pair of order statistics that the sign test
    gives 95 % confidence, which assumes no distribution; of fewer than six values, the smallest and largest.
    """
    ordered, n = sorted(values), len(values)
    for cut in reversed(range((n + 1) // 2)):
        outside = 2 * sum(math.comb(n, k) for k in range(cut + 1)) / 2**n
        if 1 - outside >= CONFIDENCE or cut == 0:
            return ordered[cut], ordered[n - 1 - cut], max(0.0, 1 - outside)
    raise ValueError("no values")


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, in $BENCH_DIR if that is set."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as name:
        yield Path(name)


def _readable(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    return f"{value / 1e6:.1f} million" if unit == "instructions" else f"{value:.3f} s"
