"""`verify`: are engines what their sidecars say? On a device, with nothing but Python."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..errors import EngineError
from ..identity.filename import EngineFilename
from ..integrity.verified import fault_of
from .common import engines, say

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    verify = commands.add_parser("verify", help="are these engines what their sidecars say")
    verify.add_argument("path", nargs="+", help="an engine, or a folder of engines")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    worst = 0
    for path in engines(arguments.path):
        fault = _fault(path)
        say(f"FAILED {path}: {fault}" if fault else f"OK {path}")
        worst |= fault is not None
    return worst


def _fault(path: str) -> str | None:
    try:
        EngineFilename.parse(os.path.basename(path))
        return fault_of(path)
    except EngineError as error:
        return f"{type(error).__name__}: {error}"
