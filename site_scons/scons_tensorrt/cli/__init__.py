"""`python -m scons_tensorrt COMMAND`: one module a command, each with `add`.

Needs the standard library alone, so that it runs on a device. Exit status: 0; 1 when an
engine is not what it should be or the question cannot be answered; 2 for a wrong call; `verify` of a
manifest has a status for each refusal.
"""

from __future__ import annotations

import argparse
import os
import sys

from .. import __version__
from ..errors import EngineError
from . import dispatching, explain, keygen, name, probe, report, reproduce, status, store, verify
from .common import say

STACK = "TRT_STACKTRACE"  # set where the stack of an error shall be printed
COMMANDS = (probe, name, verify, status, explain, report, reproduce, keygen, dispatching, store)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except EngineError as error:
        say(f"{type(error).__name__}: {error}", sys.stderr)
    except BrokenPipeError:  # the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        say(f"{error.filename}: {error.strerror}", sys.stderr)
        _print_stack(error)
    except Exception as error:
        say(f"{type(error).__name__}: {error}; {STACK}=1 shows the stack", sys.stderr)
        _print_stack(error)
    return 1


def _print_stack(error: Exception) -> None:
    """Where the environment asks for it. `error` is one that no message was written for."""
    if os.environ.get(STACK):
        import traceback

        traceback.print_exception(error)


def run() -> None:
    """Run a command and exit with its status."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m scons_tensorrt",
        description="TensorRT engines as build artifacts. Exit status: 0; 1 when an engine is not "
        "what it should be or the question cannot be answered; 2 for a wrong call.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
