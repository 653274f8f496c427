"""Several builds at once: one compile an engine, nobody waits for the dead, and a file system without
locks is refused rather than trusted."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, make_model, sound

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


def wait_for(what, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def hold(folder: Path, go: Path) -> str:
    """A compiler that waits for the file `go`, or for its parent's end."""
    act = f"""
while not os.path.exists({str(go)!r}) and os.getppid() != 1:
    time.sleep(0.005)
done(write())
"""
    return str(fake_compiler(folder, act, "tensorrt_rtx", "1.7.1.116"))


def compiles(tree: Tree) -> int:
    calls = tree.path("fake/compiled")
    return len(calls.read_text().splitlines()) if calls.exists() else 0


@pytest.fixture
def held(tree: Tree) -> Tree:
    """One engine, whose compile lasts until `go` is there."""
    make_model(tree.path("models/a.onnx"))
    tree.write('env.Engine("a", "models/a.onnx")')
    tree.environment["TRT_PYTHON"] = hold(tree.path("fake"), tree.path("go"))
    return tree


class Running:
    """A scons whose words can be read while it runs."""

    def __init__(self, tree: Tree, *arguments: str, cwd: Path | None = None, **more: str) -> None:
        self._said = tree.root / f"said{time.monotonic_ns()}"
        with open(self._said, "wb") as out:
            self.process = subprocess.Popen(
                tree.command(*(arguments or ("engines",))),
                cwd=cwd or tree.root,
                env=tree.env(**more),
                stdout=out,
                stderr=out,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()


def test_a_waiter_says_for_whom_and_since_when_and_a_killed_holder_is_noticed_at_once(
    held: Tree,
) -> None:
    first = Running(held)
    wait_for(lambda: compiles(held) == 1)
    second = Running(held)
    wait_for(lambda: "WAITING" in second.said)
    whom = (
        rf"WAITING engines/a__\S+\.engine: for process {first.process.pid}, compiling "
        r"engines/a__\S+\.engine since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n"
    )
    assert re.search(whom, second.said), second.said
    killed = time.monotonic()
    first.process.kill()
    wait_for(lambda: compiles(held) == 2)
    assert time.monotonic() - killed < 10  # a poll of 0.1 s and the start of an interpreter
    held.path("go").touch()
    first.process.wait()
    assert second.process.wait(timeout=30) == 0, second.said
    assert held.scons().reused == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_waiter_that_is_stopped_ends_soon_and_leaves_the_holder_alone(held: Tree, number: int) -> None:
    first = Running(held)
    wait_for(lambda: compiles(held) == 1)
    second = Running(held)
    wait_for(lambda: "WAITING" in second.said)
    second.process.send_signal(number)
    assert second.process.wait(timeout=10) not in (0, None)
    assert "Traceback" not in second.said
    held.path("go").touch()
    assert first.process.wait(timeout=30) == 0, first.said
    assert compiles(held) == 1


def test_a_wait_that_may_last_so_long_says_for_whom_it_was_and_what_to_do(held: Tree) -> None:
    first = Running(held)
    wait_for(lambda: compiles(held) == 1)
    run = held.scons(TRT_LOCK_TIMEOUT="0.2")
    assert (run.status, run.failed) == (2, ["a"])
    assert re.fullmatch(
        rf"LockTimeout: waited 0\.2 s \(TRT_LOCK_TIMEOUT\) for process {first.process.pid}, "
        r"compiling engines/a__\S+\.engine since [\d: -]+ to release \S+\.lock; run again "
        r"when it is done, or with a longer TRT_LOCK_TIMEOUT",
        run.reason("a"),
    )
    held.path("go").touch()
    assert first.process.wait(timeout=30) == 0


@pytest.mark.slow
def test_eight_scons_in_two_trees_with_one_state_folder(tmp_path) -> None:
    """The trees have engines of the same names, of other models: each compiles its own, once."""
    state, trees = tmp_path / "state", []
    for number in range(2):
        tree = Tree(tmp_path / f"tree{number}")
        for seed, name in enumerate("abcd"):
            make_model(tree.path(f"models/{name}.onnx"), seed=seed + 10 * number)
        tree.write('for n in "abcd": env.Engine(n, f"models/{n}.onnx")')
        python = fake_compiler(
            tree.path("fake"), "time.sleep(0.2); done(write())", "tensorrt_rtx", "1.7.1.116"
        )
        tree.environment.update(TRT_PYTHON=str(python), TRT_STATE_DIR=str(state))
        trees.append(tree)
    running = [(tree, Running(tree, "-j4", "engines")) for tree in trees * 4]
    said = "".join(f"{run.process.wait(timeout=120)}\n{run.said}" for _, run in running)
    assert [run.process.returncode for _, run in running] == [0] * 8, said
    assert "Traceback" not in said
    assert all("engines: " in run.said.splitlines()[-1] for _, run in running)
    for tree in trees:
        assert compiles(tree) == 4
        assert sorted(tree.engines()) == list("abcd")
        assert all(sound(engine) for engine in tree.engines().values())
        assert len(list(tree.path("engines").iterdir())) == 8
        assert tree.scons("-q", "engines").status == 0
    assert list(state.glob("partial/*")) == []


@needs_strace
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_refused_and_the_way_out_named(held: Tree, error: str) -> None:
    """As an NFS without its lock service answers: unlocked, two builds would write over each other."""
    held.path("go").touch()
    command = ["strace", "-f", "-o", os.devnull, "-e", f"inject=flock:error={error}"]
    done = subprocess.run(
        [*command, *held.command("engines")],
        cwd=held.root,
        env=held.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert ".lock: this file system does not support locks" in done.stdout
    assert "set TRT_STATE_DIR to a folder on another one" in done.stdout
    assert compiles(held) == 0
    assert held.scons().built == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_one_tree_under_two_names_is_one_tree(held: Tree, tmp_path) -> None:
    """Mounted a second time, as into a container: the locks are the files', not the paths'."""
    there = tmp_path / "there"
    there.mkdir()
    done = subprocess.run(["mount", "--bind", held.root, there], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        first = Running(held)
        wait_for(lambda: compiles(held) == 1)
        second = Running(held, cwd=there)
        wait_for(lambda: "WAITING" in second.said)
        held.path("go").touch()
        assert [run.process.wait(timeout=30) for run in (first, second)] == [0, 0]
        assert compiles(held) == 1
    finally:
        subprocess.run(["umount", "-l", there], check=True)


@pytest.mark.slow
def test_eight_scons_at_once_compile_each_engine_once(two: Tree) -> None:
    python = fake_compiler(two.path("fake"), "time.sleep(0.5); done(write())", "tensorrt_rtx", "1.7.1.116")
    two.environment["TRT_PYTHON"] = str(python)
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(two.scons("-j4", "engines"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.status for run in runs] == [0] * 8
    assert sorted(name for run in runs for name in run.built) == ["a", "b"]
    assert len(two.path("fake/compiled").read_text().splitlines()) == 2
    assert all(run.summary.startswith("engines: ") for run in runs)
    assert any("WAITING" in run.out and "process" in run.out for run in runs)
    assert json.loads(two.path(".trt/declared.json").read_text())["schema"] == 1


@needs_strace
def test_two_scons_write_their_records_without_each_other(built: Tree) -> None:
    slow = ["strace", "-f", "-o", os.devnull, "-e", "inject=rename:delay_enter=300000"]
    running = [
        subprocess.Popen(
            [*slow, *built.command("engines")],
            cwd=built.root,
            env=built.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(3)
    ]
    said = [process.communicate()[0].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
