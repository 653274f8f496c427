"""The lock of a GPU: what goes wrong under it is not blamed on it."""

import threading

import pytest

from scons_tensorrt.errors import EngineBuildError, PublishError
from scons_tensorrt.files import locks


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "gpu_lock_path", lambda uuid: tmp_path / uuid / "gpu.lock")
    turn = threading.Lock()
    return turn, lambda uuid: locks.gpu_lock(uuid, turn, "an engine", print, lambda: False, 1)


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
