"""A tree of two engines for two boards under everything that may befall it, beside a model of what
must then be compiled.

The compiler is a fake whose bytes say all that they are made from, so the model knows them
beforehand; it reads engines, sidecars and receipts whole and believes no stat. What it says of a
run: an engine is compiled, once, unless there is a receipt of the wanted bytes and either the pair
holds them or their publishing was cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

sys.path.append(str(Path(__file__).parents[1] / "end_to_end"))
from calls import TRACES, processes_in
from conftest import REPO, Tree, fake_compiler, hardware, make_model

NAMES, BOARDS = ("a", "b"), ("here", "there")
ACT = """
link = {}
exec(dict(job["modules"])["scons_tensorrt.compile.worker.link"], link)
link["die_with_parent"]()
onnx = open(os.path.join(job["folder"], job["onnx"]), "rb").read()
made = [hashlib.sha256(onnx).hexdigest(), job["recipe"]["workspace_mb"], job["hardware"]["sm_count"]]
data = (b"ftrt" + json.dumps(made).encode().ljust(60)) * 500
root = job["output"].split("/.trt/")[0]
with open(root + "/compiled", "a") as calls:
    calls.write(hashlib.sha256(data).hexdigest() + "\\n")
while os.path.exists(root + "/slow") and os.getppid() != 1:
    time.sleep(0.01)
