"""Complete jobs of the workers, of which a test changes what it is about."""

import sys
from pathlib import Path

from scons_tensorrt.worker.trt.job import BuildOptions, CompileJob, RunJob

OPTIONS = BuildOptions(
    precision="fp32",
    workspace_mb=64,
    flags=[],
    profiles=[],
    memory_pools={},
    settings={},
    strongly_typed=False,
)


def compile_job(folder: Path, **changes) -> CompileJob:
    """A compile of `model.onnx` in a folder. changes: of the job or of its recipe."""
    recipe = {name: changes.pop(name) for name in BuildOptions._fields if name in changes}
    job = CompileJob(
        python=sys.executable,
        environment={},
        product="tensorrt_rtx",
        runtime_version="0.0",
        package_folder="/nowhere",
        library_path=None,
        hardware={},
        architectures=[],
        plugins=[],
        folder=str(folder),
        onnx="model.onnx",
        input_bytes=64 << 20,
        output=str(folder / "out.engine"),
        timing_cache=None,
        recipe=OPTIONS._replace(**recipe),
        calibration=None,
        pinned=None,
    )
    return job._replace(**changes)


def run_job(folder: Path, **changes) -> RunJob:
    """A run of the engine `a.engine` in a folder."""
    job = RunJob(
        product="tensorrt_rtx",
        runtime_version="0.0",
        package_folder="/nowhere",
        library_path=None,
        hardware={},
        architectures=[],
        plugins=[],
        engine=str(folder / "a.engine"),
        sha256="0" * 64,
        flags=[],
        settings={},
        inputs=str(folder / "inputs"),
        outputs=str(folder / "outputs"),
        runs=[f"sample {number}" for number in range(100)],
    )
    return job._replace(**changes)
