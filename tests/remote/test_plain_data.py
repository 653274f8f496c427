"""What is decoded of a scheduler's messages, and what an answer must be."""

from __future__ import annotations

import asyncio
import json

import pytest

distributed = pytest.importorskip("distributed")

from distributed import protocol  # noqa: E402
from distributed.protocol.serialize import Serialize, ToPickle  # noqa: E402

from scons_tensorrt.errors import DispatchError  # noqa: E402
from scons_tensorrt.remote.plain_data import KILLED, _check, _loads, line, only_plain  # noqa: E402
from scons_tensorrt.remote.task import Answer  # noqa: E402

RAN: list[str] = []


class Evil(Exception):
    def __reduce__(self):
        return RAN.append, ("code of another machine",)


@pytest.mark.parametrize("wrap", [ToPickle, Serialize, lambda each: each, lambda each: [each]])
def test_an_object_is_dropped_and_not_unpickled(wrap) -> None:
    message = {"op": "task-erred", "a": wrap(Evil()), "b": [wrap(Evil())], "c": 1}
    assert _loads(protocol.dumps(message))["c"] == 1
    assert not RAN


def test_bytes_are_dropped_wherever_they_are() -> None:
    import msgpack

    message = {"a": b"1", "b": [b"2", "x"], b"3": "y", "c": {"d": b"4"}, "e": msgpack.ExtType(5, b"6")}
    found = _loads(protocol.dumps(message))
    assert found == {"a": None, "b": (None, "x"), None: "y", "c": {"d": None}, "e": None}


def test_a_result_of_text_comes_through() -> None:
    sent = protocol.dumps({"data": {"key": Serialize("text")}}, serializers=["msgpack"])
    assert _loads(sent) == {"data": {"key": "text"}}


def test_dead_workers_are_known_by_name_and_an_exception_is_words() -> None:
    from distributed.protocol import pickle
    from distributed.scheduler import KilledWorker

    killed = pickle.dumps(KilledWorker("key", "worker", 1))
    assert _loads(protocol.dumps({"op": "task-erred", "exception": killed}))["exception"] == KILLED
    other = {"exception": pickle.dumps(Evil()), "exception_text": "it\nis \x1b[1mover"}
    assert _loads(protocol.dumps(other))["exception"] == "it is [1mover"
    assert not RAN


def test_a_distributed_that_decodes_otherwise_is_refused(monkeypatch) -> None:
    loads, handlers = protocol.loads, distributed.Client._default_event_handlers
    monkeypatch.setattr(protocol, "loads", loads)
    monkeypatch.setattr(distributed.Client, "_default_event_handlers", handlers)
    asyncio.run(only_plain())
    assert protocol.loads is _loads
    monkeypatch.setattr(protocol, "loads", loads)
    with pytest.raises(DispatchError, match="decodes messages in an unknown way"):
        asyncio.run(_check())


GOOD = {"outcome": "made", "worker": "bench", "log": "x", "seconds": 1.5}


def test_an_answer_is_read_as_it_was_written() -> None:
    assert Answer.read(json.dumps(GOOD)) == Answer("made", "bench", "x", seconds=1.5)


@pytest.mark.parametrize("field", ["outcome", "worker", "log", "error_class", "message", "seconds"])
@pytest.mark.parametrize("value", [True, 7, -1, 1e999, "text", [], {}, ["made"], {"a": 1}])
def test_an_answer_with_a_field_of_another_type_is_refused_or_words(field, value) -> None:
    try:
        found = Answer.read(json.dumps({**GOOD, field: value}))
    except DispatchError:
        return
    assert field != "outcome"
    assert isinstance(getattr(found, field), (str, float))


@pytest.mark.parametrize("seconds", ["1" + "0" * 400, "NaN", "-1", "1e999"])
def test_seconds_that_no_duration_has_are_refused(seconds: str) -> None:
    with pytest.raises(DispatchError, match="is malformed"):
        Answer.read('{"outcome": "made", "worker": "w", "seconds": ' + seconds + "}")


@pytest.mark.parametrize("text", [None, 1, b"{}", {}, [], "", "[]", "null", "[" * 10**5, "x" * (3 << 20)])
def test_what_is_no_answer_is_refused(text) -> None:
    with pytest.raises(DispatchError, match="is malformed"):
        Answer.read(text)


def test_words_of_another_machine_are_one_line() -> None:
    assert line("a\nb\x1b[2J\x00 c\r") == "a b [2J c"
    assert line(["a"]) == ""


@pytest.mark.parametrize("levels", [100, 500])
def test_what_is_nested_more_deeply_than_any_message_is_dropped(levels: int) -> None:
    found = _loads([b"\x92\x02" + b"\x91" * levels + b"\x01"])
    assert found[0] == 2
    inner, depth = found[1], 1
    while isinstance(inner, tuple):
        inner, depth = inner[0], depth + 1
    assert inner is None
    assert depth < levels
