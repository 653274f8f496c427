"""Situations that a second reviewer broke."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Tree, fake_compiler, flip_last_bit, make_model

SITE = Path(__file__).parents[2] / "site_scons"
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")

LOCK = """
import sys, threading, os
from scons_tensorrt.files.locks import gpu_lock
os.setuid(int(sys.argv[1]))
with gpu_lock(sys.argv[2], threading.Lock(), "an engine", print, lambda: False, 0.5):
    print("held")
    if len(sys.argv) > 3:
        sys.stdin.read()
"""


def hold(user: int, uuid: str, *more: str) -> list[str]:
    return [sys.executable, "-c", LOCK, str(user), uuid, *more]


@needs_root
def test_every_user_may_take_the_gpus_lock_in_turn(tmp_path) -> None:
    env = {**os.environ, "PYTHONPATH": str(SITE)}
    uuid = f"test{os.getpid()}"
    for user in (1001, 1002, 0, 1001):
        done = subprocess.run(hold(user, uuid), env=env, capture_output=True, text=True, check=False)
        assert done.stdout == "held\n", done.stderr
    holder = subprocess.Popen(
        hold(1001, uuid, "stay"), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    second = subprocess.run(hold(1002, uuid), env=env, capture_output=True, text=True, check=False)
    assert f"process {holder.pid}, compiling an engine since" in second.stdout
    assert "LockTimeout: waited 0.5 s" in second.stderr
    holder.communicate("")
    for folder in ("/run/lock", "/tmp"):
        Path(folder, f"scons-tensorrt-gpu-{uuid}.lock").unlink(missing_ok=True)


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


@pytest.mark.slow
def test_a_variant_dirs_copy_linked_anew_does_not_fail_a_running_compile(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.write('env.VariantDir("build", "models")\nenv.Engine("a", "build/a.onnx")')
    act = "while not os.path.exists(FOLDER + '/go'): time.sleep(0.01)\ndone(write())"
    python = fake_compiler(tree.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    assert tree.scons().built == ["a"]
    flip_last_bit(tree.path("models/a.bin"))
    process = tree.start("engines", TRT_PYTHON=str(python))
    while not tree.path("fake/compiled").exists():
        time.sleep(0.01)
    for _ in range(3):
        assert tree.scons("-q", "engines", TRT_PYTHON=str(python)).status == 1
    tree.path("fake/go").touch()
    said = process.communicate()[0].decode()
    assert process.returncode == 0, said


LINKED = "os.link(path, path + '2'); os.unlink(path + '2')"


@pytest.mark.parametrize("act", ["os.chmod(path, 0o600)", LINKED], ids=["a mode", "a link"])
def test_what_moves_no_byte_of_a_model_does_not_fail_its_compile(two: Tree, act: str) -> None:
    act = f"path = {str(two.path('models/a.onnx'))!r}; {act}; done(write())"
    python = fake_compiler(two.path("fake"), act, "tensorrt_rtx", "1.7.1.116")
    two.write('env.Engine("a", "models/a.onnx")')
    assert two.scons(TRT_PYTHON=str(python)).built == ["a"]


@pytest.mark.slow
def test_a_command_that_uses_external_data_too_sees_one_signature(tree: Tree) -> None:
    make_model(tree.path("models/a.onnx"), external="a.bin")
    tree.write(
        """
        env.Engine("a", "models/a.onnx")
        env.Command("sum", "models/a.bin", "echo ran >> runs && touch $TARGET")
        """
    )
    time.sleep(0.2)  # files this young are hashed and not remembered
    tree.scons("engines", "sum")
    tree.scons("sum")
    before = tree.path("runs").read_text()
    for targets in (["sum"], ["engines", "sum"], ["sum", "engines"], ["sum"]):
        assert tree.scons(*targets).status == 0
    assert tree.path("runs").read_text() == before
    assert tree.scons("-q", "engines", "sum").status == 0


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


def test_cleaning_a_named_engine_from_elsewhere(built: Tree, tmp_path) -> None:
    name = f"engines/{built.engine('a').name}"
    assert built.scons(f"--directory={built.root}", "-c", name, cwd=tmp_path).status == 0
    assert list(built.engines()) == ["b"]
    name = f"#engines/{built.engine('b').name}"
    assert built.scons("-u", "-c", name, cwd=built.path("models")).status == 0
    assert built.engines() == {}


def test_a_memo_with_damaged_facts_is_read_around(built: Tree) -> None:
    text = built.path(".trt/digests.json").read_text()
    built.path(".trt/digests.json").write_text(text.replace('"onnx 1":[', '"onnx 1":5,"x":['))
    assert built.scons().reused == ["a", "b"]


def test_a_failed_rebuild_tells_the_miss_and_its_reason_too(built: Tree) -> None:
    flip_last_bit(built.engine("a"))
    python = fake_compiler(built.path("fake"), "sys.exit(1)", "tensorrt_rtx", "1.7.1.116")
    built.scons(TRT_PYTHON=str(python))
    last = [(e["event"], e.get("outcome"), e.get("reason")) for e in built.events()][-5:-1]
    assert ("engine.sidecar.mismatch", "failed", "engine_tampered") in last
    assert ("engine.compile.error", "failed", "error") in last
