"""Killed at any moment: never half an engine, never a finished compile lost, no child left."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from conftest import WORKER, Tree, fake_compiler, flip_last_bit, make_model, sha256, sound, workers_of


def wait_for(what, seconds: float = 30) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def slow(tree: Tree) -> Tree:
    """Four engines; all compiles but the first hang until the file `go` is there."""
    for seed, name in enumerate("abcd"):
        make_model(tree.path(f"models/{name}.onnx"), seed=seed)
    tree.write('for n in "abcd": env.Engine(n, f"models/{n}.onnx")')
    act = f"""
try:
    os.close(os.open(os.path.join(FOLDER, "first"), os.O_CREAT | os.O_EXCL))
except FileExistsError:
    while not os.path.exists({str(tree.path("go"))!r}) and os.getppid() != 1:
        time.sleep(0.01)
done(write())
"""
    python = fake_compiler(tree.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    tree.environment["TRT_PYTHON"] = str(python)
    return tree


def compiles(tree: Tree) -> int:
    try:
        return len(tree.path("fake/compiled").read_text().splitlines())
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("jobs", ["-j1", "-j4"])
def test_a_killed_scons_loses_no_finished_engine(slow: Tree, jobs: str) -> None:
    process = slow.start(jobs, "engines")
    wait_for(lambda: list(slow.path("engines").glob("*.sha256")) and compiles(slow) >= 2)
    process.kill()
    process.wait()
    wait_for(lambda: not workers_of(str(slow.path("fake"))))
    done = dict(slow.engines())
    assert all(sound(engine) for engine in done.values())
    before = compiles(slow)
    slow.path("go").touch()
    run = slow.scons()
    assert run.status == 0
    assert sorted(run.built + run.reused) == list("abcd")
    assert set(run.reused) >= set(done)
    assert compiles(slow) == before + len(run.built)
    assert all(sound(engine) for engine in slow.engines().values())
    assert not list(slow.path(".trt").rglob("partial/*/*"))


@pytest.mark.parametrize("jobs", ["-j1", "-j4"])
def test_no_worker_outlives_a_killed_scons(tree: Tree, jobs: str) -> None:
    """The real compiler, in the middle of a build that would run on for seconds."""
    make_model(tree.path("models/a.onnx"), shape=(1, 8, 64, 64), depth=60, width=64)
    tree.write(f'env.Engine("a", "models/a.onnx")\n# {tree.root}')
    process = tree.start(jobs, "engines")
    worker = wait_for(lambda: [p for p in workers_of(WORKER) if parent_of(p) == process.pid])[0]
    wait_for(lambda: b"model" in maps_of(worker) or b"libtensorrt_rtx" in maps_of(worker))
    process.kill()
    process.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"), seconds=2)
    assert tree.engines() == {}
    assert tree.scons().built == ["a"]


def parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def maps_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/maps", "rb") as maps:
            return maps.read()
    except OSError:
        return b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["-j1", "-j4"])
def test_a_stopped_scons_ends_soon_and_the_next_run_goes_on(slow: Tree, jobs: str, number: int) -> None:
    process = slow.start(jobs, "engines")
    wait_for(lambda: len(slow.engines()) >= 1 and compiles(slow) >= 2)
    process.send_signal(number)
    process.wait(timeout=10)  # the compiles go on until `go`
    assert process.returncode not in (0, None)
    assert not workers_of(str(slow.path("fake")))
    slow.path("go").touch()
    run = slow.scons()
    assert run.status == 0
    assert sorted(slow.engines()) == list("abcd")


def test_killed_before_publishing_then_reverted_reuses_the_old_pair(built: Tree) -> None:
    model = built.path("models/a.onnx")
    first, pair = model.read_bytes(), built.snapshot()
    make_model(model, seed=9, depth=60, width=64)
    process = built.start("engines")
    wait_for(lambda: [p for p in workers_of(WORKER) if parent_of(p) == process.pid])
    process.kill()
    process.wait()
    model.write_bytes(first)
    run = built.scons()
    assert (run.status, run.built, run.reused) == (0, [], ["a", "b"])
    assert built.snapshot() == pair


def test_killed_after_publishing_then_reverted_is_never_the_wrong_bytes(built: Tree) -> None:
    """SCons writes its record at the end: killed before that, it believes in the first build."""
    model = built.path("models/a.onnx")
    first, engine = model.read_bytes(), sha256(built.engine("a"))
    record = built.path(".sconsign.dblite").read_bytes()
    make_model(model, seed=9)
    assert built.scons().built == ["a"]
    built.path(".sconsign.dblite").write_bytes(record)
    model.write_bytes(first)
    assert built.scons("-q", "engines").status == 1
    run = built.scons()
    assert (run.built, run.reused) == ([], ["a", "b"])
    assert sha256(built.engine("a")) == engine


needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@needs_strace
@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("old_pair", [False, True], ids=["first build", "rebuild"])
def test_killed_at_each_call_of_publishing(two: Tree, call: str, old_pair: bool) -> None:
    python = fake_compiler(two.path("fake"), "done(write())", "tensorrt_rtx", "1.7.1.116")
    two.environment.update(TRT_PYTHON=str(python), TRT_CACHE_SIZE="0")  # each edit is to be compiled
    two.write('env.Engine("a", "models/a.onnx")')
    assert two.scons("-n", "engines").status == 0
    if old_pair:
        two.scons()
    for when in range(1, 12):
        flip_last_bit(two.path("models/a.onnx"))  # of a weight: another model each time
        inject = f"inject={call}:signal=SIGKILL:when={when}"
        status = subprocess.run(
            ["strace", "-f", "-o", os.devnull, "-e", inject, *two.command("engines")],
            cwd=two.root,
            env=two.env(),
            capture_output=True,
            check=False,
        ).returncode
        committed = len(list(two.path(".trt/receipts").rglob("*.json")))
        for engine in two.engines().values():
            data = engine.read_bytes()
            assert int.from_bytes(data[16:24], "little") == len(data)
        before = compiles(two)
        run = two.scons()
        assert run.status == 0
        assert sound(two.engine("a"))
        assert len(list(two.path("engines").iterdir())) == 2
        if len(list(two.path(".trt/receipts").rglob("*.json"))) == committed:
            assert compiles(two) == before, "a finished compile was made again"
        assert two.scons("-q", "engines").status == 0
        if status == 0:
            break  # the call came fewer times than `when`
    assert 4 < when < 11, "too few kills to mean anything, or not all calls tried"


def test_ctrl_c_at_the_terminal_is_not_called_a_crash(two: Tree) -> None:
    import signal

    python = fake_compiler(two.path("fake"), "time.sleep(30)", "tensorrt_rtx", "1.7.1.116")
    process = subprocess.Popen(
        two.command("engines"),
        cwd=two.root,
        env=two.env(TRT_PYTHON=str(python)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    while not two.path("fake/compiled").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert "INTERRUPTED engines/a__sm80plus_cu13.0_rtx1.7_fp32.engine: stopped on request" in out
    assert "crashed" not in out
    assert process.returncode != 0


@pytest.mark.parametrize("place", ["inside", "another filesystem"])
def test_what_a_killed_compile_left_is_swept_once_the_old_pair_is_current_again(
    two: Tree, place: str, tmp_path
) -> None:
    import tempfile

    state = tempfile.mkdtemp(dir="/dev/shm") if place != "inside" else str(two.path(".trt"))
    two.environment["TRT_STATE_DIR"] = state
    two.write('env.Engine("a", "models/a.onnx")')
    assert two.scons().built == ["a"]
    model = two.path("models/a.onnx")
    first = model.read_bytes()
    make_model(model, seed=5)
    python = fake_compiler(two.path("fake"), "write(); time.sleep(5)", "tensorrt_rtx", "1.7.1.116")
    process = two.start("engines", TRT_PYTHON=str(python))
    while not two.path("fake/compiled").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    process.wait()
    model.write_bytes(first)
    assert two.scons().reused == ["a"]
    assert len(os.listdir(two.path("engines"))) == 2
    assert not [p for p in os.listdir(state) if p == "partial" and os.listdir(f"{state}/partial")]
    if place != "inside":
        shutil.rmtree(state)


def test_a_finished_compile_of_another_process_is_not_swept(two: Tree) -> None:
    """A's engine was current when A looked; B compiled another since and was cut off."""
    model = two.path("models/a.onnx")
    two.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("slow", [], "touch begun; while [ ! -e go ]; do sleep 0.02; done; touch $TARGET")
        """
    )
    assert two.scons("engines").built == ["a"]
    first = two.start("engines", "slow")
    while not two.path("begun").exists():
        time.sleep(0.01)
    make_model(model, seed=6)
    kill = ["strace", "-f", "-o", os.devnull, "-e", "inject=rename:signal=SIGKILL:when=3"]
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    subprocess.run(
        [*kill, *two.command("engines")], cwd=two.root, env=two.env(), capture_output=True, check=False
    )
    assert list(two.path(".trt/partial").rglob("*.sha256"))
    two.path("go").touch()
    assert first.wait() == 0
    run = two.scons("engines")
    assert (run.status, run.reused) == (0, ["a"])
