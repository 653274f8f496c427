"""`check`: run an engine on the samples recorded beside it, and compare its outputs. For a device."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.filename import RECORDED_SUFFIX, EngineFilename
from ..artifact.plan_header import parse_header, read_head
from ..artifact.sidecar import read_sidecar
from ..errors import AccuracyError, HandoffError, HardwareError, plural
from ..files.json_cache import JsonCache
from .common import LEFT, add_command, add_json, add_python, print_json, say, was_left

if TYPE_CHECKING:
    from ..hardware.runtime import Runtime
    from ..hardware.signature import HardwareSignature
    from .common import Commands

DIFFERS = 20
NOT_RUN = 21


def add(commands: Commands) -> None:
    check = add_command(
        commands,
        "check",
        "run an engine here, and compare it with recorded outputs",
        (
            "engines/face__*.engine",
            "engines/face__*.engine --json",
        ),
        "Verify an engine against its sidecar and this host, run it on recorded samples, and compare its "
        "outputs with the original's by the recorded bound. accuracy=dict(..., record=N) records the samples "
        f"in ENGINE{RECORDED_SUFFIX}. Needs numpy in the Python that has TensorRT. Exit status: 0 if every "
        "output is within its bound; 20 if one is not, or the engine cannot be loaded or run; 21 if this "
        "host has no GPU, TensorRT or numpy; if the engine is refused, that of `verify`: 10 filename, "
        "11 host, 12 sidecar, 13 sidecar hash, 18 missing; 1 for any other error.",
    )
    check.add_argument("engine", metavar="ENGINE", help="engine file")
    check.add_argument("--samples", metavar="FILE", help=f"recorded file (default: ENGINE{RECORDED_SUFFIX})")
    check.add_argument(
        *("--plugin", "--plugins"),
        metavar="FILE",
        action="append",
        default=[],
        dest="plugins",
        help="plugin library that the engine needs; may be repeated",
    )
    check.add_argument("--jetpack", metavar="X.Y", help="JetPack version, as in JETPACK=")
    add_python(check)
    add_json(check)
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from ..build.check_recorded import NotRun

    found: dict[str, Any] = {"reason": None, "gpu": None, "outputs": []}
    try:
        refused = _refusal(arguments.engine)
        if refused is None:
            host, runtime = _host(arguments)
            refused = _other_host(arguments.engine, host)
        if refused is None:
            found |= _run(arguments, host, runtime)
            status = 0 if all(each["ok"] for each in found["outputs"]) else DIFFERS
        else:
            status, found["reason"] = refused
    except NotRun as why:
        status, found["reason"] = NOT_RUN, str(why)
    except AccuracyError as error:
        status, found["reason"] = DIFFERS, str(error)
    outcome = {0: "ok", DIFFERS: "failed", NOT_RUN: "not run"}.get(status, "refused")
    if arguments.json:
        files = {"engine": arguments.engine, "samples": _samples(arguments)}
        outputs = [{name: _json(value) for name, value in each.items()} for each in found["outputs"]]
        print_json({"status": status, **files, "outcome": outcome, **found, "outputs": outputs})
    else:
        for line in _lines(arguments.engine, outcome, found):
            say(line)
    return status


def _json(value: Any) -> Any:
    """A figure for JSON, which has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _samples(arguments: argparse.Namespace) -> str:
    return str(arguments.samples or arguments.engine + RECORDED_SUFFIX)


def _refusal(engine: str) -> tuple[int, str] | None:
    """The status and reason if an engine does not match its name and sidecar."""
    from ..release.verify_release import check

    found = check(engine, None, None)
    if was_left(engine):
        found = found._replace(why=LEFT)
    return (int(found.status), f"{found.check}: {found.why}") if found.status else None


def _host(arguments: argparse.Namespace) -> tuple[HardwareSignature, Runtime]:
    """This host and the runtime of the engine's product. Raises NotRun if one is missing."""
    from ..build.check_recorded import NotRun
    from ..hardware.choose_hardware import probe
    from ..hardware.probe_host import Host
    from ..hardware.runtime import Interpreter
    from ..hardware.signature import PRODUCTS

    name, host = EngineFilename.parse(os.path.basename(arguments.engine)), Host()
    product = next(product for product, short in PRODUCTS.items() if name.runtime.startswith(short))
    evidence = host.nvidia_evidence()
    if evidence is None:
        raise NotRun("no NVIDIA GPU found")
    try:
        runtime = Interpreter(arguments.python or os.environ.get("TRT_PYTHON")).runtime(product)
        memo = JsonCache(None)
        hardware = probe(host, evidence, lambda _: runtime, product, arguments.jetpack, memo)
    except HardwareError as error:
        raise NotRun(str(error)) from None
    return hardware.signature, runtime


def _other_host(engine: str, host: HardwareSignature) -> tuple[int, str] | None:
    """The status and reason if an engine is for another host."""
    from ..artifact.compatibility import why_not_here
    from ..release.verify_release import Status

    name, header = EngineFilename.parse(os.path.basename(engine)), parse_header(read_head(engine)[0])
    why = why_not_here(name, header, host, None)
    return (int(Status.HOST), f"host: {why}") if why else None


def _run(arguments: argparse.Namespace, host: HardwareSignature, runtime: Runtime) -> dict[str, Any]:
    """The GPU, and the figures of each output. Raises NotRun and EngineError."""
    from ..build.check_recorded import check_recorded

    engine, samples = Path(arguments.engine), Path(_samples(arguments))
    if not samples.is_file():
        raise HandoffError(f"{samples}: no such file; make it with accuracy=dict(..., record=N), or name one")
    done = check_recorded(engine, read_sidecar(engine), samples, host, runtime, arguments.plugins)
    outputs = [
        {
            "output": name,
            "ok": figures["error"] <= figures["bound"],
            "metric": done.options["metric"],
            "samples": done.samples,
            **figures,
        }
        for name, figures in sorted(done.outputs.items())
    ]
    return {"gpu": done.gpu, "outputs": outputs}


def _lines(engine: str, outcome: str, found: Mapping[str, Any]) -> Iterator[str]:
    word = {"ok": "OK", "failed": "FAILED", "not run": "NOT RUN"}.get(outcome, "REFUSED")
    if found["reason"]:
        yield f"{word} {engine}: {found['reason']}"
    for each in found["outputs"]:
        error = f"{each['metric']} error {each['error']:.3g}"
        if each["ok"]:
            count = plural(each["samples"], "sample")
            text = f"{error} of {each['bound']:.3g} ({count}, on {found['gpu']})"
        else:
            text = (
                f"{error}, beyond {each['bound']:.3g} (sample {each['sample']}, worst at {each['at']}: "
                f"{each['converted']:.6g}, and {each['original']:.6g} recorded)"
            )
        yield f"{'OK' if each['ok'] else 'FAILED'} {engine}: output `{each['output']}`: {text}"
