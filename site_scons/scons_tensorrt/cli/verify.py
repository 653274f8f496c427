"""`verify`: check engines against their sidecars and, with --manifest, against a release.

Runs on a device with the standard library alone.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact.filename import EngineFilename
from ..artifact.verify_pair import fault_of
from ..errors import EngineError, HardwareError
from ..files.in_parallel import in_order
from ..files.json_cache import JsonCache
from ..hardware.choose_hardware import resolve
from ..hardware.probe_host import Host
from ..hardware.runtime import Interpreter, Runtime
from ..hardware.signature import HardwareSignature
from .common import LEFT, add_command, add_json, engines, print_json, say, was_left

if TYPE_CHECKING:
    from .common import Commands


NO_RUNTIME = "runtime version not checked: this Python has no TensorRT for RTX"


def add(commands: Commands) -> None:
    verify = add_command(
        commands,
        "verify",
        "check engines against their sidecars, a manifest and this host",
        ("engines", "engines --manifest dist/manifest.json"),
        "Check engines against their sidecars. With --manifest or --hardware, also check "
        "that they match the manifest and this host; the exit status is then that of the first check "
        "that failed: 10 filename, 11 host, 12 sidecar, 13 sidecar hash, 14 manifest, "
        "15 manifest hash, 16 signature, 17 unlisted, 18 missing, 19 key.",
    )
    verify.add_argument("path", nargs="*", metavar="PATH", help="engine file, or a folder of engines")
    verify.add_argument(
        "--manifest", metavar="FILE", help="manifest of the release; PATH defaults to its folder"
    )
    verify.add_argument(
        "--trusted-key",
        metavar="PATH",
        action="append",
        default=[],
        help="public key (PEM file), or a folder of *.pub, that may sign the manifest; may be repeated",
    )
    verify.add_argument(
        "--hardware", metavar="NAME", help="hardware of the host, as in HARDWARE= (default: probe)"
    )
    verify.add_argument("--jetpack", metavar="X.Y", help="JetPack version, as in JETPACK=")
    verify.add_argument("--python", metavar="PATH", help="Python interpreter with TensorRT")
    add_json(verify)
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.trusted_key and not arguments.manifest:
        arguments.wrong("--trusted-key requires --manifest")
    if not arguments.path and not arguments.manifest:
        arguments.wrong("PATH or --manifest is required")
    if arguments.manifest or arguments.hardware:
        return _against_manifest(arguments)
    for option in ("jetpack", "python"):
        if getattr(arguments, option):
            arguments.wrong(f"--{option} requires --manifest or --hardware")
    rows = []
    for path, fault in in_order(lambda path: (path, _fault(path)), engines(arguments.path)):
        rows.append({"engine": path, "ok": fault is None, "check": None, "reason": fault})
        if not arguments.json:
            say(f"FAILED {path}: {fault}" if fault else f"OK {path}")
    status = int(not all(row["ok"] for row in rows))
    if arguments.json:
        print_json({"status": status, "engines": rows})
    return status


def _fault(path: str) -> str | None:
    try:
        EngineFilename.parse(os.path.basename(path))
        return LEFT if was_left(path) else fault_of(path)
    except EngineError as error:
        return f"{type(error).__name__}: {error}"


def _against_manifest(arguments: argparse.Namespace) -> int:
    from ..release.verify_release import Status, VerifyRequest, verify

    host, note = _host(arguments)
    request = VerifyRequest(arguments.path, arguments.manifest, host, arguments.trusted_key, note)
    statuses, rows = [], []
    for each in verify(request):
        if each.status == Status.MISSING and was_left(each.path):
            each = each._replace(why=LEFT)
        statuses.append(int(each.status))
        check = each.check if each.status else None
        rows.append(
            {"engine": str(each.path), "ok": not each.status, "check": check, "reason": each.why or None}
        )
        if arguments.json:
            continue
        if each.status:
            say(f"REFUSED {each.path}: {each.check}: {each.why}")
        else:
            say(f"OK {each.path}{f': {each.why}' if each.why else ''}")
    status = min((status for status in statuses if status), default=0)
    if arguments.json:
        print_json({"status": status, "engines": rows})
    return status


def _host(arguments: argparse.Namespace) -> tuple[HardwareSignature | EngineError, str]:
    """The hardware named, or this host's, and a note on what was not checked.

    An error is returned, not raised: every engine then fails the host check with it.
    """
    missing = False  # whether the runtime query failed

    def runtime(product: str) -> Runtime:
        nonlocal missing
        missing = True
        found = Interpreter(arguments.python).runtime(product)
        missing = False
        return found

    try:
        if arguments.jetpack and not arguments.hardware and Host().l4t() is None:
            raise HardwareError(f"JETPACK={arguments.jetpack}: this host is not a Jetson; leave it out")
        host = resolve(arguments.hardware, Path.cwd(), runtime, jetpack=arguments.jetpack, whole=True)
        signature = host.signature
        EngineFilename.of(signature, "x", "fp32")  # raises if a field that filenames need is unknown
        return signature, ""
    except EngineError as error:
        if not missing or arguments.hardware or arguments.python or not arguments.manifest:
            return error, ""
        return _host_without_runtime(arguments.manifest) or error, NO_RUNTIME


def _host_without_runtime(path: str) -> HardwareSignature | EngineError | None:
    """This host without an installed TensorRT for RTX: the GPU from its driver, if any; the runtime
    version from the manifest. None if the manifest's engines are not for TensorRT for RTX."""
    from ..artifact.compatibility import rtx_host
    from ..release.verify_release import read_manifest

    try:
        engines = read_manifest(path).manifest.engines.values()
    except EngineError:  # reported when the manifest is verified
        return None
    try:
        host = Host()
        device = host.devices(JsonCache(None))[0] if host.nvidia_evidence() else None
        return rtx_host(engines, str(device["compute_capability"]) if device else None)
    except EngineError as error:
        return error
