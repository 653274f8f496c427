"""`cmake-dir`: where this package's files for CMake, make and C++ are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .common import add_command

if TYPE_CHECKING:
    from .common import Commands

PACKAGE = Path(__file__).parents[1]


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "cmake-dir",
        "print the folder of the CMake package and of engines.mk",
        ("", "--include"),
        "Print the folder of SconsTensorrtConfig.cmake and engines.mk, which show how they are used.",
    )
    command.add_argument("--include", action="store_true", help="the folder of the C++ headers instead")
    command.set_defaults(run=_cmake_dir)


def _cmake_dir(arguments: argparse.Namespace) -> int:
    print(PACKAGE / ("include" if arguments.include else "cmake"))
    return 0