done(write(data))
"""


@cache
def variants() -> tuple[bytes, ...]:
    """Three models of one size."""
    with tempfile.TemporaryDirectory() as folder:
        made = [make_model(Path(folder, f"{seed}.onnx"), seed).read_bytes() for seed in range(3)]
    assert len({len(data) for data in made}) == 1
    return tuple(made)


def replace(path: Path, data: bytes, keep_mtime: bool) -> None:
    """Write in place, as a thoughtless tool does."""
    stat = path.stat() if path.exists() else None
    path.write_bytes(data)
    if keep_mtime and stat:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


TAMPERINGS = {
    "flip a byte": flipped,
    "cut": lambda data: data[: len(data) // 2],
    "lengthen": lambda data: data + b"x",
    "empty": lambda data: b"",
}


class World:
    """The tree, what a user does to it, and what is expected of a run. site: the package's folder."""

    def __init__(self, site: Path = REPO / "site_scons") -> None:
        self.room = Path(tempfile.mkdtemp(prefix="machine"))
        self.tree = Tree(self.room / "tree")
        self.tree.environment.update(
            PYTHONPATH=str(site),
            TRT_PYTHON=str(fake_compiler(self.room / "fake", ACT)),
        )
        self.board, self.workspace_mb = "here", 2048
        self.sm_count = dict.fromkeys(BOARDS, 8)
        # Compiled and not published, (place, sha256): whether its bytes are at the place already.
        self.cut_off: dict[tuple[Path, str], bool] = {}
        for number, name in enumerate(NAMES):
            self.model(name).write_bytes(variants()[number])
        for board in BOARDS:
            self.swap_board(board, 8)
        self.choose(2048)

    def close(self) -> None:
        shutil.rmtree(self.room)

    # What a user does.

    def choose(self, workspace_mb: int) -> None:
        self.workspace_mb = workspace_mb
        self.tree.write(
            f'for n in "ab": env.Engine(n, f"models/{{n}}.onnx", workspace_mb={workspace_mb})'
        )

    def swap_board(self, board: str, sm_count: int) -> None:
        self.sm_count[board] = sm_count
        hardware(self.tree.path(f"hardware/{board}.json"), sm_count=sm_count)

    def edit(self, name: str, variant: int, keep_mtime: bool) -> None:
        replace(self.model(name), variants()[variant], keep_mtime)

    def tamper(self, name: str, how: str, sidecar: bool, keep_mtime: bool) -> None:
        path = self.sidecar(name) if sidecar else self.engine(name)
        if path.exists():
            replace(path, TAMPERINGS[how](path.read_bytes()), keep_mtime)

    def take_the_other(self, name: str) -> None:
        """Another engine with its sidecar, under this one's names."""
        other = NAMES[1 - NAMES.index(name)]
        for path, source in (
            (self.engine(name), self.engine(other)),
            (self.sidecar(name), self.sidecar(other)),
        ):
            if source.exists():
                shutil.copy2(source, path)

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def delete_receipts(self) -> None:
        shutil.rmtree(self.tree.path(".trt/receipts"), ignore_errors=True)
        self.cut_off.clear()

    # Where things are, and what they shall be.

    def model(self, name: str) -> Path:
        return self.tree.path(f"models/{name}.onnx")

    def engine(self, name: str) -> Path:
        return self.tree.path(f"engines/{self.board}/{name}__sm87_jp6.2_trt10.3_fp32.engine")

    def sidecar(self, name: str) -> Path:
        return Path(f"{self.engine(name)}.sha256")

    def wanted(self, name: str) -> str:
        """sha256 of the engine as it is wanted now."""
        onnx = hashlib.sha256(self.model(name).read_bytes()).hexdigest()
        made = [onnx, self.workspace_mb, self.sm_count[self.board]]
        return sha((b"ftrt" + json.dumps(made).encode().ljust(60)) * 500)

    def pair(self, name: str) -> tuple[str | None, str | None]:
        engine, side = self.engine(name), self.sidecar(name)
        return (
            sha(engine.read_bytes()) if engine.exists() else None,
            side.read_text(errors="replace") if side.exists() else None,
        )

    def receipt(self, name: str) -> int | None:
        """Which file the receipt of the wanted bytes is; writing it again makes another."""
        folder = self.tree.path(".trt/receipts") / self.engine(name).stem
        found = list(folder.glob(f"*.{self.wanted(name)[:16]}.json"))
        return found[0].stat().st_mtime_ns if found else None

    def must_compile(self, name: str) -> bool:
        wanted = self.wanted(name)
        if self.receipt(name) is None:
            return True
        return self.pair(name) != (wanted, wanted) and not self._waits(self.engine(name), wanted)

    def _waits(self, engine: Path, digest: str) -> bool:
        """Whether a finished compile waits to be brought to its place."""
        moved = self.cut_off.get((engine, digest))
        if moved:  # then those are the only bytes
            return engine.exists() and sha(engine.read_bytes()) == digest
        return moved is not None

    def compiled(self) -> Counter[str]:
        try:
            return Counter(self.tree.path("compiled").read_text().split())
        except FileNotFoundError:
            return Counter()

    # Runs.

    def build(self, jobs: int = 1) -> None:
        """A run compiles what must be and nothing else, and all is right afterwards."""
        before = Before(self)
        run = self.tree.scons(f"-j{jobs}", "engines", f"HARDWARE={self.board}")
        assert run.status == 0, run.out
        assert run.built == before.must, f"built {run.built} instead of {before.must}\n{run.out}"
        self._all_right(before, run.out)

    def build_twice_at_once(self) -> None:
        """Two processes compile each engine once between them."""
        before = Before(self)
        slow, log = self.tree.path("slow"), self.room / "said"
        slow.touch()
        with open(log, "wb") as out:
            running = [
                subprocess.Popen(
                    self.tree.command("engines", f"HARDWARE={self.board}"),
                    cwd=self.tree.root,
                    env=self.tree.env(),
                    stdout=out,
                    stderr=out,
                )
                for _ in range(2)
            ]
        if before.must:  # until the other has judged, too, and waits for the first
            wait_for(lambda: b"WAITING" in log.read_bytes())
        slow.unlink()
        status = [process.wait(timeout=60) for process in running]
        said = log.read_text()
        assert status == [0, 0], said
        self._all_right(before, said)

    def build_killed(self, after_s: float, jobs: int) -> None:
        """SIGKILL at some moment."""
        before = Before(self)
        process = self.tree.start(f"-j{jobs}", "engines", f"HARDWARE={self.board}")
        try:
            process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        self._survived(before)

    def build_killed_at(self, call: str, when: int, path: Path | None = None) -> None:
        """SIGKILL at the `when`-th call of that name. path: counting those to this file alone."""
        before = Before(self)
        command = ["strace", "-o", os.devnull, "-e", f"inject={call}:signal=SIGKILL:when={when}"]
        command += ["-P", str(path)] if path else []
        command += self.tree.command("engines", f"HARDWARE={self.board}")
        environment = self.tree.env()
        subprocess.run(command, cwd=self.tree.root, env=environment, capture_output=True, check=False)
        self._survived(before)

    def _survived(self, before: Before) -> None:
        """After a kill: nothing half, nobody left; and what was compiled by now is so for good."""
        wait_for(lambda: not processes_in(self.tree.root), 3)
        made = self.compiled() - before.compiled
        assert made <= before.expected, f"compiled {made}, of {before.expected}"
        for name in NAMES:
            wanted, now, place = self.wanted(name), self.pair(name), self.engine(name)
            before.keeps(name)
            assert now[1] in (before.pairs[name][1], wanted), f"{name}: a half sidecar"
            if now[1] != before.pairs[name][1]:
                assert now[0] == wanted, f"{name}: a sidecar before its engine"
            if self.receipt(name) not in (None, before.receipts[name]):
                self.cut_off[place, wanted] = False
            if now == (wanted, wanted):
                self.cut_off.pop((place, wanted), None)
            elif (place, wanted) in self.cut_off and now[0] == wanted != before.pairs[name][0]:
                self.cut_off[place, wanted] = True

    def _all_right(self, before: Before, said: str) -> None:
        made = self.compiled() - before.compiled
        assert made == before.expected, f"compiled {made} instead of {before.expected}\n{said}"
        for name in NAMES:
            wanted = self.wanted(name)
            assert self.pair(name) == (wanted, wanted), said
            before.keeps(name)
            self.cut_off.pop((self.engine(name), wanted), None)
            self._nothing_left(self.engine(name))
        names = {path.name for path in self.engine("a").parent.iterdir()}
        assert names == {p.name for n in NAMES for p in (self.engine(n), self.sidecar(n))}, names

    def _nothing_left(self, engine: Path) -> None:
        """Of temporaries, but for finished compiles of what was wanted at another time."""
        waiting = sum(2 for (place, _), moved in self.cut_off.items() if place == engine and not moved)
        slot = sha(os.fsencode(engine.relative_to(self.tree.root)))[:16]
        left = list(self.tree.path(f".trt/partial/{slot}").glob("*"))
        assert len(left) == waiting, f"left behind: {left}"


