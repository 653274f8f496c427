"""The methods that an SConstruct calls: any error is one line with the file and line of the call, and
exit status 2."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import SCons.Errors
import SCons.Node

from ..errors import EngineError, one_line

SEE_STACK = "--debug=stacktrace shows the stack"  # for unexpected errors
# What SCons says of a file where a folder is expected, or the other way round.
_LOOKUP = r"Tried to lookup (?P<there>\w+) '(?P<path>.*)' as a (?P<wanted>\w+)\.?"
_FOUND = r"(?P<there>File|Directory) (?P<path>.*) found where (?P<wanted>file|directory) expected\.?"
_KINDS = {"Dir": "folder", "Directory": "folder", "directory": "folder", "File": "file", "file": "file"}
_OF_SCONS = f"{os.sep}SCons{os.sep}"


def user_call(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of environments, so that every error is a UserError with the location of the
    call."""

    @functools.wraps(method)
    def call(env: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(env, *args, **kwargs)
        except Exception as error:
            given = [*args, *kwargs.values()]
            text = f"{_place(env, sys._getframe(1))}: {_message(method.__name__, given, error)}"
            raise SCons.Errors.UserError(one_line(text)) from error

    # SCons reports the deepest frame outside of SCons. Make this frame look like one of SCons, so that
    # it reports the frame of the user.
    code = call.__code__  # type: ignore[attr-defined]
    call.__code__ = code.replace(co_filename=f"{_OF_SCONS}{method.__name__}")  # type: ignore[attr-defined]
    return call


def _place(env: Any, frame: FrameType | None) -> str:
    """FILE:LINE of the user's call; the file is relative to the top if below it."""
    while frame and frame.f_back and _OF_SCONS in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "SConstruct"
    path = frame.f_code.co_filename
    near = os.path.relpath(path, env.fs.Top.get_abspath())
    return f"{path if near.startswith(os.pardir) else near}:{frame.f_lineno}"


def _message(name: str, given: list[Any], error: Exception) -> str:
    if isinstance(error, SCons.Errors.UserError):
        return str(error)
    if str(error).startswith(f"{name}()"):  # Python's message about missing or extra arguments
        return f"{error}; check the arguments of the call"
    first = ""
    if given:
        with contextlib.suppress(RecursionError):  # of lists a thousand deep
            first = f" {given[0]!s}" if isinstance(given[0], SCons.Node.Node) else f" {given[0]!r}"
    return f"{name}{first}: {_cause(error)}"


def _cause(error: Exception) -> str:
    if isinstance(error, EngineError):
        return str(error)
    if isinstance(error, TypeError):
        found = re.fullmatch(_LOOKUP, str(error), re.DOTALL) or re.fullmatch(_FOUND, str(error), re.DOTALL)
        if found:
            there, wanted = _KINDS.get(found["there"], found["there"]), _KINDS.get(found["wanted"])
            return f"{found['path']} is a {there}, but must be a {wanted}; remove it, or use another path"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; check the path"
    if isinstance(error, ValueError) and "null" in str(error):
        return "a path contains a NUL character; remove it"
    return f"{type(error).__name__}: {error}; check the arguments of the call; {SEE_STACK}"
