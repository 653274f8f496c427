"""A tree of three engines for two boards under everything that may befall it, beside a model of what
must then be compiled. Engine b has a plugin; c has a conversion and an accuracy gate.

The compiler and the converter are fakes whose bytes say all that they are made from, so the model
knows them beforehand; it reads engines, sidecars, receipts and the store whole and believes no stat.
What it says of a run: an engine is compiled, once, unless there is a receipt of the wanted bytes and
either the pair holds them or their publishing was cut off, or they were kept, or the other board's folder
or the store has them. A step likewise, but that none is kept. An engine whose gate fails stays as it is, and
the run fails.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from calls import TRACES, processes_in
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from played import (
    ACT,
    SAMPLES,
    engine_of,
    fake_converter,
    figures_of,
    half_of,
    plugins,
    sha,
)
from stores import Store

from conftest import REPO, Run, Tree, fake_compiler, hardware, make_model

NAMES, BOARDS = ("a", "b", "c"), ("here", "there")
STEPS = ("c.fp16.onnx", "c.fp16.accuracy.json")
ENGINES = """
env.Engine("a", "models/a.onnx", workspace_mb={0})
env.Engine("b", "models/b.onnx", workspace_mb={0}, plugins=["models/libp.so"])
env.Engine(
    "c", "models/c.onnx", workspace_mb={0}, precision="fp16", strongly_typed=True,
    accuracy="models/c.npz",
)
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
            TRT_ONNX_PYTHON=str(fake_converter(self.room / "fake")),
        )
        self.store, self.mode = Store(self.room), "off"
        self.board, self.workspace_mb = "here", 2048
        self.sm_count = dict.fromkeys(BOARDS, 8)
        # Compiled and not published, (place, sha256): whether its bytes are at the place already.
        self.cut_off: dict[tuple[Path, str], bool] = {}
        for number, name in enumerate(NAMES):
            self.model(name).write_bytes(variants()[number])
        for board in BOARDS:
            self.swap_board(board, 8)
        self.samples.write_bytes(SAMPLES[0])
        self.plugin.write_bytes(plugins()[0])
        self.choose(2048)
        self.commits = [self.inputs()]
        self.steps_once: dict[str, bytes] = {}  # as they were once, to be put back

    def close(self) -> None:
        shutil.rmtree(self.room)

    # What a user does.

    def choose(self, workspace_mb: int) -> None:
        self.workspace_mb = workspace_mb
        self.tree.write(ENGINES.format(workspace_mb))

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
        other = NAMES[NAMES.index(name) - 1]
        for path, source in (
            (self.engine(name), self.engine(other)),
            (self.sidecar(name), self.sidecar(other)),
        ):
            if source.exists():
                shutil.copy2(source, path)

    def harm_kept(self, number: int, how: str) -> None:
        """how: of TAMPERINGS, or "delete"."""
        files = sorted(self.tree.path(".trt/kept").glob("*"))
        if files and how == "delete":
            files[number % len(files)].unlink()
        elif files:
            replace(
                files[number % len(files)], TAMPERINGS[how](files[number % len(files)].read_bytes()), True
            )

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def delete_receipts(self) -> None:
        shutil.rmtree(self.tree.path(".trt/receipts"), ignore_errors=True)
        self.cut_off.clear()

    def edit_samples(self, number: int | None, keep_mtime: bool) -> None:
        """number: None removes them."""
        if number is None:
            self.delete(self.samples)
        else:
            replace(self.samples, SAMPLES[number], keep_mtime)

    def edit_plugin(self, number: int, keep_mtime: bool) -> None:
        replace(self.plugin, plugins()[number], keep_mtime)

    def harm_step(self, step: str, how: str, keep_mtime: bool) -> None:
        """how: of TAMPERINGS, "delete", or "restore", which puts back what was there before."""
        path = self.step(step)
        if not path.exists() and how != "restore":
            return
        if how == "delete":
            path.unlink()
        elif how == "restore":
            if step in self.steps_once:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace(path, self.steps_once[step], keep_mtime)
        else:
            self.steps_once[step] = path.read_bytes()
            replace(path, TAMPERINGS[how](self.steps_once[step]), keep_mtime)

    def inputs(self) -> dict[str, bytes]:
        """All that a repository of the tree would hold."""
        found = [*self.tree.path("models").iterdir(), self.tree.path("SConstruct")]
        kept = {str(path.relative_to(self.tree.root)): path.read_bytes() for path in found}
        return {**kept, "": str(self.workspace_mb).encode()}

    def checkout(self, commit: dict[str, bytes]) -> None:
        """As git does: each file that differs is removed and written anew."""
        now = self.inputs()
        for name in now.keys() - commit.keys():
            self.tree.path(name).unlink()
        for name, data in commit.items():
            if name and now.get(name) != data:
                self.tree.path(name).unlink(missing_ok=True)
                self.tree.path(name).write_bytes(data)
        self.workspace_mb = int(commit[""])

    def use_store(self, mode: str) -> None:
        self.mode = mode
        self.tree.environment = {
            **{n: text for n, text in self.tree.environment.items() if not n.startswith("TRT_STORE")},
            **self.store.settings(mode),
        }

    def harm_store(self, kind: str, number: int, how: str) -> None:
        """kind: "ac" for an entry, "cas" for bytes; how: of TAMPERINGS, "delete", or "swap" for the
        bytes of the next one."""
        files = self.store.files(kind)
        if not files:
            return
        path, other = files[number % len(files)], files[(number + 1) % len(files)]
        if how == "delete":
            self.store.harm(path, None)
        else:
            data = other.read_bytes() if how == "swap" else TAMPERINGS[how](path.read_bytes())
            self.store.harm(path, data)

    # Where things are, and what they shall be.

    @property
    def samples(self) -> Path:
        return self.tree.path("models/c.npz")

    @property
    def plugin(self) -> Path:
        return self.tree.path("models/libp.so")

    def step(self, name: str) -> Path:
        return self.tree.path(f".trt/onnx/{name}")

    def model(self, name: str) -> Path:
        return self.tree.path(f"models/{name}.onnx")

    def engine(self, name: str) -> Path:
        precision = "fp16" if name == "c" else "fp32"
        return self.tree.path(f"engines/{self.board}/{name}__sm87_jp6.2_trt10.3_{precision}.engine")

    def sidecar(self, name: str) -> Path:
        return Path(f"{self.engine(name)}.sha256")

    def compiled_from(self, name: str) -> list[bytes]:
        """The files that the compiler reads for an engine."""
        onnx = self.model(name).read_bytes()
        more = [self.plugin.read_bytes()] if name == "b" else []
        return [half_of(onnx) if name == "c" else onnx, *more]

    def spec(self, name: str) -> str:
        """sha256 of the engine as it is wanted now."""
        onnx, *more = self.compiled_from(name)
        return sha(engine_of(onnx, self.workspace_mb, self.sm_count[self.board], *more))

    def fails(self, name: str) -> bool:
        """Whether its gate cannot pass."""
        return name == "c" and not (self.samples.exists() and self.samples.read_bytes() in SAMPLES[:2])

    def step_wanted(self, step: str) -> str | None:
        """sha256 of the step as it is wanted now; None where it cannot be made."""
        onnx = self.model("c").read_bytes()
        if step == STEPS[0]:
            return sha(half_of(onnx))
        return None if self.fails("c") else sha(figures_of(onnx, self.samples.read_bytes()))

    def step_is(self, step: str) -> str | None:
        path = self.step(step)
        return sha(path.read_bytes()) if path.exists() else None

    def must_make(self, step: str) -> bool:
        spec = self.step_wanted(step)
        if spec is None:
            return False
        if any(self.tree.path(f".trt/receipts/{step}").glob(f"*.{spec[:16]}.json")):
            waiting = self._partial(self.step(step)) / "step" / step
            if spec == self.step_is(step) or (waiting.exists() and sha(waiting.read_bytes()) == spec):
                return False
        return not self.in_store(step, spec)

    def in_store(self, name: str, digest: str) -> bool:
        return self.mode != "off" and self.store.key_of(name, digest) is not None

    def pair(self, name: str) -> tuple[str | None, str | None]:
        engine, side = self.engine(name), self.sidecar(name)
        return (
            sha(engine.read_bytes()) if engine.exists() else None,
            side.read_text(errors="replace") if side.exists() else None,
        )

    def receipt(self, name: str) -> int | None:
        """Which file the receipt of the wanted bytes is; writing it again makes another."""
        folder = self.tree.path(".trt/receipts") / self.engine(name).stem
        found = list(folder.glob(f"*.{self.spec(name)[:16]}.json"))
        return found[0].stat().st_mtime_ns if found else None

    def must_come(self, name: str) -> bool:
        """Whether an engine must be compiled or fetched."""
        spec = self.spec(name)
        if self.fails(name):
            return False
        if self.receipt(name) is None:
            return True
        if self.pair(name) == (spec, spec) or self._waits(self.engine(name), spec):
            return False
        return not self.comes_back(name)

    def comes_back(self, name: str) -> bool:
        """Whether the wanted engine was kept, or the other board's folder has it; not where somebody altered
        what is in place."""
        spec, engine = self.spec(name), self.engine(name)
        if engine.exists():
            found = sha(engine.read_bytes())
            known = self.tree.path(".trt/receipts") / engine.stem
            if found == spec or not list(known.glob(f"*.{found[:16]}.json")):
                return False
        kept = self.tree.path(f".trt/kept/{engine.stem}.{spec[:16]}.engine")
        if kept.exists() and sha(kept.read_bytes()) == spec:
            return True
        [board] = {*BOARDS} - {self.board}
        other = engine.parent.with_name(board) / engine.name
        side = Path(f"{other}.sha256")
        whole = other.exists() and side.exists() and sha(other.read_bytes()) == spec
        return whole and side.read_text(errors="replace") == spec

    def must_compile(self, name: str) -> bool:
        fetched = self.in_store(self.engine(name).name, self.spec(name))
        return self.must_come(name) and not fetched

    def _waits(self, engine: Path, digest: str) -> bool:
        """Whether a finished compile waits to be brought to its place."""
        moved = self.cut_off.get((engine, digest))
        if moved:  # then those are the only bytes
            return engine.exists() and sha(engine.read_bytes()) == digest
        # Killed before the receipt was written again, a compile of the same bytes is as good.
        partial = self._partial(engine).glob("*.engine")
        return moved is not None or any(sha(each.read_bytes()) == digest for each in partial)

    def compiled(self) -> Counter[str]:
        return self._counted("compiled")

    def converted(self) -> Counter[str]:
        return self._counted("converted")

    def _counted(self, log: str) -> Counter[str]:
        try:
            return Counter(self.tree.path(log).read_text().split())
        except FileNotFoundError:
            return Counter()

    # Runs.

    def build(self, jobs: int = 1) -> None:
        """A run compiles what must be and nothing else, and all is right afterwards."""
        before = Before(self)
        run = self.tree.scons(f"-j{jobs}", *self._wants())
        assert run.status == before.status, run.out
        assert run.built == before.must, f"built {run.built} instead of {before.must}\n{run.out}"
        fetched = run.names("FETCHED")
        assert fetched == before.fetched, f"fetched {fetched} instead of {before.fetched}\n{run.out}"
        self._told_right(before, run)
        self._all_right(before, run.out)

    def _wants(self) -> tuple[str, ...]:
        return "-k", "engines", f"HARDWARE={self.board}"

    def _told_right(self, before: Before, run: Run) -> None:
        """What failed, and what was reused, is told by its name."""
        failed = [name for name in NAMES if self.fails(name)]
        assert run.failed == failed, run.out
        reused = [n for n in NAMES if n not in (*failed, *before.must, *before.fetched)]
        assert run.reused == reused, run.out

    def build_while_exchanged(self, path: Path, data: bytes) -> None:
        """Whatever a conversion works on has other bytes meanwhile, and its own again afterwards."""
        exchange = self.tree.path("exchange")
        exchange.write_text(json.dumps([str(path), data.hex()]))
        try:
            self.build()
        finally:
            exchange.unlink()

    def clone_fetches(self) -> None:
        """A second clone of the repository, which reads the store: it compiles what the store has not,
        and what it fetches are the same bytes of the same key."""
        clone = copy.copy(self)
        root = self.room / "clone"
        clone.tree = self.tree.copy(root, "models", "hardware", "SConstruct")
        clone.cut_off = {}
        try:
            clone.use_store("read")
            keys = {n: self.store.key_of(self.engine(n).name, self.spec(n)) for n in NAMES}
            fetched = Before(clone).fetched
            clone.build()
            for name in fetched:
                assert keys[name] in clone.keys_of(name), f"{name}: fetched under another key"
                if self.pair(name)[0] == self.spec(name):
                    assert keys[name] in self.keys_of(name), f"{name}: of another key than here"
        finally:
            shutil.rmtree(root)

    def build_twice_at_once(self) -> None:
        """Two processes compile each engine once between them."""
        before = Before(self)
        slow, log = self.tree.path("slow"), self.room / "said"
        slow.touch()
        with open(log, "wb") as out:
            running = [
                subprocess.Popen(
                    self.tree.command(*self._wants()),
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
        assert status == [before.status] * 2, said
        self._all_right(before, said)

    def build_killed(self, after_s: float, jobs: int) -> None:
        """SIGKILL at some moment."""
        before = Before(self)
        process = self.tree.start(f"-j{jobs}", *self._wants())
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
        command += self.tree.command(*self._wants())
        environment = self.tree.env()
        subprocess.run(command, cwd=self.tree.root, env=environment, capture_output=True, check=False)
        self._survived(before)

    def _survived(self, before: Before) -> None:
        """After a kill: nothing half, nobody left; and what was compiled by now is so for good."""
        wait_for(lambda: not processes_in(self.tree.root), 3)
        made = self.compiled() - before.compiled
        assert made <= before.expected, f"compiled {made}, of {before.expected}"
        made = self.converted() - before.converted
        assert made <= before.to_convert, f"converted {made}, of {before.to_convert}"
        for step in STEPS:
            now = self.step_is(step)
            assert now in (before.steps[step], self.step_wanted(step)), f"{step}: half of it"
        for name in NAMES:
            spec, now, place = self.spec(name), self.pair(name), self.engine(name)
            before.keeps(name)
            assert now[1] in (before.pairs[name][1], spec), f"{name}: a half sidecar"
            if now[1] != before.pairs[name][1]:
                assert now[0] == spec, f"{name}: a sidecar before its engine"
            if self.receipt(name) not in (None, before.receipts[name]):
                self.cut_off[place, spec] = False
            if now == (spec, spec):
                self.cut_off.pop((place, spec), None)
            elif (place, spec) in self.cut_off and now[0] == spec != before.pairs[name][0]:
                self.cut_off[place, spec] = True

    def _all_right(self, before: Before, said: str) -> None:
        made = self.compiled() - before.compiled
        assert made == before.expected, f"compiled {made} instead of {before.expected}\n{said}"
        made = self.converted() - before.converted
        if self.samples.exists():
            assert made == before.to_convert, f"converted {made} instead of {before.to_convert}\n{said}"
        assert made <= before.to_convert, f"converted {made}, of {before.to_convert}\n{said}"
        for name in NAMES:
            if self.fails(name):
                assert self.pair(name) == before.pairs[name], f"{name} changed\n{said}"
                continue
            spec = self.spec(name)
            assert self.pair(name) == (spec, spec), said
            before.keeps(name)
            assert self.keys_of(name), f"{name}: no receipt of its inputs as they are\n{said}"
            self.cut_off.pop((self.engine(name), spec), None)
            self._nothing_left(self.engine(name))
        if not self.fails("c"):
            self._steps_right(said)
        names = {path.name for path in self.engine("a").parent.iterdir()}
        whole = {p.name for n in NAMES for p in (self.engine(n), self.sidecar(n)) if p.exists()}
        assert names == whole, names

    def _steps_right(self, said: str) -> None:
        for step in STEPS:
            assert self.step_is(step) == self.step_wanted(step), f"{step} is not what it should be\n{said}"
            left = list(self._partial(self.step(step)).glob("*"))
            assert not left, f"left behind: {left}"

    def keys_of(self, name: str) -> list[str]:
        """The keys of receipts of the engine that is there, made of the inputs that are there."""
        digest, inputs = self.pair(name)[0], sorted(map(sha, self.compiled_from(name)))
        folder = self.tree.path(".trt/receipts") / self.engine(name).stem
        found = [json.loads(path.read_bytes()) for path in folder.glob("*.json")]
        return [
            receipt["key"]
            for receipt in found
            if receipt["sha256"] == digest
            and inputs == sorted(text for n, text in receipt["ingredients"].items() if n.startswith("input "))
        ]

    def _nothing_left(self, engine: Path) -> None:
        """Of temporaries, but for finished compiles of what was wanted at another time."""
        waiting = sum(2 for (place, _), moved in self.cut_off.items() if place == engine and not moved)
        left = list(self._partial(engine).glob("*"))
        assert len(left) == waiting, f"left behind: {left}"

    def _partial(self, target: Path) -> Path:
        path_id = sha(os.fsencode(target.relative_to(self.tree.root)))[:16]
        return self.tree.path(f".trt/partial/{path_id}")


class Before:
    """What is there before a run, and what the run must compile, convert and fetch."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.must = [name for name in NAMES if world.must_compile(name)]
        self.expected = Counter(world.spec(name) for name in self.must)
        self.fetched = [n for n in NAMES if world.must_come(n) and n not in self.must]
        self.status = 2 if any(map(world.fails, NAMES)) else 0
        self.compiled, self.converted = world.compiled(), world.converted()
        to_make = [world.step_wanted(step) for step in STEPS if world.must_make(step)]
        self.to_convert = Counter(digest for digest in to_make if digest)
        self.steps = {step: world.step_is(step) for step in STEPS}
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
        assert now in (before, self._world.spec(name)), f"{name}: half an engine"


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


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
    examples = steps = 0  # of all histories

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        type(self).steps -= 1  # the invariants are asked before the first step, too
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

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

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

    @rule(number=st.integers(0, 5), how=st.sampled_from([*sorted(TAMPERINGS), "delete"]))
    def harm_kept(self, number: int, how: str) -> None:
        self.changed().harm_kept(number, how)

    @rule()
    def delete_receipts(self) -> None:
        self.changed().delete_receipts()

    @rule(number=st.sampled_from([0, 1, 2, None]), keep_mtime=keep_mtime)
    def edit_samples(self, number: int | None, keep_mtime: bool) -> None:
        self.changed().edit_samples(number, keep_mtime)

    @rule(number=st.integers(0, 1), keep_mtime=keep_mtime)
    def edit_plugin(self, number: int, keep_mtime: bool) -> None:
        self.changed().edit_plugin(number, keep_mtime)

    @rule(
        step=st.sampled_from(STEPS),
        how=st.sampled_from([*sorted(TAMPERINGS), "delete", "restore"]),
        keep_mtime=keep_mtime,
    )
    def harm_step(self, step: str, how: str, keep_mtime: bool) -> None:
        self.changed().harm_step(step, how, keep_mtime)

    @rule()
    def commit(self) -> None:
        self.world.commits = [*self.world.commits[-2:], self.world.inputs()]

    @rule(number=st.integers(0, 2))
    def checkout(self, number: int) -> None:
        world = self.changed()
        world.checkout(world.commits[number % len(world.commits)])

    @rule(mode=st.sampled_from(["off", "read", "write", "write"]))
    def use_store(self, mode: str) -> None:
        self.changed().use_store(mode)

    @precondition(lambda self: self.world.store.folder.exists())
    @rule(
        kind=st.sampled_from(["ac", "cas"]),
        number=st.integers(0, 20),
        how=st.sampled_from([*sorted(TAMPERINGS), "delete", "swap"]),
    )
    def harm_store(self, kind: str, number: int, how: str) -> None:
        self.changed().harm_store(kind, number, how)

    @precondition(lambda self: self.world.store.folder.exists())
    @rule()
    def clone_fetches(self) -> None:
        self.world.clone_fetches()

    @rule(variant=variant, other=variant, of_samples=st.booleans())
    def build_while_exchanged(self, variant: int, other: int, of_samples: bool) -> None:
        """With a model, or with samples, that are others while the conversion and the gate work."""
        world = self.changed()
        world.edit("c", variant, False)
        path, data = (world.model("c"), variants()[other])
        if of_samples:
            path, data = (world.samples, SAMPLES[other])
        self.run()
        world.build_while_exchanged(path, data)

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
