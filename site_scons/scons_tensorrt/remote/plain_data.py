"""Accepts only plain data from a scheduler: nothing from other machines is unpickled here.

Dask unpickles results, exceptions, warnings and types. One function decodes all messages; this module
replaces it for the whole process by one that knows None, booleans, numbers, text, lists, sets and maps.
It drops every byte string, so that nothing is left to unpickle later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DispatchError

_PLAIN = (type(None), bool, int, float, str)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
KILLED = "KilledWorker"
MOST_WORDS = 2000  # characters of a line from another machine
DEEPEST = 64  # levels of a message


async def only_plain() -> None:
    """Let this process decode only plain data. Raises DispatchError if this version of `distributed`
    does not use the replaced function."""
    from distributed import Client, protocol

    protocol.loads = _loads
    Client._default_event_handlers = {}  # they would print messages and warnings from workers
    await _check()


async def _check() -> None:
    """Decode an object as connections do."""
    from distributed import __version__, protocol
    from distributed.comm.utils import from_frames
    from distributed.protocol.serialize import Serialize, ToPickle

    for wrap in (ToPickle, Serialize):
        sent = protocol.dumps({"a": wrap({1: b"2"}), "b": b"3", "c": "d"})
        if await from_frames(sent) != {"a": None, "b": None, "c": "d"}:
            raise DispatchError(
                f"distributed {__version__} decodes messages in an unknown way and might run "
                "code from other machines; install another version"
            )


def _loads(frames: Sequence[Any], deserialize: bool = True, deserializers: Any = None) -> Any:
    """Replaces `distributed.protocol.loads`."""

    def decode(fields: dict[Any, Any]) -> Any:
        if "__Serialized__" in fields:
            return _sent_as_msgpack(frames, fields["__Serialized__"])
        if "__Pickled__" in fields:
            return None
        if "__Enum__" in fields:
            return fields.get("name")
        if "__Set__" in fields:
            return set(fields.get("as-list") or ())
        if "exception" in fields and not isinstance(fields["exception"], str):
            fields["exception"] = _exception_text(fields)
        return fields

    return _plain(_unpacked(frames[0], decode))


def _unpacked(data: Any, decode: Any = None) -> Any:
    import msgpack

    return msgpack.unpackb(
        data,
        raw=False,
        strict_map_key=False,
        use_list=False,
        object_hook=decode,
        ext_hook=lambda code, data: None,
    )


def _sent_as_msgpack(frames: Sequence[Any], at: Any) -> Any:
    """A value that its sender wrote as one uncompressed frame of msgpack; None for any other."""
    if type(at) is not int or not 0 < at < len(frames) - 1:
        return None
    header = _unpacked(frames[at])
    known = isinstance(header, dict) and header.get("serializer") == "msgpack"
    if not known or header.get("num-sub-frames") != 1 or any(header.get("compression") or ()):
        return None
    return _unpacked(frames[at + 1])


def _exception_text(fields: Mapping[str, Any]) -> str:
    """The text of an exception. KilledWorker is recognised by its name in the pickle, which is not loaded."""
    sent = fields["exception"]
    if isinstance(sent, bytes) and KILLED.encode() in sent:
        return KILLED
    return line(fields.get("exception_text")) or "an exception"


def _plain(value: Any, depth: int = DEEPEST) -> Any:
    """The plain parts of a value; None below the maximum depth."""
    if isinstance(value, (dict, list, tuple, set)) and not depth:
        return None
    if isinstance(value, dict):
        return {_plain(key, depth - 1): _plain(each, depth - 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(each, depth - 1) for each in value)
    if isinstance(value, set):
        return {_plain(each, depth - 1) for each in value}
    return value if type(value) in _PLAIN else None


def line(text: Any, most: int = MOST_WORDS) -> str:
    """Text from another machine as one line without control characters; "" if it is not text."""
    return " ".join(_CONTROL.sub(" ", text).split())[:most] if isinstance(text, str) else ""


def whole(value: Any) -> int | None:
    """A count from another machine; None if it is not one."""
    return value if type(value) is int and 0 <= value < 1 << 53 else None


def fields_of(value: Any) -> Mapping[str, Any]:
    """A map from another machine; empty if it is not one."""
    return value if isinstance(value, dict) else {}
