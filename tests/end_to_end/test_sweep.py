"""SIGKILL at random moments of a build of four engines, twice over: nothing lost, nothing half,
no orphan. CI runs a sample; SWEEP=50 runs fifty moments."""

import os
import random
import time

import pytest

from conftest import WORKER, Tree, make_model, sound, workers_of

MOMENTS = int(os.environ.get("SWEEP", "4"))
NAMES = list("abcd")


@pytest.fixture(scope="module")
def seconds(tmp_path_factory) -> float:
    """How long an undisturbed build takes here."""
    tree = four(tmp_path_factory.mktemp("whole") / "tree")
    began = time.monotonic()
    assert tree.scons("-j2", "engines").built == NAMES
    return time.monotonic() - began


def four(root) -> Tree:
    tree = Tree(root)
    for seed, name in enumerate(NAMES):
        make_model(tree.path(f"models/{name}.onnx"), seed=seed, depth=4, width=32)
    tree.write('for n in "abcd": env.Engine(n, f"models/{n}.onnx")')
    return tree


def working_in(root) -> list[int]:
    """Workers whose folder is below `root`."""
    found = []
    for pid in workers_of(WORKER):
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(str(root)):
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_killed_at_a_random_moment_twice_over(tmp_path, seconds: float, seed: int) -> None:
    moments = random.Random(seed)
    tree = four(tmp_path / f"tree{seed}")
    receipts: set[str] = set()
    for _ in range(2):
        process = tree.start("-j2", "engines")
        time.sleep(moments.uniform(0.05, seconds))
        process.kill()
        process.wait()
        killed = time.monotonic()  # a worker that still starts up sees it when it is told its job
        while working_in(tree.root):
            assert time.monotonic() - killed < 10, "an orphan"
            time.sleep(0.01)
        for engine in tree.engines().values():
            data = engine.read_bytes()
            assert int.from_bytes(data[16:24], "little") == len(data), "half an engine"
        now = {path.name for path in tree.path(".trt/receipts").rglob("*.json")}
        assert receipts <= now, "a receipt was lost"
        receipts = now
    run = tree.scons("-j2", "engines")
    assert run.status == 0
    assert len(run.built) == 4 - len(receipts), "a finished compile was made again"
    assert sorted(run.built + run.reused) == NAMES
    assert all(sound(engine) for engine in tree.engines().values())
    assert len(list(tree.path("engines").iterdir())) == 8
    assert tree.scons("-q", "engines").status == 0
    assert not list(tree.path(".trt").rglob("partial/*/*"))
