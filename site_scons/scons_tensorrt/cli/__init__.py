"""`python -m scons_tensorrt COMMAND`: one module per command, each with an `add` function.

Runs on a device with the standard library alone. Exit status: 0 on success; 1 when a check or the
command fails; 2 for a usage error. `verify --manifest` has one status per kind of failure.
"""

from __future__ import annotations

import os
import sys

from .. import __version__
from ..errors import EngineError, RecipeError
from ..files.streams import open_standard_streams
from ..recipe.engines_file import EnginesFileError
from . import (
    bom,
    build,
    check,
    cmake_dir,
    completion,
    explain,
    export,
    init,
    keygen,
    name,
    probe,
    prune,
    pull,
    push,
    query,
    remote,
    report,
    reproduce,
    sensitivity,
    status,
    store,
    verify,
)
from .common import Parser, program, say

STACKTRACE = "TRT_STACKTRACE"  # set it to print the traceback of an unexpected error
COMMANDS = (
    build,
    init,
    probe,
    name,
    verify,
    check,
    status,
    explain,
    sensitivity,
    query,
    report,
    reproduce,
    prune,
    bom,
    export,
    keygen,
    push,
    pull,
    remote,
    store,
    cmake_dir,
    completion,
)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    open_standard_streams()
    arguments, more = _parser().parse_known_args(argv)
    if more and (not hasattr(arguments, "models") or any(each.startswith("-") for each in more)):
        arguments.wrong(f"unrecognized arguments: {' '.join(more)}")
    if more:  # argparse takes no second list of models after an option
        arguments.models += more
    try:
        return int(arguments.run(arguments))
    except EnginesFileError as error:
        for place, text in error.problems:
            say(f"{RecipeError.__name__}: {place}: {text}", sys.stderr)
    except EngineError as error:
        say(f"{type(error).__name__}: {error}", sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        say(f"{error.filename}: {error.strerror}", sys.stderr)
        _print_traceback(error)
    except Exception as error:
        say(f"{type(error).__name__}: {error}; set {STACKTRACE}=1 to see the traceback", sys.stderr)
        _print_traceback(error)
    return 1


def _print_traceback(error: Exception) -> None:
    if os.environ.get(STACKTRACE):
        import traceback

        traceback.print_exception(error)


def run() -> None:
    """Run a command and exit with its status."""
    sys.exit(main())


def _parser(prog: str | None = None) -> Parser:
    """prog: the name of the program in messages; by default as it was called."""
    parser = Parser(
        prog=prog or program(),
        description="Build, inspect, verify and share TensorRT engines. Exit status: 0 on success; 1 when a "
        "check or the command fails; 2 for a usage error.",
        epilog="`%(prog)s COMMAND --help` shows options and examples.",
    )
    parser.set_defaults(make_parser=_parser)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
