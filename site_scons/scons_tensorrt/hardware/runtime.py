"""The TensorRT runtime that compiles: product, version, CUDA version and folder.

SCons and TensorRT may be installed in different interpreters. SCons's own is inspected in place. Another
is queried once by a child process, and its answer is cached until the interpreter or the folders of its
path change, so that a warm run starts no process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import HardwareError
from ..files.json_cache import JsonCache
from ..files.reading import text_of
from ..values import Value
from . import installed_tensorrt as query

QUERY_SECONDS = 60
OLDEST_PYTHON = (3, 8)  # of JetPack 5


class Runtime(Value):
    """An installed TensorRT. version: of its distribution; cuda: major.minor, None if unknown; os, machine:
    of its interpreter, as in a hardware signature; "" if no interpreter was asked."""

    product: str
    version: str
    cuda: str | None
    folder: str
    python: str
    os: str = ""
    machine: str = ""


class Interpreter:
    """The Python interpreter that runs the compile worker.

    python: path or command name (default: SCons's own); memo: cache file for the answer of another
    interpreter, None to disable caching.
    """

    def __init__(self, python: str | None, memo: Path | None = None) -> None:
        self.python = _resolve(python)
        self._memo = JsonCache(memo)
        self._answer: dict[str, Any] | None = None

    def save(self) -> None:
        """Save the cached answer. Raises OSError."""
        self._memo.save()

    def runtime(self, product: str) -> Runtime:
        """The installed runtime of `product`. Raises HardwareError if it is not installed."""
        answer = self._query()
        version = tuple(int(part) for part in str(answer["python"]).split(".")[:2])
        if version < OLDEST_PYTHON:
            raise HardwareError(
                f"{self.python} is Python {answer['python']}; the compile needs Python "
                f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later: set TRT_PYTHON to one"
            )
        found = answer["products"].get(product)
        if not found:
            raise HardwareError(
                f"{product} is not installed for {self.python}: run `{self.python} -m pip "
                f"install {product.replace('_', '-')}`, or set TRT_PYTHON to an interpreter that has it"
            )
        where = found["folder"], self.python, answer["os"], answer["machine"]
        return Runtime(product, found["version"], found["cuda"], *where)

    def _query(self) -> dict[str, Any]:
        if self._answer is None:
            if self.python == sys.executable:
                self._answer = query.answer()
            else:
                self._answer = self._cached() or self._query_other()
        return self._answer

    def _query_other(self) -> dict[str, Any]:
        text = text_of(query.__name__)
        try:
            done = subprocess.run(
                [self.python, "-B", "-c", text],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=QUERY_SECONDS,
                check=True,
            )
            found = _parsed(done.stdout)
            if not _is_answer(found):
                raise ValueError("invalid answer")
            stamp = _stamp(self.python, found["path"])
        except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
            raise HardwareError(
                f"TRT_PYTHON={self.python}: this interpreter did not answer "
                f"({_cause(error)}); use a Python 3.8 or later with TensorRT"
            ) from None
        self._memo.put(stamp, found)
        return dict(found)

    def _cached(self) -> dict[str, Any] | None:
        stamp, answer = self._memo.get()
        if not (_is_answer(answer) and stamp == _stamp(self.python, answer["path"])):
            return None
        now = query.installed(answer["path"])  # mtimes alone do not detect every change
        return dict(answer) if now == answer["products"] else None


def _resolve(python: str | None) -> str:
    if not python:
        return sys.executable
    found = shutil.which(os.path.expanduser(python))
    if not found:
        raise HardwareError(f"TRT_PYTHON={python}: no such program; use a Python with TensorRT")
    return os.path.abspath(found)


def _parsed(output: bytes) -> Any:
    """The JSON that the interpreter printed. Raises ValueError, with what a wrapper printed instead."""
    try:
        return json.loads(output)
    except ValueError:
        text = output.decode("utf-8", "replace").strip()
        raise ValueError(
            f"it printed {text.splitlines()[0][:60]!r}" if text else "it printed nothing"
        ) from None


def _is_answer(found: Any) -> bool:
    """Whether this has the form of `installed.answer`."""
    try:
        texts = [t for v in found["products"].values() for t in (v["version"], v["folder"], v["cuda"] or "")]
        return (
            isinstance(found["path"], list)
            and re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}\..*", found["python"]) is not None
            and all(
                isinstance(text, str) and "\0" not in text
                for text in (*found["path"], *texts, found["os"], found["machine"])
            )
        )
    except (LookupError, TypeError, AttributeError):
        return False


def _stamp(python: str, path: list[str]) -> list[Any]:
    """Changes when the interpreter or its installed packages may have changed."""
    stamp: list[Any] = [python, os.environ.get("PYTHONPATH", "")]
    folder = os.path.dirname(python)
    settings = [os.path.join(place, "pyvenv.cfg") for place in (folder, os.path.dirname(folder))]
    for name in [python, *settings, *path, *_path_files(path)]:
        try:
            stat = os.stat(name)
            stamp.append([name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
        except OSError:
            stamp.append([name])
    return stamp


def _path_files(path: list[str]) -> list[str]:
    """The .pth files in these folders: each may add folders to the path, and an edit in place moves no
    folder's mtime."""
    found = []
    for folder in path:
        with contextlib.suppress(OSError):
            found += [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if n.endswith(".pth")]
    return found


def _cause(error: BaseException) -> str:
    stderr = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace").strip()
    if stderr:
        return str(stderr.splitlines()[-1])
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {QUERY_SECONDS} s"
    return str(error)
