"""Instructions of whole commands, counted by valgrind: figures that see a change of a few per cent on a
busy machine, where times do not.

    python benchmarks/counted.py [--engines 2 25]

Builds of engines, by a stand-in for the compiler, beside builds of as many plain commands by SCons. A cold
build is counted of up to 10 engines; a null build, one after a change, `status` and `verify` of more.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import Cost, count, report, run, workplace
from trees import build, change, commands, count_build, engines

from conftest import Tree

MOST_COLD = 10
TITLES = {
    "cold": "cold build of {}",
    "null": "null build of {}",
    "changed": "build, one model changed, of {}",
    "status": "status of {}",
    "verify": "verify of {}",
}


def counts(tree: Tree, number: int) -> dict[str, Cost]:
    """What builds of a new tree cost."""
    if number <= MOST_COLD:
        return {"cold": count_build(tree)}
    for _ in range(3):  # until SCons has stored what it reads in a null build
        build(tree)
    null = count_build(tree)
    change(tree, seed=number)
    return {"null": null, "changed": count_build(tree)}


def of_engines(folder: Path, number: int) -> dict[str, Cost]:
    tree = engines(folder, number)
    found = counts(tree, number)
    for command in (["status"], ["verify", "engines"]) if number > MOST_COLD else ():
        arguments = [sys.executable, "-m", "scons_tensorrt", *command]
        run(arguments, tree.root, tree.env())  # writes .pyc files
        found[command[0]] = count(arguments, tree.root, tree.env())
    return found


def compare(number: int) -> None:
    with workplace() as folder, ThreadPoolExecutor(1) as pool:
        mine = pool.submit(of_engines, folder, number)
        plain = counts(commands(folder, number), number)
        for situation, cost in mine.result().items():
            beside = situation if situation in plain else "null"
            title = f"{TITLES[situation].format(number)} engines / "
            title += f"{TITLES[beside].format(number)} plain commands"
            report(title, [cost], [plain[beside]], "instructions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, nargs="+", default=[2, 25])
    chosen = parser.parse_args()
    with workplace() as folder:
        build(engines(folder, 1))  # writes .pyc files
    for number in chosen.engines:
        compare(number)


if __name__ == "__main__":
    main()
