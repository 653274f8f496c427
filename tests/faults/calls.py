"""The system calls of one `scons engines` that touch its folders, and runs with a fault at one of them.

strace follows SCons's own process alone, whose calls come in the same order each time, so the
how-manyth of its name is a call's address; that the fault really hit the call is read off the log.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Run, Tree, fake_compiler, make_model, sha256

ALL = os.environ.get("FAULTS") == "all"


def traces() -> bool:
    """Whether strace is here and allowed."""
    try:
        return subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode == 0
    except OSError:
        return False


TRACES = traces()
needs_strace = pytest.mark.skipif(not TRACES, reason="strace is not installed, or not allowed")

LINE = re.compile(r"(\w+)\((.*)")
MUTATES = re.compile(
    r"open.*O_CREAT|creat\(|p?write|rename|mkdir|symlink|link|unlink|rmdir|trunc|utime|fsync"
)
IN_MEMORY = ("ioctl", "lseek", "fcntl")  # they touch no disk that could fail
GROWS = re.compile(r"open.*O_CREAT|p?write|rename|mkdir|symlink|link\(|linkat|fsync")
# Dies with its parent as the real worker does, and counts its compiles in its own tree.
ACT = """
link = {}
exec(dict(job["modules"])["scons_tensorrt.worker.common.parent"], link)
link["die_with_parent"]()
with open(job["output"].split("/.trt/")[0] + "/compiled", "a") as calls:
    calls.write("1\\n")
done(write())
"""


@dataclass(frozen=True)
class Call:
    """when: its how-manyth of `name`, from 1; text: as strace wrote it, without the tree's root."""

    name: str
    when: int
    text: str

    @property
    def mutates(self) -> bool:
        return bool(MUTATES.match(f"{self.name}({self.text}"))

    def faults(self) -> list[str]:
        """What can go wrong at it, in strace's words."""
        found = ["signal=SIGKILL"]
        if ".sconsign" in self.text or self.name in IN_MEMORY:
            return found  # SCons's record is SCons's own: what a kill leaves of it concerns us
        found.append("error=EIO")
        if GROWS.match(f"{self.name}({self.text}"):
            found += ["error=ENOSPC", "error=EDQUOT"]
        return found


@dataclass(frozen=True)
class Point:
    call: Call
    fault: str

    def __str__(self) -> str:
        return f"{self.fault} at {self.call.name} {self.call.when}: {self.call.text[:300]}"


def one(root: Path, fake: Path) -> Tree:
    """A tree with one engine, whose compiler is a fake."""
    tree = Tree(root)
    make_model(tree.path("models/a.onnx"), seed=1)
    tree.write('env.Engine("a", "models/a.onnx")')
    tree.environment.update(TRT_PYTHON=str(fake), PYTHONHASHSEED="0")
    return tree


def make_fake(folder: Path) -> Path:
    fake = fake_compiler(folder, ACT, "tensorrt_rtx", "1.7.1.116")
    (folder / "compiled").touch()  # the folder's mtime is part of what SCons remembers of it
    return fake


def edit(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), seed=2)


