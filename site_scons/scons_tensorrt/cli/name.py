"""`name`: show the fields of an engine filename, and print the path of an engine."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.filename import EngineFilename
from ..hardware.choose_hardware import resolve
from ..hardware.runtime import Interpreter
from ..recipe.options import BUILDABLE
from .common import add_command, add_json

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    engine = "face__sm87_jp6.2_trt10.3_fp16.engine"
    examples = f"parse {engine}", "build face --hardware rtx_sm89"
    name = add_command(commands, "name", "parse an engine filename, or build one", examples)
    jobs = name.add_subparsers(required=True, metavar="parse|build")
    parse = add_command(
        jobs,
        "parse",
        "show the fields of an engine filename",
        (engine, "--json a__sm87_jp6.2_trt10.3_fp16.engine"),
    )
    parse.add_argument("file", metavar="FILE", help="engine file; it need not exist")
    add_json(parse)
    parse.set_defaults(run=_name_parse)
    build = add_command(
        *(jobs, "build", "print the path that an engine would have"),
        ("face --precision fp16", "face --hardware rtx_sm89 --json"),
    )
    build.add_argument("model", metavar="MODEL", help="model name")
    build.add_argument("--precision", choices=BUILDABLE, default="fp32", metavar="P", help="(default: fp32)")
    build.add_argument("--hardware", metavar="NAME", help="hardware name or file, as in HARDWARE=")
    add_json(build)
    build.set_defaults(run=_name_build)


def _name_parse(arguments: argparse.Namespace) -> int:
    fields = EngineFilename.parse(os.path.basename(arguments.file))._asdict()
    if arguments.json:
        print(json.dumps(fields))
    else:
        for field, value in fields.items():
            print(f"{field:12}{str(value).lower() if isinstance(value, bool) else value}")
    return 0


def _name_build(arguments: argparse.Namespace) -> int:
    path = engine_path(arguments.model, arguments.precision, arguments.hardware)
    if arguments.json:
        print(json.dumps({"path": path, **EngineFilename.parse(os.path.basename(path))._asdict()}))
    else:
        print(path)
    return 0


def engine_path(model: str, precision: str, named: str | None, folder: str = "") -> str:
    """The path of an engine that is built in this folder. named: its hardware, by default that of the
    environment or this host; folder: of engines, by default $TRT_ENGINE_DIR or `engines`. Raises EngineError.
    """
    runtime = Interpreter(os.environ.get("TRT_PYTHON")).runtime
    named, backend = named or os.environ.get("TRT_HARDWARE"), os.environ.get("TRT_BACKEND")
    hardware = resolve(named, Path.cwd(), runtime, backend or None)
    filename = EngineFilename.of(hardware.signature, model, precision)
    folder = folder or os.environ.get("TRT_ENGINE_DIR", "engines")
    return os.path.normpath(os.path.join(folder, hardware.name or "", filename.build()))
