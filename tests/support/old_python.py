"""The interpreters of JetPack 5 and 6 for the compile worker: a Python 3.8 or 3.10 besides the one of SCons,
with a TensorRT that is only an API surface (tests/build/surface.py)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build"
# Every name that the worker uses is looked up in the surface.
MODULE = """
import sys
sys.path.insert(0, {build!r})
from surface import Surface
_surface = Surface({surface!r})
__version__ = _surface.__version__
{more}
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_surface, name)
"""


def python(version: str) -> str | None:
    """An interpreter of this version: on PATH, or installed with pyenv."""
    found = shutil.which(f"python{version}")
    if found and ".pyenv/shims" not in found:
        return found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return next((str(path) for path in root.glob(f"versions/{version}.*/bin/python{version}")), None)


def with_surface(folder: Path, interpreter: str, surface: str, more: str = "") -> Path:
    """A command like an interpreter that has TensorRT. more: Python, run after `_surface` was made."""
    site = folder / "site"
    (site / "tensorrt").mkdir(parents=True)
    (site / f"{surface}.dist-info").mkdir()
    text = MODULE.format(build=str(BUILD), surface=surface, more=more)
    (site / "tensorrt" / "__init__.py").write_text(text)
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{interpreter}" "$@"\n')
    command.chmod(0o755)
    return command
