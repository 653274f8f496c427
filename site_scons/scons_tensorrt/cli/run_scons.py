"""Runs SCons for `build` and `prune`: with the SConstruct that is there, or with one that a user would write.

For --json it runs the command again in a child process, and prints the events of that run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import EngineError
from ..files.reading import read_small
from ..recipe.engines_file import LARGEST, NAME, EngineEntry, read_valid_engines
from .common import PROGRAM, print_json, program, say

SCONSTRUCTS = ("SConstruct", "Sconstruct", "sconstruct", "SConstruct.py", "Sconstruct.py", "sconstruct.py")
HEADER = """DefaultEnvironment(tools=[])
env = Environment(tools=["trt_engines"], toolpath=[PyPackageDir("scons_tensorrt.tools")])
"""
DECLARE = """import pickle
from scons_tensorrt.scons_tool.engines_from_file import declare_or_exit
"""
MODELS_IN_MEMORY = 3  # a compile takes about so many times the bytes of its model
EVENTS = "TRT_RUN_EVENTS"  # a file to which the run also writes its events


class _Silent:
    """In place of what prints SCons's own progress; the lines of engines and errors are printed elsewhere."""

    def __call__(self, text: str, append_newline: int = 1) -> None:
        pass

    def set_mode(self, mode: int) -> None:
        pass


def own_entries() -> list[EngineEntry] | None:
    """The engines of the engines.toml here; None where there is a SConstruct. Raises EngineError."""
    if any(map(os.path.isfile, SCONSTRUCTS)):
        return None
    if not os.path.lexists(NAME):
        raise EngineError(
            f"no SConstruct and no {NAME} in this folder; `{program()} init` writes one, and "
            f"`{program()} build MODEL.onnx` needs none"
        )
    try:
        return read_valid_engines(NAME, read_small(NAME, LARGEST))
    except OSError as error:
        raise EngineError(f"{NAME}: {error.strerror}; write a file there, or remove it") from None


def run_scons(
    target: str,
    flags: Sequence[str],
    settings: Mapping[str, str],
    entries: Sequence[EngineEntry] | None,
    file: str | None,
    named: bool = False,
) -> int:
    """Run `scons TARGET` in this process. flags: options of SCons; entries: of a SConstruct that nobody
    wrote, None for the one of this folder; file: where they are from; named: whether the user named the
    engine."""
    try:
        import SCons.Script
    except ImportError:
        raise EngineError("SCons is not installed: run `python3 -m pip install scons`") from None
    jobs = _jobs_that_fit([entry.onnx for entry in entries or ()])
    command = [PROGRAM, "-Q", f"-j{jobs}", *flags]
    sconstruct = ""
    if entries is not None:
        command += ["-f", "-"]
        # Pickled, because inf and dates have no literal.
        given = f"pickle.loads({pickle.dumps(list(entries))!r})"
        sconstruct = f"{HEADER}{DECLARE}declare_or_exit(env, {given}, {file!r}, {named})\n"
    command += [target, *(f"{name}={value}" for name, value in settings.items())]
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = command, io.StringIO(sconstruct)
    SCons.Script.Main.display = _Silent()  # no "`engines' is up to date": the summary says so
    try:
        SCons.Script.main()
    except SystemExit as end:  # it always exits
        if end.code and not isinstance(end.code, int):
            say(str(end.code), sys.stderr)
            return 2
        return end.code or 0
    finally:
        sys.argv, sys.stdin = before
    return 0


def _jobs_that_fit(models: Sequence[str]) -> int:
    """As many compiles as there are cores and memory for."""
    sizes = [0]
    for model in models:
        with contextlib.suppress(OSError, ValueError):  # SCons reports it
            sizes.append(os.path.getsize(model))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // max(1, MODELS_IN_MEMORY * max(sizes))))


def run_for_json(row: Callable[[Mapping[str, Any]], dict[str, Any] | None], key: str) -> int:
    """Run this very command in a child process, its lines to standard error, and print what it did. row: what
    to print of an event; key: of the list."""
    script = sys.argv[0]
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as events:
        again = ["-m", "scons_tensorrt"] if os.path.basename(script) == "__main__.py" else [script]
        command = [sys.executable, *again, *sys.argv[1:]]
        environment = {**os.environ, EVENTS: events.name}
        with subprocess.Popen(command, env=environment, stdout=sys.stderr) as child:
            before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())  # it would go on alone
            try:
                status = child.wait()
            finally:
                signal.signal(signal.SIGTERM, before)
        rows = [found for line in events if (found := row(json.loads(line)))]
    last = {str(next(iter(each.values()))): each for each in rows}  # the last of each file
    print_json({"status": status, key: list(last.values())})
    return status
