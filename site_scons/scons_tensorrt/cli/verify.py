"""`verify`: are engines what their sidecars say, and, with a manifest, what a build handed on? On a
device, with nothing but Python."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.filename import EngineFilename
from ..artifact.verify import fault_of
from ..errors import EngineError, HardwareError
from ..files.json_cache import JsonCache
from ..hardware.host import Host
from ..hardware.resolve import resolve
from ..hardware.runtime import Interpreter, Runtime
from ..hardware.signature import HardwareSignature
from .common import engines, say

if TYPE_CHECKING:
    from .common import Commands


NO_RUNTIME = "the runtime's version was not checked: this Python has no TensorRT for RTX"


def add(commands: Commands) -> None:
    verify = commands.add_parser(
        "verify",
        help="are these engines what their sidecars say",
        description="Are these engines what their sidecars say? With --manifest or --hardware also: are "
        "they for this host, and what the build handed on? Then the exit status is that of the "
        "earliest check that refused: 10 filename, 11 host, 12 sidecar, 13 sidecar hash, 14 manifest, "
        "15 manifest hash, 16 signature, 17 unlisted, 18 missing, 19 key.",
    )
    verify.add_argument("path", nargs="*", help="an engine, or a folder of engines")
    verify.add_argument(
        "--manifest", metavar="FILE", help="what the build handed on; default PATH: its folder"
    )
    verify.add_argument(
        "--trusted-key",
        metavar="FILE",
        action="append",
        default=[],
        help="who may sign: a public key, PEM",
    )
    verify.add_argument("--hardware", metavar="NAME", help="the host, as after HARDWARE=; default: probed")
    verify.add_argument("--jetpack", metavar="X.Y", help="as after JETPACK=")
    verify.add_argument("--python", metavar="PATH", help="the interpreter that has TensorRT")
    verify.set_defaults(run=_verify, wrong=verify.error)


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.trusted_key and not arguments.manifest:
        arguments.wrong("--trusted-key: a signature is of a manifest; give --manifest too")
    if not arguments.path and not arguments.manifest:
        arguments.wrong("give engines, a folder of engines, or --manifest")
    if arguments.manifest or arguments.hardware:
        return _against_manifest(arguments)
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


def _against_manifest(arguments: argparse.Namespace) -> int:
    from ..release.verify import VerifyRequest, verify

    host, note = _host(arguments)
    asked = VerifyRequest(arguments.path, arguments.manifest, host, arguments.trusted_key, note)
    statuses = []
    for each in verify(asked):
        statuses.append(int(each.status))
        if each.status:
            say(f"REFUSED {each.path}: {each.check}: {each.why}")
        else:
            say(f"OK {each.path}{f': {each.why}' if each.why else ''}")
    return min((status for status in statuses if status), default=0)


def _host(arguments: argparse.Namespace) -> tuple[HardwareSignature | EngineError, str]:
    """The hardware named, or this host's, and what of it could not be told; what is wrong with it
    refuses every engine."""
    missing = False

    def runtime(product: str) -> Runtime:
        nonlocal missing
        missing = True
        found = Interpreter(arguments.python).runtime(product)
        missing = False
        return found

    try:
        if arguments.jetpack and not arguments.hardware and Host().l4t() is None:
            raise HardwareError(f"JETPACK={arguments.jetpack}: this host is not a Jetson; leave it out")
        signature = resolve(arguments.hardware, Path.cwd(), runtime, jetpack=arguments.jetpack).signature
        EngineFilename.of(signature, "x", "fp32")  # all that a filename is compared by is known
        return signature, ""
    except EngineError as error:
        if not missing or arguments.hardware or arguments.python or not arguments.manifest:
            return error, ""
        return _host_without_runtime(arguments.manifest) or error, NO_RUNTIME


def _host_without_runtime(path: str) -> HardwareSignature | EngineError | None:
    """This host as far as it can be told without TensorRT for RTX, for a manifest of its engines: the
    GPU by its driver, if there is one; the runtime as the manifest says. None for other engines."""
    from ..artifact.compatibility import rtx_host
    from ..release.verify import read_manifest

    try:
        engines = read_manifest(path).manifest.engines.values()
    except EngineError:  # verifying tells it
        return None
    try:
        host = Host()
        device = host.devices(JsonCache(None))[0] if host.nvidia_evidence() else None
        return rtx_host(engines, str(device["compute_capability"]) if device else None)
    except EngineError as error:
        return error
