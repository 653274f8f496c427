"""Errors in the calls of an SConstruct. Each wrong call prints a line with its place; the exit status is 2.
SCons reads on, so that one run reports every wrong call, and builds nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import SCons
import SCons.Errors
import SCons.Node
import SCons.Util

from ..errors import EngineError, brief, one_line
from ..recipe.option_checks import Place, option_of
from . import settings

SEE_STACK = "--debug=stacktrace shows the stack"  # for unexpected errors
# What SCons says of a file where a folder is expected, or the other way round.
_LOOKUP = r"Tried to lookup (?P<there>\w+) '(?P<path>.*)' as a (?P<wanted>\w+)\.?"
_FOUND = r"(?P<there>File|Directory) (?P<path>.*) found where (?P<wanted>file|directory) expected\.?"
_KINDS = {"Dir": "folder", "Directory": "folder", "directory": "folder", "File": "file", "file": "file"}
_OURS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    os.path.dirname(os.path.abspath(SCons.__file__)) + os.sep,
    "<frozen ",
)
_STAND_INS = {"Engine": 2, "EnginesFromFile": 2, "EngineManifest": 3, "InstallEngines": 1}  # nodes of each
MOST_OTHERS = 3  # calls or places of one cause that a line lists
_MADE_OF_ENGINES = ("EngineManifest", "InstallEngines")
_entry: list[Place] = []  # of the engines file that is being declared


class CallErrors:
    """What is wrong with the calls of a run: each cause once, with every call and place that it concerns."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
        self._stand_ins = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, place: str, cause: str, method: str = "", first: str = "", shared: bool = False) -> None:
        """method, first: of the call, for the beginning of the line; shared: whether the cause is outside of
        the call, such as a wrong setting of the run."""
        places, calls = self._found.setdefault(("" if shared else place, method, cause), ({}, {}))
        places[place] = calls[first] = None

    def lines(self) -> list[str]:
        """`PLACE: METHOD FIRST: CAUSE`, in the order of the calls."""
        found = []
        for (_, method, cause), (places, calls) in self._found.items():
            (place, *elsewhere), (first, *others) = places, calls
            also = [f"at {other}" for other in elsewhere] or others
            more = f" and {len(also) - MOST_OTHERS} more" if len(also) > MOST_OTHERS else ""
            also_text = f" (also {', '.join(also[:MOST_OTHERS])}{more})" if also else ""
            subject = f"{method} {first}".strip()
            found.append(one_line(f"{place}: {subject}{': ' if subject else ''}{cause}{also_text}"))
        return found

    def clear(self) -> None:
        self._found = {}

    def stand_in(self, env: Any, name: str) -> Any:
        """What a wrong call returns: file nodes that nothing builds."""
        found = []
        for _ in range(_STAND_INS.get(name, 1)):
            self._stand_ins += 1
            node = env.fs.File(f"#/wrong_call_{self._stand_ins}")
            node.attributes.trt_wrong_call = True
            found.append(node)
        return found[0] if name == "OnnxExport" else SCons.Util.NodeList(found)


def call_errors(env: Any) -> CallErrors:
    """Those of this run."""
    found = getattr(env.fs, "scons_tensorrt_call_errors", None)
    if found is None:
        found = env.fs.scons_tensorrt_call_errors = CallErrors()
    return found


def report(problems: list[str]) -> bool:
    """Print what is wrong, as SCons would, in GitHub Actions also as annotations: no report will follow.
    Returns whether anything is."""
    sys.stderr.write("".join(f"scons: *** {each}\n" for each in problems))
    if problems and os.environ.get("GITHUB_ACTIONS") == "true":
        from ..report.ci_formats import annotation

        sys.stdout.write("".join(f"{annotation(each)}\n" for each in problems))
    return bool(problems)


def user_call(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of environments: an error is kept for the end of reading, and the call returns nodes
    that stand for what it would have declared."""

    @functools.wraps(method)
    def call(env: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if method.__name__ in _MADE_OF_ENGINES and call_errors(env) and _of_wrong_calls(args, kwargs):
                return call_errors(env).stand_in(env, method.__name__)
            return method(env, *args, **kwargs)
        except Exception as error:
            add_error(env, method.__name__, [*args, *kwargs.values()], error, kwargs.get("name"))
            return call_errors(env).stand_in(env, method.__name__)

    return call


def tool_call(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the function that adds this tool to an environment. After an error the SConstruct cannot go on, so
    it is the last line of the run."""

    @functools.wraps(method)
    def call(env: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(env, *args, **kwargs)
        except Exception as error:
            text = f"{place_of_call(env.fs).at()}: {_message(method.__name__, [*args], error)}"
            report([one_line(text)])
            raise SystemExit(2) from None

    return call


def add_error(env: Any, name: str, given: list[Any], error: Exception, first: Any = None) -> None:
    """Keep what is wrong with a call of the method `name`. first: the argument to name it by, if it is not
    the first of `given`."""
    place, shared = place_of_call(env.fs), isinstance(error, SCons.Errors.UserError)
    alone = place.toml and isinstance(error, EngineError)  # its line says all
    method, argument, cause = _parts(name, given if first is None else [first], error)
    if SEE_STACK in cause and "stacktrace" in settings.option("debug"):
        traceback.print_exception(error)
    call = ("", "") if alone else (method, argument)
    call_errors(env).add(place.at(option_of(str(error))), cause, *call, shared=shared)


def _of_wrong_calls(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the engines of a manifest or an installation are those of a wrong call, or none at all: what
    is wrong has been said."""
    try:
        given = SCons.Util.flatten([*args[1:], *kwargs.values()])
    except RecursionError:  # of lists a thousand deep
        return False
    nodes = [each for each in given if isinstance(each, SCons.Node.Node)]
    return not nodes or any(hasattr(node.attributes, "trt_wrong_call") for node in nodes)


@contextlib.contextmanager
def declared_at(place: Place) -> Iterator[None]:
    """The place of everything that is declared meanwhile: the line of an engines file."""
    _entry.append(place)
    try:
        yield
    finally:
        _entry.pop()


def place_of_call(fs: Any) -> Place:
    """Where the user's call stands: the innermost line that is neither ours nor SCons's; in an engines
    file, the line of its table."""
    if _entry:
        return _entry[-1]
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return Place(label_of(frame.f_code.co_filename, fs), frame.f_lineno)


@lru_cache
def label_of(path: str, fs: Any) -> str:
    """A file as a user knows it: relative to the top if below it, and not the copy in a VariantDir."""
    if path.startswith("<"):
        return "SConstruct"  # read from standard input
    for node in getattr(SCons.Node, "SConscriptNodes", ()):
        if node.get_abspath() == path:
            path = node.srcnode().get_abspath()
            break
    near = os.path.relpath(path, fs.Top.get_abspath())
    return path if near.startswith(os.pardir) else near


def _message(name: str, given: list[Any], error: Exception) -> str:
    method, first, cause = _parts(name, given, error)
    return f"{method} {first}: {cause}" if first else f"{method}: {cause}" if method else cause


def _parts(name: str, given: list[Any], error: Exception) -> tuple[str, str, str]:
    """The method and the first argument of a wrong call, if its message names them, and the cause."""
    if isinstance(error, SCons.Errors.UserError):
        return "", "", str(error)
    if str(error).startswith(f"{name}()"):  # Python's message about missing or extra arguments
        return "", "", f"{error}; check the arguments of the call"
    if not given:
        return name, "", _cause(error)
    first = str(given[0]) if isinstance(given[0], SCons.Node.Node) else brief(given[0])
    return name, first, _cause(error)


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
