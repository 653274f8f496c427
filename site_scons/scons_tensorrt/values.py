"""The base of immutable values with named fields: typing.NamedTuple, whose classes are cheaper to create.

NamedTuple compiles a constructor for each class, and each annotation that is a string: 0.2 to 0.8 ms a
class; a null build creates 27. benchmarks/null_build.py holds the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Value"]

if TYPE_CHECKING:
    from typing import NamedTuple as Value
else:
    from operator import itemgetter

    class Value(tuple):
        """A tuple with a field for each annotation; fields with a value have that default."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012

        def __init_subclass__(cls) -> None:
            fields = tuple(cls.__annotations__)
            if fields:
                cls._fields = fields
                cls._field_defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
                for at, name in enumerate(fields):
                    setattr(cls, name, property(itemgetter(at)))

        def __new__(cls, *values: Any, **named: Any) -> Value:
            if named or len(values) != len(cls._fields):
                rest = cls._fields[len(values) :]
                given = {**cls._field_defaults, **named} if cls._field_defaults else named
                try:
                    values += tuple(map(given.__getitem__, rest))
                except KeyError:
                    values = ()
                if len(values) != len(cls._fields) or not (named.keys() <= set(rest)):
                    raise TypeError(f"{cls.__name__} needs {', '.join(cls._fields)}")
            return super().__new__(cls, values)

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in zip(self._fields, self))})"

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self))

        def _replace(self, **named: Any) -> Value:
            if not named.keys() <= set(self._fields):
                raise TypeError(f"{type(self).__name__} has only {', '.join(self._fields)}")
            return type(self)(*map(named.get, self._fields, self))
