"""`name parse`: show the fields of an engine filename."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from ..artifact.filename import EngineFilename
from .common import add_command

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    engine = "face__sm87_jp6.2_trt10.3_fp16.engine"
    name = add_command(commands, "name", "parse an engine filename", f"parse {engine}")
    jobs = name.add_subparsers(required=True, metavar="parse")
    parse = add_command(jobs, "parse", "show the fields of an engine filename", engine)
    parse.add_argument("file", metavar="FILE", help="engine file; it need not exist")
    parse.add_argument("--json", action="store_true", help="print JSON")
    parse.set_defaults(run=_name_parse)


def _name_parse(arguments: argparse.Namespace) -> int:
    fields = EngineFilename.parse(os.path.basename(arguments.file))._asdict()
    if arguments.json:
        print(json.dumps(fields))
    else:
        for field, value in fields.items():
            print(f"{field:12}{str(value).lower() if isinstance(value, bool) else value}")
    return 0
