"""Engines with the same inputs wait for each other, and what a waiting one says."""

import threading
from types import SimpleNamespace

import pytest

from scons_tensorrt.build import wait_for_same_inputs as module
from scons_tensorrt.build.wait_for_same_inputs import TurnsOfSameInputs
from scons_tensorrt.errors import EngineBuildError, Interrupted


def spec(name: str) -> SimpleNamespace:
    return SimpleNamespace(engine=name, ingredients={"input onnx": "1" * 64})


def turn(turns: TurnsOfSameInputs, name: str, said: list, stopping=lambda: False):
    return turns.turn(spec(name), name, said.append, stopping)


@pytest.mark.parametrize(("after", "lines"), [(0.0, ["a, which has the same inputs"]), (60.0, [])])
def test_only_a_wait_that_takes_long_is_said_and_once(monkeypatch, after: float, lines: list) -> None:
    monkeypatch.setattr(module, "SAY_AFTER_SECONDS", after)
    turns, said, got, begun = TurnsOfSameInputs(), [], [], threading.Event()

    def wait() -> None:
        begun.set()
        with turn(turns, "b", said) as equal:
            got.append(equal)

    waiter = threading.Thread(target=wait)
    with turn(turns, "a", said) as equal:
        assert equal is None
        waiter.start()
        begun.wait()
        waiter.join(0.25)
        assert waiter.is_alive()
    waiter.join()
    assert (said, got) == (lines, ["a"])


def test_a_stopped_wait_leaves_the_turn_to_its_holder() -> None:
    turns = TurnsOfSameInputs()
    with turn(turns, "a", []):
        with pytest.raises(Interrupted), turn(turns, "b", [], stopping=lambda: True):
            pass
        with pytest.raises(Interrupted), turn(turns, "c", [], stopping=lambda: True):
            pass
    with turn(turns, "b", []) as equal:
        assert equal == "a"


@pytest.mark.parametrize("lasting", [True, False])
def test_an_error_is_that_of_the_others_too_only_if_it_would_be_on_any_host(lasting: bool) -> None:
    turns, tried = TurnsOfSameInputs(), []

    def fail(name: str) -> None:
        with turn(turns, name, []):
            tried.append(name)
            error = EngineBuildError("refused")
            error.lasting = lasting
            raise error

    for name in "ab":
        with pytest.raises(EngineBuildError, match="refused"):
            fail(name)
    assert tried == (["a"] if lasting else ["a", "b"])
