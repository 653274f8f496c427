"""Tuples with names: what `typing.NamedTuple` gives, for a sixth of the time it takes to make a class.

That writes each class's constructor as text and compiles it, and a build that reuses everything
pays for two dozen: an eighth of all that this package added to an empty run of SCons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Record"]

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from operator import itemgetter

    class _Named(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            fields = tuple(body.get("__annotations__", ()))
            if fields:
                body["_fields"] = fields
                body["_field_defaults"] = {each: body[each] for each in fields if each in body}
                body["__slots__"] = ()
                body.update((each, property(itemgetter(at))) for at, each in enumerate(fields))
            return super().__new__(cls, name, bases, body)

    class Record(tuple, metaclass=_Named):
        """A class of it has a field for each annotation; a field with a value need not be given."""

        __slots__ = ()
        _fields = ()

        def __new__(cls, *values: Any, **named: Any) -> Record:
            if named or len(values) != len(cls._fields):
                defaults = cls._field_defaults
                for field in cls._fields[len(values) :]:
                    if field not in named and field not in defaults:
                        raise TypeError(f"{cls.__name__}: no {field} was given")
                    values += (named.pop(field) if field in named else defaults[field],)
                if named or len(values) > len(cls._fields):
                    raise TypeError(f"{cls.__name__}: more was given than {', '.join(cls._fields)}")
            return super().__new__(cls, values)

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            values = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self))
            return f"{type(self).__name__}({values})"

        def _replace(self, **named: Any) -> Record:
            """The same with other values of the fields named. Raises TypeError."""
            return type(self)(**{**self._asdict(), **named})

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self))
