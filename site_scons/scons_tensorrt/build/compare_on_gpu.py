"""Compares an engine with its original, on the GPU that it is for, in three child processes.

The first runs the original on the samples with ONNX Runtime, the second runs the engine on them with
TensorRT, the third compares the outputs. That the engine cannot be run here is a result, not an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AccuracyError, EngineBuildError, PublishError
from ..files.writing import cause, remove_tree, unlink_link
from ..hardware.runtime import Runtime
from ..worker.trt.job import RunJob
from .child_process import ENVIRONMENT, run_program
from .child_programs import RUNNER
from .engine_spec import EngineSpec
from .inputs_held_open import Pinned, links_to
from .make_job import gpu_choice, plugin_places
from .onnx_context import OnnxContext
from .onnx_spec import OnnxSpec
from .run_onnx_step import run_converter
from .step_inputs import named_as_given, snapshot


def compare_on_gpu(
    engine: Path, sha256: str, spec: EngineSpec, check: OnnxSpec, runtime: Runtime, context: OnnxContext
) -> dict[str, Any] | str:
    """The figures of the engine at a path with this sha256, or the reason why it was not run.

    check: samples and options, and the "reference" and "converted" ONNX. Raises AccuracyError if an output is
    beyond its bound or the engine fails.
    """
    folder = context.state.partial(spec.engine) / "run"
    log = context.state.log(spec.engine)
    try:
        unlink_link(folder.parent)
        remove_tree(folder)
        folder.mkdir(parents=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        return _run(engine, sha256, spec, check, runtime, context, folder)
    except (AccuracyError, EngineBuildError) as error:
        reason = named_as_given(str(error), check, folder / "originals")
        text = f"the engine, run on the GPU: {reason}; log: {context.state.relative(log)}"
        raise AccuracyError(text) from None
    except OSError as error:
        where = context.state.relative(error.filename or context.state.root)
        raise PublishError(
            f"{where}: {cause(error, 'make room or make the folder writable, then run again')}"
        ) from None
    finally:
        remove_tree(folder)


def _run(
    engine: Path,
    sha256: str,
    spec: EngineSpec,
    check: OnnxSpec,
    runtime: Runtime,
    context: OnnxContext,
    folder: Path,
) -> dict[str, Any] | str:
    log = context.state.log(spec.engine)
    files = {name: str(folder / name) for name in ("inputs", "expected", "moved", "plan", "outputs")}
    onnx, samples = snapshot(check, folder / "originals", context.state.top)
    more = {
        "onnx": onnx,
        "files": files,
        "samples": samples,
        "options": dict(check.options),
        "target": str(folder / "accuracy.json"),
    }

    def convert(kind: str) -> Mapping[str, Any]:
        return run_converter({**more, "kind": kind}, log, context)[0]

    runs = convert("expect")["runs"]
    environment = {**ENVIRONMENT, **gpu_choice(os.environ)}
    for copy in (False, True):
        places = plugin_places(spec, folder / ("copies" if copy else "plugins"))
        with links_to({}, places, spec.ingredients, context.digest_cache, "loaded", copy) as pinned:
            job = _job(engine, sha256, spec, runtime, pinned, files, runs).to_json()
            descriptors = tuple(pinned.descriptors.values())
            ran, _ = run_program(
                RUNNER, runtime.python, job, log, context.stopping, environment, descriptors=descriptors
            )
            if pinned.check():
                break
    if ran["not_run_because"]:
        return str(ran["not_run_because"])
    return {**convert("judge"), "gpu": ran["gpu"]}


def _job(
    engine: Path,
    sha256: str,
    spec: EngineSpec,
    runtime: Runtime,
    pinned: Pinned,
    files: Mapping[str, str],
    runs: list[str],
) -> RunJob:
    signature, recipe = spec.hardware.signature, spec.recipe
    return RunJob(
        product=signature.product,
        runtime_version=signature.runtime_version,
        package_folder=runtime.folder,
        library_path=os.environ.get("LD_LIBRARY_PATH"),
        hardware=signature.to_json(),
        architectures=list(signature.architectures or ()),
        plugins=pinned.plugins,
        engine=str(engine),
        sha256=sha256,
        flags=list(recipe.flags),
        settings=dict(recipe.settings),
        inputs=files["inputs"],
        outputs=files["outputs"],
        runs=runs,
    )
