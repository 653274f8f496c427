"""Engines beside other build tools, all with the same stand-in for a compiler: a cold build, a null
build, one model changed, one engine tampered with; wall time, CPU and the memory of a null build.

    python benchmarks/peers.py [--engines 10 100 1000] [--bytes 1000] [--tools NAME ...] [--rounds 5]

Each tool makes an engine and its sha256 sidecar of every model. Tampering flips one byte of an
engine and gives the file its old times back, as a careless copy or a bad disk does; "noticed" is
whether the next run put the right bytes back. Needs what it compares: make, ninja, and
`pip install doit dvc` beside this Python or in PATH.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common import Cost, run

from conftest import Tree, fake_compiler, make_model

# The stand-in: the model, zeros up to the size of an engine, and the sidecar.
COMPILE = """#!/bin/sh
set -e
{ cat "$1"; head -c %d /dev/zero; } > "$2"
sha256sum < "$2" | cut -c 1-64 | tr -d '\\n' > "$2.sha256"
"""
FAKE = """
model = open(os.path.join(job["folder"], job["onnx"]), "rb").read()
data = plan(job) + model + bytes(%d)
done(write(data[:16] + len(data).to_bytes(8, "little") + data[24:]))
"""
CHECK = """make -s
for sum in engines/*.sha256; do
  engine=${sum%.sha256}
  [ "$(sha256sum < $engine | cut -c 1-64)" = "$(cat $sum)" ] || { rm $engine; again=1; }
done
[ -z "$again" ] || make -s
"""
PLAIN = "DefaultEnvironment(tools=[])\nenv = Environment(tools=[])\n"
RULE = 'env.Command(["{e}", "{e}.sha256"], "{m}", "./compile $SOURCE $TARGET")'


class Job(NamedTuple):
    """A tree with `count` models, whose engines shall have `size` bytes and some."""

    tree: Tree
    count: int
    size: int

    @property
    def top(self) -> Path:
        return self.tree.root

    def model(self, number: int) -> Path:
        return self.top / f"models/m{number}.onnx"

    def engine(self, number: int) -> Path:
        return self.top / f"engines/m{number}__sm80plus_cu13.0_rtx1.7_fp32.engine"

    def rules(self, text: str) -> str:
        """`text` for each engine: {m} its model, {e} itself, {n} its number."""
        rows = [
            text.format(n=n, m=self.model(n).relative_to(self.top), e=self.engine(n).relative_to(self.top))
            for n in range(self.count)
        ]
        return "\n".join(rows) + "\n"


Command = tuple[list[str], dict[str, str]]


def ours(job: Job) -> Command:
    python = fake_compiler(job.top / "fake", FAKE % job.size, "tensorrt_rtx", "1.7.1.116")
    job.tree.write(job.rules('env.Engine("m{n}", "{m}")'))
    return job.tree.command("engines"), job.tree.env(TRT_PYTHON=str(python))


def scons(job: Job, alias: str = "each") -> Command:
    rules = job.rules(f'each = {RULE}; env.Alias("engines", {alias})')
    (job.top / "SConstruct").write_text(PLAIN + rules)
    return [sys.executable, "-m", "SCons", "-s", "engines"], {**os.environ}


def scons_by_sidecars(job: Job) -> Command:
    return scons(job, "each[1]")


def make(job: Job) -> Command:
    rules = job.rules("{e} {e}.sha256 &: {m}\n\t@./compile {m} {e}")
    (job.top / "Makefile").write_text(f"all: {job.rules('{e}').replace(chr(10), ' ')}\n{rules}")
    return ["make", "-s"], {**os.environ}


def make_and_check(job: Job) -> Command:
    make(job)
    (job.top / "check").write_text(CHECK)
    return ["sh", "check"], {**os.environ}


def ninja(job: Job) -> Command:
    rule = "rule engine\n  command = ./compile $in $out\n"
    rules = job.rules("build {e} | {e}.sha256: engine {m}")
    (job.top / "build.ninja").write_text(rule + rules)
    return [tool("ninja"), "-j1", "--quiet"], {**os.environ}


def doit(job: Job) -> Command:
    task = (
        '    yield dict(name="{n}", file_dep=["{m}"], targets=["{e}", "{e}.sha256"],'
        ' actions=["./compile {m} {e}"])'
    )
    (job.top / "dodo.py").write_text("def task_engine():\n" + job.rules(task))
    return [tool("doit"), "-v0"], {**os.environ}


def dvc(job: Job) -> Command:
    stage = "  m{n}: {{cmd: ./compile {m} {e}, deps: [{m}], outs: [{e}, {e}.sha256]}}"
    (job.top / "dvc.yaml").write_text("stages:\n" + job.rules(stage))
    for setting in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
        run([tool("dvc"), *setting], job.top)
    return [tool("dvc"), "repro", "-q"], {**os.environ}


PEERS: dict[str, Callable[[Job], Command]] = {
    "scons-tensorrt": ours,
    "SCons": scons,
    "SCons, asked for sidecars": scons_by_sidecars,
    "make": make,
    "make, then sha256sum": make_and_check,
    "ninja": ninja,
    "doit": doit,
    "DVC": dvc,
}
MOST = {"DVC": 100}  # it takes minutes for more


def tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is missing: see the top of this file")
    return found


def tamper(engine: Path) -> bytes:
    """Flip the last byte, with the file's times as they were; returns the right one."""
    times = engine.stat()
    with open(engine, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        right = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([right[0] ^ 1]))
    os.utime(engine, ns=(times.st_atime_ns, times.st_mtime_ns))
    return right


def last_byte(engine: Path) -> bytes:
    with open(engine, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def row(job: Job, command: Command, rounds: int) -> list[str]:
    """The cells of a table's row."""

    def once() -> Cost:
        return run(command[0], job.top, command[1])

    cold = once().wall
    for _ in range(2):
        once()
    nulls = [once() for _ in range(rounds)]
    changed = []
    for number in range(rounds):
        make_model(job.model(0), seed=10_000 + number)
        changed.append(once().wall)
        once()
    right = tamper(job.engine(1))
    tampered = once().wall
    noticed = "yes" if last_byte(job.engine(1)) == right else "no"
    wall, cpu, peak = (statistics.median(getattr(c, f) for c in nulls) for f in ("wall", "cpu", "peak"))
    seconds = [cold, wall, cpu, statistics.median(changed), tampered]
    return [*(f"{each:.3g}" for each in seconds), noticed, f"{peak / 2**20:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--bytes", type=int, default=1000, help="of each engine, and some")
    parser.add_argument("--tools", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for count in chosen.engines:
        heads = ["cold, s", "null, s", "null, CPU s", "one changed, s", "one tampered, s", "noticed"]
        print(f"\n{count} engines of {chosen.bytes / 1e6:g} MB\n")
        print(f"| | {' | '.join(heads)} | null, MiB |\n{'| --- ' * 8}|", flush=True)
        for name in chosen.tools:
            if count > MOST.get(name, count):
                print(f"| {name} | not tried with so many | | | | | | |", flush=True)
                continue
            with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
                job = Job(Tree(Path(folder) / "tree"), count, chosen.bytes)
                for number in range(count):
                    make_model(job.model(number), seed=number)
                (job.top / "engines").mkdir()
                (job.top / "compile").write_text(COMPILE % job.size)
                (job.top / "compile").chmod(0o755)
                cells = row(job, PEERS[name](job), chosen.rounds)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
