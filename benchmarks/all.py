"""All benchmarks whose ratios are kept in benchmarks/accepted.json, each compared with its own.

    python benchmarks/all.py [--quick] [--only CASE ...] [--accept [--runs 3]]

Prints each figure as JSON to stdout. Exit status: 0; 1 if a figure is slower than the accepted one, misses a
bound that it held, or was not measured; 2 if accepted figures are of another release of Python or SCons.
A time that looks slower is measured again first. --accept runs each case three times, and writes the
medians and their noise to accepted.json. CONTRIBUTING.md says when to run it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from accepted import Accepted, Comparison, accept, compare, load, save
from common import Figure, figures_of, say

HERE = Path(__file__).parent
WORSE = ("slower", "missed")


@dataclass(frozen=True)
class Case:
    """A script, its arguments in every run and in a whole one alone (None: none), and its longest time, s."""

    script: str
    quick: str | None
    whole: str | None
    limit: int

    @property
    def name(self) -> str:
        return self.script.removesuffix(".py")

    def commands(self, quick: bool) -> list[str]:
        arguments = (self.quick, None if quick else self.whole)
        return [f"{self.script} {each}" for each in arguments if each is not None]


# On two quiet cores a quick run takes some 3 minutes, a whole one 25.
CASES = (
    Case("counted.py", quick="--engines 2 25", whole="--engines 1000", limit=1800),
    Case("thousand.py", quick="7 100", whole="7 1000", limit=600),
    Case("cache_hit.py", quick="7 20000000", whole="21 200000000", limit=600),
    Case("compile.py", quick="5 2", whole="7 60", limit=900),
    Case("store.py", quick="--size 32 --rounds 7", whole="--size 128 --rounds 9", limit=600),
    Case("null_build.py", quick=None, whole="15", limit=900),
)


class CaseError(Exception):
    """A case that failed, or took longer than its limit."""


def measure(command: str, limit: int) -> list[Figure]:
    """Run a case in a process group of its own, which ends with it; CaseError."""
    script, *arguments = command.split()
    say(f"-- {command}")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise CaseError(f"{command}: no end after {limit} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    print(out, end="", flush=True)
    if process.returncode:
        raise CaseError(f"{command}: exit status {process.returncode}")
    say(f"-- {time.monotonic() - began:.0f} s")
    try:
        return list(figures_of(out))
    except ValueError as error:
        raise CaseError(f"{command}: printed a line that is no figure: {error}") from None


def judge(command: str, limit: int, known: dict[str, Accepted]) -> list[Comparison]:
    """A case's figures beside the accepted ones. Times that look worse are worse if a second run agrees;
    counts repeat."""
    found = [compare(figure, known) for figure in measure(command, limit)]
    if any(each.verdict in WORSE and each.figure.measure != "instructions" for each in found):
        again = {each.figure.name: each for each in (compare(f, known) for f in measure(command, limit))}
        both = [(each, again.get(each.figure.name, each)) for each in found]
        found = [min(pair, key=lambda each: each.change) for pair in both]
    names = {each.figure.name for each in found}
    gone = [name for name, each in known.items() if each.case == command and name not in names]
    if gone:
        raise CaseError(f"{command}: not measured any more: {'; '.join(gone)}")
    return found


def renew(command: str, limit: int, runs: int, known: dict[str, Accepted]) -> dict[str, Accepted]:
    """The accepted figures, those of a case measured anew."""
    measured = [measure(command, limit) for _ in range(runs)]
    names = [figure.name for figure in measured[0]]
    anew = {name: accept(command, [f for run in measured for f in run if f.name == name]) for name in names}
    return {name: each for name, each in known.items() if each.case != command} | anew


def close(found: list[Comparison], failures: list[str]) -> int:
    """Name the outliers; the exit status."""
    for each in found:
        if each.verdict != "same":
            say(f"{each.verdict.upper()} {each.sentence()}")
    for failure in failures:
        say(f"FAILED {failure}")
    verdicts = [each.verdict for each in found]
    told = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(["same", *verdicts]))
    say(f"benchmarks: {len(found)} figures: {told}; {len(failures)} cases failed")
    if "faster" in verdicts or "new" in verdicts:
        say("benchmarks: `python benchmarks/all.py --accept` keeps new figures")
    if failures or any(word in WORSE for word in verdicts):
        return 1
    return 2 if "other releases" in verdicts else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    names = [case.name for case in CASES]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="CASE", help=", ".join(names)
    )
    parser.add_argument("--accept", action="store_true", help="write the figures to benchmarks/accepted.json")
    parser.add_argument("--runs", type=int, default=3, help="of each case, with --accept")
    chosen = parser.parse_args()
    try:
        known = load()
    except ValueError as error:
        raise SystemExit(str(error)) from None
    found: list[Comparison] = []
    failures: list[str] = []
    cases = [case for case in CASES if case.name in chosen.only]
    limits = {command: case.limit for case in cases for command in case.commands(chosen.quick)}
    for command, limit in limits.items():
        try:
            if chosen.accept:
                known = renew(command, limit, chosen.runs, known)
                save(known)
            else:
                found += judge(command, limit, known)
        except CaseError as error:
            failures.append(str(error))
    if chosen.accept:
        for failure in failures:
            say(f"FAILED {failure}")
        return 1 if failures else 0
    return close(found, failures)


if __name__ == "__main__":
    sys.exit(main())
