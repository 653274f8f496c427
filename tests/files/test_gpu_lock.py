"""The lock of a GPU: every user may take it, and what goes wrong under it is not blamed on it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scons_tensorrt.errors import EngineBuildError, PublishError
from scons_tensorrt.files import engine_and_gpu_locks


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_and_gpu_locks, "gpu_lock_path", lambda uuid: tmp_path / uuid / "gpu.lock")
    turn = threading.Lock()
    return turn, lambda uuid: engine_and_gpu_locks.gpu_lock(uuid, turn, "an engine", print, lambda: False, 1)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "model.onnx"), EngineBuildError("x")])
def test_an_error_under_the_lock_stays_what_it_is(lock, tmp_path, error):
    turn, gpu_lock = lock
    (tmp_path / "uuid").mkdir()
    with pytest.raises(type(error)) as caught, gpu_lock("uuid"):
        raise error
    assert caught.value is error
    assert not turn.locked()
    with gpu_lock("uuid"):  # and the lock is free again
        pass


def test_a_lock_file_that_cannot_be_opened_is_named(lock, tmp_path):
    turn, gpu_lock = lock
    with (
        pytest.raises(PublishError, match=r"gpu\.lock: No such file or directory; remove the file"),
        gpu_lock("none"),
    ):
        raise AssertionError("it was not locked")
    assert not turn.locked()


SITE = Path(__file__).parents[2] / "site_scons"


LOCK = """
import sys, threading, os
from scons_tensorrt.files.engine_and_gpu_locks import gpu_lock
os.setuid(int(sys.argv[1]))
with gpu_lock(sys.argv[2], threading.Lock(), "an engine", print, lambda: False, 0.5):
    print("held")
    if len(sys.argv) > 3:
        sys.stdin.read()
"""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


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