def traced(
    tree: Tree,
    fault: str | None = None,
    call: Call | None = None,
    log: Path | None = None,
    arguments: tuple[str, ...] = ("engines",),
) -> tuple[Run, list[str]]:
    """A run under strace, with a fault at a call if one is given; the run and strace's lines."""
    log = log or tree.root.with_name(tree.root.name + ".strace")
    inject = ["-e", f"inject={call.name}:{fault}:when={call.when}"] if call else []
    done = subprocess.run(
        ["strace", "-y", "-o", str(log), *inject, *tree.command(*arguments)],
        cwd=tree.root,
        env=tree.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    lines = log.read_text(errors="replace").splitlines()
    log.unlink()
    return Run(done.stdout.decode(), done.returncode), lines


def calls_of(root: Path, lines: list[str]) -> list[Call]:
    """The calls that touch engines, state folder or SCons's record, in order."""
    counts: Counter[str] = Counter()
    found = []
    for line in lines:
        match = LINE.match(line)
        if not match:
            continue
        name, text = match.groups()
        counts[name] += 1
        if name != "execve" and touches(root, text):
            found.append(Call(name, counts[name], text.replace(str(root), "")))
    return found


def touches(root: Path, text: str) -> bool:
    return f"{root}/engines" in text or any(part in text for part in (f"{root}/.", '".sconsign'))


def hit(root: Path, call: Call, fault: str, lines: list[str]) -> bool:
    """Whether the fault came, and at a call to these folders."""
    if fault.startswith("signal"):
        last = next(line for line in reversed(lines) if LINE.match(line))
        return "+++ killed by SIGKILL" in lines[-1] and touches(root, last)
    injected = [line for line in lines if "(INJECTED)" in line]
    return len(injected) == 1 and touches(root, injected[0])


def compiles(tree: Tree) -> int:
    try:
        return tree.path("compiled").stat().st_size // 2
    except FileNotFoundError:
        return 0


def pair(tree: Tree) -> tuple[str | None, str | None]:
    """sha256 of what is under the engine's name, and the sidecar's text."""
    engine = tree.engines().get("a")
    sides = list(tree.path("engines").glob("a__*.sha256"))
    return engine and sha256(engine), sides[0].read_text() if sides else None


def committed(tree: Tree, digest: str) -> bool:
    """Whether there is a receipt of the engine `digest`."""
    return any(
        json.loads(path.read_text())["sha256"] == digest
        for path in tree.path(".trt/receipts").rglob("*.json")
    )


def processes_in(root: Path) -> list[int]:
    """Processes that work in a tree."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{os.readlink(entry / 'cwd')}/".startswith(f"{root}/"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def litter(tree: Tree) -> list[str]:
    """What lies about that is no engine and no sidecar, and what is on its way to nowhere."""
    record = re.compile(r".*\.engine(\.sha256)?")
    beside = [p for p in tree.path("engines").iterdir() if not record.fullmatch(p.name)]
    left = beside + list(tree.path(".trt/partial").glob("*"))
    return sorted(str(p.relative_to(tree.root)) for p in left)


def temporaries(tree: Tree) -> list[Path]:
    """Of records in the state folder, whose writer failed or was killed."""
    return list(tree.path(".trt").rglob("*.tmp")) if tree.path(".trt").exists() else []


@dataclass(frozen=True)
class Scenario:
    """A tree as a run finds it. old, new: sha256 of the engine that is there, and that is wanted;
    compiled: it was, so that no fault may compile it again; rereads: but where the pair itself
    cannot be read, it may; fallible: or anything else. arguments: of scons."""

    name: str
    template: Tree
    old: str | None
    new: str
    compiled: bool = False
    rereads: bool = False
    fallible: bool = False
    arguments: tuple[str, ...] = ("engines",)

    def copy(self, root: Path) -> Tree:
        tree = Tree.__new__(Tree)
        tree.root, tree.environment = root, self.template.environment
        subprocess.run(["cp", "-a", str(self.template.root), str(root)], check=True)
        return tree

    def points(self, room: Path) -> list[Point]:
        """Every fault at every call."""
        tree = self.copy(room / f"{self.name}-trace")
        run, lines = traced(tree, arguments=self.arguments)
        assert run.status == 0, run.out
        assert pair(tree) == (self.new, self.new)
        calls = [call for call in calls_of(tree.root, lines) if self.concerns(call)]
        shutil.rmtree(tree.root)
        return [Point(call, fault) for call in calls for fault in call.faults()]

    def concerns(self, call: Call) -> bool:
        """Whether no other scenario has the call."""
        return True

    def half(self, tree: Tree, run: Run) -> str | None:
        """What else is wrong right after a fault."""

    def unfinished(self, tree: Tree) -> str | None:
        """What else is wrong after the runs that follow."""

    def attempt(self, point: Point, root: Path) -> str | None:
        """What is wrong after a fault at `point`; None when nothing is. Raises LookupError when the
        fault did not come where it should."""
        tree = self.copy(root)
        run, lines = traced(tree, point.fault, point.call, arguments=self.arguments)
        if not hit(tree.root, point.call, point.fault, lines):
            shutil.rmtree(root)
            raise LookupError(str(point))
        problem = self.check_up_to_date(tree, run, point)
        shutil.rmtree(root)
        return problem and f"{self.name}: {point}:\n  {problem}"

    def check_up_to_date(self, tree: Tree, run: Run, point: Point) -> str | None:
        """What is wrong with a tree in which a run met a fault, and with the runs that follow."""
        killed = time.monotonic()
        while processes_in(tree.root):
            if time.monotonic() - killed > 10:
                return "an orphan"
            time.sleep(0.01)
        if "Traceback" in run.out:
            return f"a traceback: {run.out}"
        if point.fault.startswith("error") and run.status not in (0, 2):
            return f"status {run.status}: {run.out}"
        now, before = pair(tree), compiles(tree)
        whole = [(self.old, self.old), (self.new, self.old), (self.new, self.new)]
        if now not in whole:
            return f"half a pair: {now}; {run.out}"
        if run.status == 0 and now != (self.new, self.new):
            return f"status 0 and not the wanted engine: {run.out}"
        may = self.fallible or (self.rereads and "/engines/" in point.call.text)
        unreadable = may and point.fault.startswith("error")
        if self.compiled and before and not unreadable:
            return f"compiled again in the same run: {run.out}"
        try:
            done = committed(tree, self.new)
        except ValueError:
            return "half a receipt"
        if self.compiled and not done:
            return "the receipt is gone"
        half = self.half(tree, run)
        if half:
            return half
        if temporaries(tree) and point.fault.startswith("error"):
            return f"a temporary, though nothing was killed: {temporaries(tree)}"
        for path in temporaries(tree):
            os.utime(path, (1, 1))  # the next run comes after a day, when nobody can be writing it
        for turn in ("next run", "run after it"):
            run = Run(*self._again(tree))
            if run.status != 0:
                return f"{turn}: status {run.status}: {run.out}"
            if pair(tree) != (self.new, self.new):
                return f"{turn}: {pair(tree)}: {run.out}"
            made, spec = compiles(tree) - before, 0 if done else 1
            if made != spec:
                return f"{turn}: {made} compiles instead of {spec}: {run.out}"
        left = litter(tree) + temporaries(tree)
        return f"left behind: {left}" if left else self.unfinished(tree)

    def _again(self, tree: Tree) -> tuple[str, int]:
        done = subprocess.run(
            tree.command(*self.arguments),
            cwd=tree.root,
            env=tree.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        return done.stdout.decode(), done.returncode


# Dies with its parent as the real converter does, counts itself, and gives what was made beforehand.
CONVERTER = """#!{python}
import hashlib, json, os, shutil, sys
stdin = sys.stdin.buffer
job = json.loads(stdin.read(int(stdin.read(16))))
link = {{}}
exec(dict(job["modules"])["scons_tensorrt.worker.common.parent"], link)
link["die_with_parent"]()
with open(job["target"].split("/.trt/")[0] + "/converted", "a") as calls:
    calls.write("1\\n")
source = hashlib.sha256(open(job["onnx"]["onnx"], "rb").read()).hexdigest()
for suffix in (".data", ""):
    shutil.copyfile({folder!r} + "/" + source + ".onnx" + suffix, job["target"] + suffix)
print(json.dumps({{"event": "done", "facts": {{}}}}), flush=True)
"""


def half_of(seed: int, model: Path, folder: Path) -> tuple[str, str]:
    """Let the fake converter know what it makes of `model`: another ONNX, and its data beside it;
    their sha256."""
    made = folder / f"{sha256(model)}.onnx"
    make_model(made, seed=seed, external="a.fp16.onnx.data", depth=seed % 2)
    data = made.with_name("a.fp16.onnx.data").rename(f"{made}.data")
    return sha256(made), sha256(data)


@dataclass(frozen=True)
class Conversion(Scenario):
    """An engine that is made of an ONNX that is made first; was, will: sha256 of that one and of its
    data, before and after."""

    was: tuple[str, str] = ("", "")
    will: tuple[str, str] = ("", "")

    def concerns(self, call: Call) -> bool:
        return bool(re.search(r"\.fp16\.onnx|/step|/\.trt/onnx", call.text))

    def half(self, tree: Tree, run: Run) -> str | None:
        now = self._now(tree)
        if now not in (self.was, (self.was[0], self.will[1]), self.will):
            return f"half an ONNX: {now}"
        if run.status == 0 and now != self.will:
            return "status 0 and not the wanted ONNX"
        tree.path("there").write_text("1\n" if now == self.will else "")
        tree.path("before").write_text(self._converted(tree))
        return None

    def unfinished(self, tree: Tree) -> str | None:
        if self._now(tree) != self.will:
            return f"another ONNX than is wanted: {self._now(tree)}"
        made = len(self._converted(tree)) - len(tree.path("before").read_text())
        if made > (0 if tree.path("there").read_text() else 2):
            return f"made again {made // 2} times: {tree.path('there').read_text()!r}"
        return None

    def _now(self, tree: Tree) -> tuple[str, str]:
        place = tree.path(".trt/onnx/a.fp16.onnx")
        return sha256(place), sha256(Path(f"{place}.data"))

    def _converted(self, tree: Tree) -> str:
        calls = tree.path("converted")
        return calls.read_text() if calls.exists() else ""


def conversion(room: Path, fake: Path) -> Conversion:
    """An edit of a model whose engine has another precision."""
    folder = room / "converter"
    folder.mkdir()
    script = folder / "python"
    script.write_text(CONVERTER.format(python=sys.executable, folder=str(folder)))
    script.chmod(0o755)
    tree = one(room / "conversion", fake)
    tree.environment["TRT_ONNX_PYTHON"] = str(script)
    tree.write('env.Engine("a", "models/a.onnx", precision="fp16")')
    tree.path("converted").touch()
    was = half_of(1, tree.path("models/a.onnx"), folder)
    assert tree.scons().built == ["a"]
    first = sha256(tree.engine("a"))
    edit(tree)
    will = half_of(2, tree.path("models/a.onnx"), folder)
    tree.path("compiled").unlink()
    tree.path("converted").unlink()
    other = Conversion("conversion", tree, first, "", was=was, will=will).copy(room / "converted")
    assert other.scons().built == ["a"]
    return Conversion("conversion", tree, first, sha256(other.engine("a")), was=was, will=will)


@dataclass(frozen=True)
class Prune(Scenario):
    """An engine that is no longer declared is removed, the declared one is not. gone: its name."""

    gone: str = "b"

    def half(self, tree: Tree, run: Run) -> str | None:
        engine = tree.engines().get(self.gone)
        sides = list(tree.path("engines").glob(f"{self.gone}__*.sha256"))
        if sides and not engine:
            return "a sidecar without its engine"
        if sides and sides[0].read_text() != sha256(engine):
            return "a pair that disagrees"
        if engine and not list(tree.path(".trt/receipts").glob(f"{self.gone}__*/*.json")):
            return "an engine that no receipt knows any more"
        if run.status == 0 and engine:
            return "status 0 and not removed"
        return None

    def unfinished(self, tree: Tree) -> str | None:
        left = [p for p in tree.root.rglob(f"{self.gone}__*") if p.is_file()]
        if left:
            return f"not removed: {left}"
        run = tree.scons()
        return None if run.reused == ["a"] else f"a is not as it was: {run.out}"


def prune(room: Path, fake: Path) -> Prune:
    tree = one(room / "prune", fake)
    make_model(tree.path("models/b.onnx"), seed=3)
    tree.write('for n in "ab": env.Engine(n, f"models/{n}.onnx")')
    assert tree.scons().built == ["a", "b"]
    tree.write('env.Engine("a", "models/a.onnx")')
    assert tree.scons().reused == ["a"]
    tree.path("compiled").unlink()
    digest = sha256(tree.engine("a"))
    arguments = ("engines-prune", "PRUNE=yes")
    return Prune("prune", tree, digest, digest, compiled=True, arguments=arguments)


def scenarios(room: Path) -> dict[str, Scenario]:
    """First build; rebuild over an old pair; return of the engine that was replaced; adoption of a compile
    whose publishing was cut off before the engine's rename, and before the sidecar's; reuse; an ONNX that is
    made first; prune."""
    fake = make_fake(room / "fake")
    empty = one(room / "empty", fake)
    built = one(room / "built", fake)
    assert built.scons().built == ["a"]
    first = sha256(built.engine("a"))
    edit(built)
    built.path("compiled").unlink()
    rebuild = Scenario("rebuild", built, first, "")
    other = rebuild.copy(room / "rebuilt")
    _, lines = traced(other)
    second = sha256(other.engine("a"))
    reuse = one(room / "again", fake)
    assert reuse.scons().built == ["a"]
    found = {
        "first": Scenario("first", empty, None, first),
        "rebuild": Scenario("rebuild", built, first, second),
        "reuse": Scenario("reuse", reuse, first, first, compiled=True, rereads=True),
    }
    reuse.path("compiled").unlink()
    back = rebuild.copy(room / "back")
    assert back.scons().built == ["a"]
    make_model(back.path("models/a.onnx"), seed=1)
    back.path("compiled").unlink()
    found["return"] = Scenario("return", back, second, first, compiled=True, fallible=True)
    renames = [c for c in calls_of(other.root, lines) if re.match("rename", c.name)]
    for name, target in (("adopt", ".engine"), ("adopt-half", ".engine.sha256")):
        call = next(c for c in renames if re.search(rf'"/engines/a__[^/]*{re.escape(target)}"', c.text))
        cut = rebuild.copy(room / f"{name}-template")
        traced(cut, "signal=SIGKILL", call)
        cut.path("compiled").unlink()
        assert litter(cut)
        half = second if name == "adopt-half" else first
        assert pair(cut) == (half, first)
        found[name] = Scenario(name, cut, first, second, compiled=True)
    found["conversion"] = conversion(room, fake)
    found["prune"] = prune(room, fake)
    return found
