"""A record does what a NamedTuple does: each question is put to both."""

import copy
import pickle
from typing import NamedTuple

import pytest

from scons_tensorrt.record import Record


class Plain(NamedTuple):
    name: str
    size: int = 7
    tags: tuple = ()

    @property
    def twice(self) -> int:
        return self.size * 2


class Ours(Record):
    name: str
    size: int = 7
    tags: tuple = ()

    @property
    def twice(self) -> int:
        return self.size * 2


class More(Ours):
    def shout(self) -> str:
        return self.name.upper()


def refused(ask):
    try:
        return ask()
    except (TypeError, ValueError, AttributeError) as error:
        # 3.13 raises TypeError for a field that `_replace` does not know, as for every other call
        return TypeError if isinstance(error, ValueError) else type(error)


@pytest.mark.parametrize(
    "ask",
    [
        lambda kind: tuple(kind("a")),
        lambda kind: tuple(kind("a", 1, ("x",))),
        lambda kind: tuple(kind(name="a", tags=("x",))),
        lambda kind: tuple(kind("a", tags=("x",))),
        lambda kind: kind(),
        lambda kind: kind(size=1),
        lambda kind: kind("a", name="b"),
        lambda kind: kind("a", 1, (), 4),
        lambda kind: kind("a", other=1),
        lambda kind: (kind("a").name, kind("a").size, kind("a").twice, kind("a", 2)[1]),
        lambda kind: repr(kind("a", tags=("x",))).partition("(")[2],
        lambda kind: kind("a")._asdict(),
        lambda kind: tuple(kind("a")._replace(size=1)),
        lambda kind: kind("a")._replace(other=1),
        lambda kind: kind._fields,
        lambda kind: kind._field_defaults,
        lambda kind: (kind("a") == kind("a", 7), kind("a") == kind("b"), kind("a") == ("a", 7, ())),
        lambda kind: hash(kind("a")) == hash(("a", 7, ())),
        lambda kind: len({kind("a"), kind("a"), kind("b")}),
        lambda kind: kind("a") < kind("b"),
        lambda kind: setattr(kind("a"), "name", "b"),
        lambda kind: setattr(kind("a"), "other", 1),
        lambda kind: type(pickle.loads(pickle.dumps(kind("a", 2)))) is kind,
        lambda kind: pickle.loads(pickle.dumps(kind("a", 2))) == kind("a", 2),
        lambda kind: copy.copy(kind("a", 2)) == copy.deepcopy(kind("a", 2)) == ("a", 2, ()),
    ],
)
def test_as_a_named_tuple(ask) -> None:
    assert refused(lambda: ask(Ours)) == refused(lambda: ask(Plain))


def test_a_record_with_more_methods_has_the_same_fields() -> None:
    more = More("a", size=3)
    assert (more.shout(), more.size, more._replace(name="b").shout()) == ("A", 3, "B")
    assert type(more._replace(size=1)) is More


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Ours: no name was given"),
        ({"name": "a", "other": 1}, "Ours: more was given than name, size, tags"),
    ],
)
def test_what_is_wrong_is_named(given, message) -> None:
    with pytest.raises(TypeError, match=message):
        Ours(**given)
