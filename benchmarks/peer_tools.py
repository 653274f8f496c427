"""How each tool of benchmarks/peers.py builds an engine and its sha256 sidecar of every model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import Cost, run
from trees import PLAIN

from conftest import Tree, fake_compiler, make_model

# The stand-in for a compiler: the model, zeros up to the size of an engine, and the sidecar.
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
RULE = 'env.Command(["{e}", "{e}.sha256"], "{m}", "./compile $SOURCE $TARGET")'
GENRULE = (
    'genrule(name="m{n}", srcs=["{m}", "compile"], outs=["{e}", "{e}.sha256"],'
    ' cmd="./compile $(location {m}) $(location {e})")'
)


class Job:
    """A new tree with `count` models, whose engines shall have `size` bytes and some."""

    def __init__(self, top: Path, count: int, size: int) -> None:
        self.tree, self.top, self.count, self.size = Tree(top), top, count, size
        for number in range(count):
            self.write_model(number, seed=number)
        (top / "engines").mkdir()
        (top / "compile").write_text(COMPILE % size)
        (top / "compile").chmod(0o755)

    def write_model(self, number: int, seed: int) -> None:
        make_model(self.top / self.model(number), seed=seed)

    def model(self, number: int) -> str:
        return f"models/m{number}.onnx"

    def engine(self, number: int) -> str:
        return f"engines/m{number}__sm80plus_cu13.0_rtx1.7_fp32.engine"

    def rules(self, text: str) -> str:
        """`text` for each engine: {m} its model, {e} itself, {n} its number."""
        rows = [text.format(n=n, m=self.model(n), e=self.engine(n)) for n in range(self.count)]
        return "\n".join(rows) + "\n"


@dataclass
class Build:
    """The command that builds all engines of a job.

    outputs: the folder that holds engines/. forget: paths that a fresh clone lacks, if the tool has a cache
    elsewhere. clean: a command to run before, for that. server: prints the ID of the process that does the
    command's work, whose CPU and memory count too.
    """

    job: Job
    command: list[str]
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    outputs: str = "."
    forget: Sequence[str] = ()
    clean: list[str] | None = None
    server: list[str] | None = None
    stop: list[str] | None = None
    _server_id: str = ""

    def once(self) -> Cost:
        before = self._server_cpu()
        cost = run(self.command, self.job.top, self.env)
        if not self.server:
            return cost
        if not self._server_id:  # a first run starts it
            done = subprocess.run(self.server, cwd=self.job.top, capture_output=True, text=True, check=True)
            self._server_id = done.stdout.strip()
        status = Path(f"/proc/{self._server_id}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
        return Cost(cost.wall, cost.cpu + self._server_cpu() - before, max(cost.peak, peak))

    def engine(self, number: int) -> Path:
        return self.job.top / self.outputs / self.job.engine(number)

    def as_fresh_clone(self) -> None:
        if self.clean:
            run(self.clean, self.job.top, self.env)
        for name in self.forget:
            path = self.job.top / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def close(self) -> None:
        if self.stop:
            run(self.stop, self.job.top, self.env)

    def _server_cpu(self) -> float:
        """Seconds; 0 before a server is known."""
        if not self._server_id:
            return 0.0
        fields = Path(f"/proc/{self._server_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ours(job: Job) -> Build:
    python = fake_compiler(job.top / "fake", FAKE % job.size, "tensorrt_rtx", "1.7.1.116")
    job.tree.write(job.rules('env.Engine("m{n}", "{m}")'))
    return Build(job, job.tree.command("engines"), job.tree.env(TRT_PYTHON=str(python)))


def ours_with_store(job: Job) -> Build:
    build = ours(job)
    keygen = [sys.executable, "-m", "scons_tensorrt", "keygen", "key"]
    run(keygen, job.top, build.env)
    build.env |= {"TRT_STORE": (job.top / "store").as_uri(), "TRT_STORE_MODE": "write"}
    build.env |= {"TRT_STORE_SIGNING_KEY": str(job.top / "key")}
    build.forget = ("engines", ".trt", ".sconsign.dblite")
    return build


def scons(job: Job, alias: str = "each", first: str = "") -> Build:
    rules = job.rules(f'each = {RULE}; env.Alias("engines", {alias})')
    (job.top / "SConstruct").write_text(PLAIN + first + rules)
    return Build(job, [sys.executable, "-m", "SCons", "-s", "engines"])


def scons_by_sidecars(job: Job) -> Build:
    return scons(job, "each[1]")


def scons_with_cache(job: Job) -> Build:
    build = scons(job, first='CacheDir("cache")\n')
    build.forget = ("engines", ".sconsign.dblite")
    return build


def make(job: Job) -> Build:
    rules = job.rules("{e} {e}.sha256 &: {m}\n\t@./compile {m} {e}")
    (job.top / "Makefile").write_text(f"all: {job.rules('{e}').replace(chr(10), ' ')}\n{rules}")
    return Build(job, [tool("make"), "-s"])


def make_and_check(job: Job) -> Build:
    make(job)
    (job.top / "check").write_text(CHECK)
    return Build(job, ["sh", "check"])


def ninja(job: Job) -> Build:
    rule = "rule engine\n  command = ./compile $in $out\n"
    (job.top / "build.ninja").write_text(rule + job.rules("build {e} | {e}.sha256: engine {m}"))
    return Build(job, [tool("ninja"), "-j1", "--quiet"])


def doit(job: Job) -> Build:
    task = (
        '    yield dict(name="{n}", file_dep=["{m}"], targets=["{e}", "{e}.sha256"],'
        ' actions=["./compile {m} {e}"])'
    )
    (job.top / "dodo.py").write_text("def task_engine():\n" + job.rules(task))
    return Build(job, [tool("doit"), "-v0"])


def dvc(job: Job) -> Build:
    stage = "  m{n}: {{cmd: ./compile {m} {e}, deps: [{m}], outs: [{e}, {e}.sha256]}}"
    (job.top / "dvc.yaml").write_text("stages:\n" + job.rules(stage))
    for setting in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
        run([tool("dvc"), *setting], job.top)
    return Build(job, [tool("dvc"), "repro", "-q"], forget=("engines",))


def bazel(job: Job) -> Build:
    """One action at a time, without a sandbox, as the others work."""
    (job.top / "WORKSPACE").touch()
    (job.top / "BUILD").write_text(job.rules(GENRULE))
    start = [tool("bazel"), f"--output_user_root={job.top.parent / (job.top.name + '-bazel')}"]
    options = [f"--disk_cache={job.top / 'cache'}", "--spawn_strategy=local", "--jobs=1", "--noshow_progress"]
    return Build(
        job,
        [*start, "build", *options, "//:all"],
        outputs="bazel-bin",
        clean=[*start, "clean"],
        server=[*start, "info", "server_pid"],
        stop=[*start, "shutdown"],
    )


PEERS: dict[str, Callable[[Job], Build]] = {
    "scons-tensorrt": ours,
    "scons-tensorrt, a folder as store": ours_with_store,
    "SCons": scons,
    "SCons, asked for sidecars": scons_by_sidecars,
    "SCons, CacheDir": scons_with_cache,
    "make": make,
    "make, then sha256sum": make_and_check,
    "ninja": ninja,
    "Bazel, disk cache": bazel,
    "doit": doit,
    "DVC": dvc,
}
MOST = {"DVC": 100}  # it takes minutes for more


def tool(name: str) -> str:
    """Its path, beside this Python or in PATH; LookupError."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise LookupError(f"{name} is missing")
    return found
