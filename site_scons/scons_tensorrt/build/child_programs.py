"""The programs of child processes. A program is a set of modules of this package, which are sent as text:
the child may be another interpreter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..files.reading import text_of
from ..worker.trt.job import CompileJob

JOB_STEP = 256 << 10  # bytes
COMMON = "scons_tensorrt.worker.common"
TRT = "scons_tensorrt.worker.trt"
ONNX = "scons_tensorrt.worker.onnx"


@dataclass(frozen=True)
class Program:
    """modules: in the order of their execution; the last one has `main(job)`.

    done: fields of the last event and their types; options: of the interpreter; argument: the stage at which
    boot.py begins; later: modules that `main` imports when it needs them, because they import packages
    that may be missing; imports: packages that every job imports first, for fork_server.py to have imported;
    title: in messages.
    """

    modules: tuple[str, ...]
    done: Mapping[str, type]
    options: tuple[str, ...]
    argument: str
    later: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    title: str = "compiler"

    def frame(self, job: Mapping[str, Any]) -> bytes:
        """Modules and job as boot.py reads them, padded so that the length of a path does not change the
        heap."""
        parts = [name.split(".") for name in self.modules]
        packages = {".".join(words[:depth]) for words in parts for depth in range(1, len(words))}
        modules = [[name, ""] for name in sorted(packages)]
        modules += [[name, text_of(name)] for name in self.modules]
        more = {"later": {name: text_of(name) for name in self.later}} if self.later else {}
        data = json.dumps({**job, "modules": modules, **more}).encode("utf-8")
        data = data.ljust(-(-len(data) // JOB_STEP) * JOB_STEP)
        return b"%016d" % len(data) + data


def _trt(*names: str) -> tuple[str, ...]:
    return tuple(f"{TRT}.{name}" for name in names)


# -I, -S: no path and no .pth file of the user has an effect. No .pyc is read or written, because whether
# one exists changes the heap.
COMPILER = Program(
    modules=(
        *("scons_tensorrt.hardware.cuda", f"{COMMON}.errors", f"{COMMON}.parent"),
        *_trt("job", "runtime", "check_hardware", "callbacks", "settings", "network", "build"),
        *_trt("shared_file", "timing_cache", "main"),
    ),
    done={"sha256": str, "size": int, "version": str, "python": str, "peak_memory_bytes": int},
    options=("-I", "-S", "-B", "-X", "pycache_prefix=/dev/null/none"),
    argument="1",
)

# Only for a job that calibrates: each module is compiled from its text at every start.
CALIBRATING = replace(
    COMPILER,
    modules=(
        *COMPILER.modules[:-1],
        f"{COMMON}.array_file",
        *_trt("gpu_memory", "calibrate", "main"),
    ),
)


def compiler_of(job: CompileJob) -> Program:
    """The program of a compile."""
    program = CALIBRATING if job.calibration else COMPILER
    if job.pinned is None:
        return program
    *first, last = program.modules
    return replace(program, modules=(*first, *_trt("pinned_kernels"), last))


# Runs an engine on its GPU. Need not be canonical.
RUNNER = replace(
    COMPILER,
    modules=(*COMPILER.modules, f"{COMMON}.array_file", *_trt("gpu_memory", "run_engine")),
    done={"not_run_because": str, "gpu": str},
    argument="2",
    title="run of the engine",
)

_STARTED_WITH = "main"  # of worker/onnx; the other modules are imported by the jobs that need them

# Runs the ONNX steps, in the user's environment. The function of an export may import what it wants, in any
# order, so that is a new process.
EXPORTER = Program(
    modules=(
        *(f"{COMMON}.{name}" for name in ("errors", "parent", "array_file", "recorded_file")),
        f"{ONNX}.{_STARTED_WITH}",
    ),
    done={"facts": dict},
    options=("-B",),
    argument="2",
    title="export",
    later=tuple(
        f"{ONNX}.{path.stem}"
        for path in sorted(Path(__file__).parent.with_name("worker").joinpath("onnx").glob("*.py"))
        if path.stem not in ("__init__", _STARTED_WITH)
    ),
)

CONVERTER = replace(EXPORTER, imports=("onnx",), title="converter")

# Compares an engine with a recorded file. Its modules are named: in a zip file no folder can be listed.
CHECKER = replace(
    EXPORTER,
    title="comparison",
    later=tuple(f"{ONNX}.{name}" for name in ("compare_recorded", "judge_outputs", "plain_arrays")),
)
