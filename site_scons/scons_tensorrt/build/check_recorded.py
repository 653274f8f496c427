"""Compares an engine with the file recorded beside it, on the device that runs it: `scons-tensorrt check`.

A device may have neither a source tree nor onnx. One child process unpacks the recorded file, the second
runs the engine with TensorRT, and the third compares the outputs with numpy.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import AccuracyError, EngineBuildError, RecipeError
from ..hardware.probe_host import CUDA_VARIABLES
from ..hardware.runtime import Runtime
from ..hardware.signature import HardwareSignature
from ..values import Value
from ..worker.trt.job import RunJob
from .child_process import ENVIRONMENT, run_program
from .child_programs import CHECKER, RUNNER


class NotRun(Exception):
    """The engine cannot be run or compared here, through no fault of the engine. The text is the reason."""


class Checked(Value):
    """gpu: its name; samples: how many; options: rtol, atol and metric; outputs: by name, the figures of each
    output's worst sample, see worker/onnx/judge_outputs.py."""

    gpu: str
    samples: int
    options: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]


def check_recorded(
    engine: Path,
    sha256: str,
    recorded: Path,
    host: HardwareSignature,
    runtime: Runtime,
    plugins: Sequence[str] = (),
) -> Checked:
    """Run the engine with this sha256 on the recorded samples. plugins: libraries to load.

    Raises NotRun, HandoffError if the recorded file is damaged, and AccuracyError if the engine cannot be
    loaded or run, or lacks an output.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        files = {name: os.path.join(folder, name) for name in ("inputs", "expected", "outputs")}
        log = Path(folder, "log")

        def run(program: Any, job: Mapping[str, Any], environment: Mapping[str, str], *held: int) -> Any:
            done, _ = run_program(
                program, runtime.python, job, log, lambda: False, environment, descriptors=held
            )
            return done

        def convert(kind: str, **more: Any) -> dict[str, Any]:
            job = {"kind": kind, "files": files, "recorded": str(recorded), **more}
            return dict(run(CHECKER, job, os.environ)["facts"])

        found = convert("unpack")
        libraries = []
        for path in map(os.path.abspath, plugins):
            libraries.append((path, opened.enter_context(open(path, "rb")).fileno()))
        job = _job(engine, sha256, host, runtime, libraries, files, found)
        try:
            held = [descriptor for _, descriptor in libraries]
            ran = run(RUNNER, job.to_json(), {**ENVIRONMENT, **_gpu_choice()}, *held)
            if ran["not_run_because"]:
                raise NotRun(ran["not_run_because"])
            compared = convert("compare", options=found["options"])
        except (EngineBuildError, RecipeError) as error:
            raise AccuracyError(str(error)) from None
        if compared["not_run_because"]:
            raise NotRun(compared["not_run_because"])
    return Checked(ran["gpu"], len(found["runs"]), found["options"], compared["outputs"])


def _gpu_choice() -> dict[str, str]:
    return {name: os.environ[name] for name in CUDA_VARIABLES if name in os.environ}


def _job(
    engine: Path,
    sha256: str,
    host: HardwareSignature,
    runtime: Runtime,
    plugins: list[tuple[str, int]],
    files: Mapping[str, str],
    found: Mapping[str, Any],
) -> RunJob:
    options = found["options"]
    return RunJob(
        product=host.product,
        runtime_version=runtime.version,
        package_folder=runtime.folder,
        library_path=os.environ.get("LD_LIBRARY_PATH"),
        hardware=host.to_json(),
        architectures=[],  # compared before
        plugins=plugins,
        engine=str(engine),
        sha256=sha256,
        flags=["VERSION_COMPATIBLE"] if options.get("host_code") else [],
        settings={"dla_core": options["dla_core"]} if "dla_core" in options else {},
        inputs=files["inputs"],
        outputs=files["outputs"],
        runs=found["runs"],
    )
