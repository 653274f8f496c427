"""`probe`: show the hardware that engines are built for on this host."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.filename import EngineFilename
from ..errors import HardwareError
from ..hardware.choose_hardware import Hardware, resolve
from ..hardware.probe_host import Host
from ..hardware.runtime import Interpreter
from ..hardware.signature import HardwareSignature
from .common import add_command, add_json, add_python, say

if TYPE_CHECKING:
    from .common import Commands


def add(commands: Commands) -> None:
    probe = add_command(
        *(commands, "probe", "show the hardware that engines are built for on this host"),
        ("--hardware rtx_sm89", "--json > hardware/this_host.json"),
    )
    probe.add_argument(
        "--hardware", metavar="NAME", help="hardware name or file, as in HARDWARE= (default: $TRT_HARDWARE)"
    )
    probe.add_argument("--backend", metavar="NAME", help="backend, as in BACKEND= (default: $TRT_BACKEND)")
    probe.add_argument("--jetpack", metavar="X.Y", help="JetPack version, as in JETPACK=")
    probe.add_argument(
        "--root", metavar="DIR", help="read JetPack and TensorRT versions from a root file system"
    )
    add_python(probe)
    add_json(probe, "print a hardware file for HARDWARE=")
    probe.set_defaults(run=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    interpreter = Interpreter(arguments.python or os.environ.get("TRT_PYTHON"))
    named = arguments.hardware or os.environ.get("TRT_HARDWARE")
    backend = arguments.backend or os.environ.get("TRT_BACKEND")
    if arguments.root:
        hardware = _of_root(arguments, named, interpreter)
    else:
        python, jetpack = interpreter.runtime, arguments.jetpack
        hardware = resolve(named, Path.cwd(), python, backend, jetpack, whole=bool(arguments.json))
    if arguments.json:
        print(json.dumps(hardware.signature.to_json(), indent=2, sort_keys=True))
        return 0
    for label, value in _hardware_rows(hardware):
        say(f"{label:20}{value}")
    return 0


def _of_root(arguments: argparse.Namespace, named: str | None, interpreter: Interpreter) -> Hardware:
    """The board of a hardware file with the JetPack and TensorRT versions of an image."""
    if not named:
        arguments.wrong("--root gives the JetPack and TensorRT versions but not the GPU; add --hardware")
    host = Host(Path(arguments.root).absolute())
    packaged, jetpack = host.tensorrt(), host.jetpack(arguments.jetpack)
    if not packaged or not jetpack:
        what = "TensorRT package" if jetpack else "L4T release"
        raise HardwareError(f"{arguments.root}: no {what} found in /etc or /var/lib/dpkg/status")
    board = resolve(named, Path.cwd(), interpreter.runtime).signature.to_json()
    if board["product"] != "tensorrt":
        raise HardwareError(f"--root supports tensorrt only, and {named} is for {board['product']}")
    data = {**board, "runtime_version": packaged[0], "jetpack": jetpack}
    signature = HardwareSignature.from_json(data, arguments.root)
    return Hardware(named, signature, f"{named} with the image in {arguments.root}")


def _hardware_rows(hardware: Hardware) -> Iterator[tuple[str, str]]:
    signature = hardware.signature
    yield "hardware", f"{hardware.name or hardware.title}: {signature.describe()}"
    yield "reason", f"{hardware.why}; {hardware.note}" if hardware.note else hardware.why
    yield from signature.key_fields().items()
    yield from sorted(signature.recorded.items())
    yield "filename", EngineFilename.of(signature, "model", "fp32").build()