class Before:
    """What is there before a run, and what the run must compile."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.must = [name for name in NAMES if world.must_compile(name)]
        self.expected = Counter(world.wanted(name) for name in self.must)
        self.compiled = world.compiled()
        self.pairs = {name: world.pair(name) for name in NAMES}
        self.receipts = {name: world.receipt(name) for name in NAMES}
        there = [name for name in NAMES if world.engine(name).exists()]
        self._open = {name: os.open(world.engine(name), os.O_RDONLY) for name in there}

    def keeps(self, name: str) -> None:
        """Under the engine's name is what was, or all that is wanted; and whoever had it open still
        has the old bytes."""
        before, now = self.pairs[name][0], self._world.pair(name)[0]
        if name in self._open:
            with open(self._open.pop(name), "rb") as held:
                assert sha(held.read()) == before, f"{name} was written to in place"
        assert now in (before, self._world.wanted(name)), f"{name}: half an engine"


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


CALLS = st.one_of(
    st.tuples(st.just("rename"), st.integers(1, 9)),
    st.tuples(st.just("fsync"), st.integers(1, 14)),
    st.tuples(st.just("unlink"), st.integers(1, 3)),
    st.tuples(st.just("write"), st.integers(1, 30)),
)
variant = st.integers(0, 2)
name, board, keep_mtime = st.sampled_from(NAMES), st.sampled_from(BOARDS), st.booleans()


class Machine(RuleBasedStateMachine):
    """site: the package under test; a mutant's differs."""

    site = REPO / "site_scons"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.site)
        self.runs = 0  # since something changed: a third one would show nothing new

    def teardown(self) -> None:
        try:
            self.world.build()
        finally:
            self.world.close()

    def changed(self) -> World:
        self.runs = 0
        return self.world

    def run(self) -> World:
        self.runs += 1
        return self.world

    @rule(name=name, variant=variant, keep_mtime=keep_mtime)
    def edit(self, name: str, variant: int, keep_mtime: bool) -> None:
        self.changed().edit(name, variant, keep_mtime)

    @rule(workspace_mb=st.sampled_from([1024, 2048]))
    def choose(self, workspace_mb: int) -> None:
        self.changed().choose(workspace_mb)

    @rule(board=board)
    def go_to(self, board: str) -> None:
        self.changed().board = board

    @rule(board=board, sm_count=st.sampled_from([4, 8]))
    def swap_board(self, board: str, sm_count: int) -> None:
        self.changed().swap_board(board, sm_count)

    @rule(name=name, how=st.sampled_from(sorted(TAMPERINGS)), sidecar=st.booleans(), keep=keep_mtime)
    def tamper(self, name: str, how: str, sidecar: bool, keep: bool) -> None:
        self.changed().tamper(name, how, sidecar, keep)

    @rule(name=name)
    def take_the_other(self, name: str) -> None:
        self.changed().take_the_other(name)

    @rule(name=name, sidecar=st.booleans())
    def delete(self, name: str, sidecar: bool) -> None:
        self.changed().delete(self.world.sidecar(name) if sidecar else self.world.engine(name))

    @rule()
    def delete_receipts(self) -> None:
        self.changed().delete_receipts()

    @rule(what=st.sampled_from([".sconsign.dblite", ".trt/digests.json", ".trt/declared.json"]))
    def lose(self, what: str) -> None:
        self.changed().delete(self.world.tree.path(what))

    @precondition(lambda self: self.runs < 2)
    @rule(jobs=st.sampled_from([1, 2]))
    def build(self, jobs: int) -> None:
        self.run().build(jobs)

    @rule(jobs=st.sampled_from([1, 2]))
    def build_until_the_memo_believes(self, jobs: int) -> None:
        """It believes a file from a clock tick after its ctime, and then what befalls it is news."""
        self.world.build(jobs)
        self.world.build(jobs)
        self.runs = 2

    # What cuts in on a run shows something where something is to be made: an edit comes first.

    @rule(name=name, variant=variant)
    def build_twice_at_once(self, name: str, variant: int) -> None:
        self.changed().edit(name, variant, False)
        self.run().build_twice_at_once()

    @rule(name=name, variant=variant, after_s=st.floats(0.05, 0.6), jobs=st.sampled_from([1, 2]))
    def build_killed(self, name: str, variant: int, after_s: float, jobs: int) -> None:
        self.changed().edit(name, variant, False)
        self.run().build_killed(after_s, jobs)

    @precondition(lambda self: TRACES and self.runs < 2)
    @rule(call=CALLS)
    def build_killed_at(self, call: tuple[str, int]) -> None:
        self.run().build_killed_at(*call)

    @precondition(lambda self: TRACES)
    @rule(name=name, variant=variant, sidecar=st.booleans())
    def build_killed_where_it_gives_the_name(self, name: str, variant: int, sidecar: bool) -> None:
        """Before the rename that brings an engine, or its sidecar, to its place."""
        world = self.changed()
        world.edit(name, variant, False)
        path = world.sidecar(name) if sidecar else world.engine(name)
        self.run().build_killed_at("rename", 1, path)
