"""`sensitivity`: which layers of a converted network cost most accuracy."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.sensitivity_file import keep
from ..build.declared_engines import DeclaredEngine, find_declared_engine
from ..errors import EngineError, plural
from ..files.writing import cause
from ..recipe.gate_options import share_of_bound
from .common import (
    add_command,
    add_json,
    add_state_dir,
    engines_of_model,
    print_json,
    say,
    state_folder,
)

if TYPE_CHECKING:
    from .common import Commands

LISTED = 10
LEAST = 0.99  # of the error as it is: what is above is not listed
SAMPLES = 4
EVERY_S = 5.0  # between two lines of progress


def add(commands: Commands) -> None:
    sensitivity = add_command(
        commands,
        "sensitivity",
        "list the layers that cost most accuracy",
        ("face", "face --samples 1 --json"),
        "For engines whose ONNX the build converts (fp16, bf16, int8, fp8): the error of the outputs with "
        "one layer back in float, for each layer, the lowest first. Runs in ONNX Runtime on the CPU, on the "
        "samples of accuracy= or calibration=, else on drawn inputs: one run for each layer and sample. The "
        "report shows the figures, too.",
    )
    sensitivity.add_argument(
        "path", metavar="ENGINE|MODEL", help="engine file, or model name for all of its engines"
    )
    sensitivity.add_argument(
        "--samples",
        type=_count,
        default=SAMPLES,
        metavar="N",
        help=f"use the first N samples (default: {SAMPLES})",
    )
    sensitivity.add_argument(
        "--python",
        metavar="PATH",
        help="Python interpreter with onnx and onnxruntime (default: $TRT_ONNX_PYTHON, else this one)",
    )
    add_state_dir(sensitivity)
    add_json(sensitivity)
    sensitivity.set_defaults(run=_sensitivity)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0")
    return int(text)


def _sensitivity(arguments: argparse.Namespace) -> int:
    from ..build.measure_sensitivity import spec_of

    specs: dict[str, Any] = {}  # by the converted ONNX, which engines for several kinds of hardware share
    faults: dict[str, EngineError] = {}
    for engine in _engines(arguments):
        try:
            spec = spec_of(engine, arguments.samples)
        except EngineError as error:
            faults[str(error)] = error
            continue
        if spec is not None:
            specs.setdefault(spec.source, (spec, []))[1].append(engine)
    if not specs and faults:
        raise next(iter(faults.values()))
    if not specs:
        raise EngineError(
            f"{arguments.path}: no engine of it has a converted ONNX, so no layer can be back in float; "
            "declare one with precision='fp16', or 'int8' and calibration="
        )
    rows = [_measured(spec, engines, arguments) for spec, engines in specs.values()]
    if arguments.json:
        print_json({"results": rows})
    else:
        for row in rows:
            for line in _lines(row):
                say(line)
    for text, fault in faults.items():
        say(f"{type(fault).__name__}: {text}", sys.stderr)
    return int(bool(faults))


def _engines(arguments: argparse.Namespace) -> Iterator[DeclaredEngine]:
    """The declared engines that the argument names. Raises EngineError."""
    named = engines_of_model(arguments.path, arguments.state_dir)
    for path in named or [Path(arguments.path.removesuffix(SIDECAR_SUFFIX))]:
        found = find_declared_engine(path, state_folder(path, arguments.state_dir))
        if found is None:
            raise EngineError(f"{path}: the last run did not declare it; run `scons engines` first")
        yield found


def _measured(spec: Any, engines: list[DeclaredEngine], arguments: argparse.Namespace) -> dict[str, Any]:
    from ..build.measure_sensitivity import measure

    state = engines[0].declaration.state
    python = arguments.python or os.environ.get("TRT_ONNX_PYTHON") or sys.executable
    figures = measure(spec, state.top, python, lambda: False, _Progress(spec.source))
    try:
        keep(state, spec.ingredients["input converted"], figures)
    except OSError as error:
        where = error.filename or str(state.root)
        why = cause(error, "make the state folder writable")
        say(f"not kept for the report: {why if where in why else f'{where}: {why}'}", sys.stderr)
    layers = sorted(figures["layers"], key=lambda each: share_of_bound(each["error"], each["bound"]))
    labels = [engine.label for engine in engines]
    return {"onnx": spec.source, "engines": labels, **figures, "layers": layers}


class _Progress:
    """A line on standard error now and then: hundreds of runs may take minutes."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._told = time.monotonic()

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress" and time.monotonic() >= self._told + EVERY_S:
            self._told = time.monotonic()
            done = f"layer {event['layer']} of {event['layers']}, sample {event['sample'] + 1}"
            say(f"MEASURING {self._source}: {done}", sys.stderr)


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    whole, layers, noise = row["all"], row["layers"], row["noise"]
    better = [each for each in layers if _share(each) < LEAST * _share(whole)]
    samples = plural(row["samples"], "drawn input" if row["drawn"] else "sample")
    yield f"{row['onnx']}: {row['metric']} error {_error(whole)}, {samples}; with one {_tried(row)} in float:"
    for each in better[:LISTED]:
        yield f"  {_error(each):42} {each['op']:13} {each['layer']}"
    if not better:
        yield "  no single one lowers it"
    elif len(better) > LISTED:
        yield f"  {len(better) - LISTED} more lower it; --json lists all"
    if noise is not None:
        yield (
            f"noise: if float32 rounds each activation otherwise, as an engine does, the outputs move by "
            f"{_error(noise)}; smaller differences say nothing"
        )
    if better and _share(whole) - _share(better[0]) > (_share(noise) if noise else 0):
        yield f"keep_nodes={better[0]['keep'] or [better[0]['layer']]!r} keeps the first of them in float"
    elif better:
        yield "no single one lowers it by more than the noise"


def _tried(row: Mapping[str, Any]) -> str:
    tried = len(row["layers"])
    if row["kind"] == "8 bit":
        return f"of {plural(tried, 'layer')}"
    others = row["of"] - tried
    return f"of {plural(tried, '16-bit tensor')}" + (f" ({others} others lose less)" if others else "")


def _error(figures: Mapping[str, Any]) -> str:
    of_bound = f"{figures['error']:.3g} of {figures['bound']:.3g}"
    return f"{of_bound} ({_share(figures):.0%}) at `{figures['output']}`"


def _share(figures: Mapping[str, Any]) -> float:
    return share_of_bound(figures["error"], figures["bound"])
