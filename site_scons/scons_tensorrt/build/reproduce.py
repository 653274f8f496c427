"""Compile an engine again, to see whether the bytes are the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..artifact.state_folder import StateFolder
from ..errors import EngineError
from ..hardware.runtime import Interpreter
from .check_before_publish import check_plan
from .child_process import Compiled, run_worker
from .engine_spec import EngineSpec
from .make_job import fresh_log, linked_model, make_job


def compile_again(
    spec: EngineSpec, interpreter: Interpreter, log: Path, stopping: Callable[[], bool] = lambda: False
) -> Compiled:
    """Compile `spec` into a temporary folder. log: the file for native output.

    Raises EngineError.
    """
    with tempfile.TemporaryDirectory(prefix="scons-tensorrt-") as name:
        state = StateFolder(Path(name) / "state", Path(name))
        there = spec._replace(engine=Path(name) / spec.filename)
        runtime = interpreter.runtime(spec.hardware.signature.product)
        fresh_log(log)
        try:
            with linked_model(there, state, None, copy=True) as (model, pinned):
                job = make_job(there, state, runtime, os.environ, model, there.engine, pinned)
                descriptors = tuple(pinned.descriptors.values())
                made = run_worker(job, log, stopping, descriptors=descriptors)
                pinned.check()
        except EngineError as error:
            raise type(error)(f"{error}; log: {log}") from None
        check_plan(there, there.engine, made.size)
        return made
