"""Engines beside other build tools, all with the same stand-in for a compiler: a cold build, a null
build, one model changed, one engine tampered with, a fresh clone with the tool's cache; wall time, CPU and
the memory of a null build. The tools take turns, and each figure is ours beside another's.

    python benchmarks/peers.py [--engines 10 100 1000] [--bytes 1000] [--tools NAME ...] [--rounds 5]

Each tool makes an engine and its sha256 sidecar of every model. Tampering flips one byte of an
engine and gives the file its old times back, as a careless copy or a bad disk does; "noticed" is
whether the next run put the right bytes back. A tool that is not installed is left out: make, ninja,
`pip install doit dvc`, and Bazel (`npm install @bazel/bazel`), beside this Python or in PATH.
The tables go to stderr, as Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path

from common import Cost, report, say, workplace
from peer_tools import MOST, PEERS, Build, Job

from conftest import flip_last_bit

OURS = "scons-tensorrt"
FIELDS = {"null": ("wall", "cpu", "peak")}  # of other situations: wall
HEADS = ["", "cold, s", "null, s", "null, CPU s", "null, MiB", "one changed, s", "one tampered, s"]
HEADS += ["noticed", "fresh clone with its cache, s"]
Costs = dict[str, dict[str, list[Cost]]]  # by situation and tool


def last_byte(engine: Path) -> bytes:
    with open(engine, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def changed(build: Build, seed: int) -> Cost:
    """One model changed; then a null build, so that the next figure is of a settled tree."""
    build.job.write_model(0, seed=seed)
    cost = build.once()
    build.once()
    return cost


def fresh_clone(build: Build) -> Cost:
    build.as_fresh_clone()
    return build.once()


def measure(builds: dict[str, Build], rounds: int) -> tuple[Costs, dict[str, bool]]:
    """Costs, and which tools noticed the tampering."""
    costs: Costs = {}

    def turn(situation: str, do: Callable[[Build], Cost]) -> None:
        for name, build in builds.items():
            costs.setdefault(situation, {}).setdefault(name, []).append(do(build))

    turn("cold", Build.once)
    for build in builds.values():
        build.once()
        build.once()
    for number in range(rounds):
        turn("null", Build.once)
        turn("changed", lambda build, seed=10_000 + number: changed(build, seed))
    right = {name: last_byte(build.engine(1)) for name, build in builds.items()}
    for build in builds.values():
        flip_last_bit(build.engine(1))
    turn("tampered", Build.once)
    noticed = {name: last_byte(build.engine(1)) == right[name] for name, build in builds.items()}
    for name, build in builds.items():
        if build.forget or build.clean:
            costs.setdefault("fresh clone", {})[name] = [fresh_clone(build)]
    return costs, noticed


def print_figures(costs: Costs, engines: str) -> None:
    for situation, of_tools in costs.items():
        mine = OURS if OURS in of_tools else next(iter(of_tools))
        for name, theirs in of_tools.items():
            for field in FIELDS.get(situation, ("wall",)) if name != mine else ():
                report(f"{situation}, {engines}: {mine} / {name}", of_tools[mine], theirs, field)


def table(costs: Costs, noticed: dict[str, bool]) -> str:
    rows = [HEADS, ["---"] * len(HEADS)]
    for name in noticed:

        def median(situation: str, field: str = "wall", scale: float = 1.0, name: str = name) -> str:
            found = costs.get(situation, {}).get(name)
            return f"{statistics.median(getattr(c, field) for c in found) * scale:.3g}" if found else ""

        null = [median("null"), median("null", "cpu"), median("null", "peak", 2**-20)]
        word = "**yes**" if noticed[name] else "no"
        cells = [median("cold"), *null, median("changed"), median("tampered"), word, median("fresh clone")]
        rows.append([name, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def prepare(folder: Path, names: list[str], count: int, size: int) -> dict[str, Build]:
    builds = {}
    for number, name in enumerate(names):
        if count > MOST.get(name, count):
            say(f"{name}: not tried with {count} engines, which take it minutes")
            continue
        try:
            builds[name] = PEERS[name](Job(folder / f"tree{number}", count, size))
        except LookupError as error:
            say(f"{name}: left out, {error}")
    return builds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--bytes", type=int, default=1000, help="of each engine, and some")
    parser.add_argument("--tools", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for count in chosen.engines:
        with workplace() as folder:
            builds = prepare(folder, chosen.tools, count, chosen.bytes)
            try:
                costs, noticed = measure(builds, chosen.rounds)
            finally:
                for build in builds.values():
                    build.close()
        engines = f"{count} engines of {chosen.bytes / 1e6:g} MB"
        print_figures(costs, engines)
        say(f"\n{engines}, load {os.getloadavg()[0]:.1f}\n\n{table(costs, noticed)}\n")


if __name__ == "__main__":
    main()
