"""The comparison of an engine with its original on its GPU, as `env.Engine(accuracy=…)` declares it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.engine_spec import EngineSpec
from ..errors import HardwareError
from .hardware_cache import HardwareCache
from .onnx_target import OnnxTarget
from .run_messages import RunMessages

if TYPE_CHECKING:
    from ..build.onnx_context import OnnxContext


class EngineAccuracyCheck:
    """Compares the engine itself with its original, on its GPU: see build/compare_on_gpu.py. gate: the
    samples, options and ONNX files to compare by, whether or not it is a target."""

    def __init__(
        self,
        gate: OnnxTarget,
        python: str,
        hardware: HardwareCache,
        report: RunMessages,
        context: Callable[[], OnnxContext],
    ) -> None:
        self._gate, self._python = gate, python
        self._hardware, self._report, self._context = hardware, report, context

    def key(self) -> str:
        """A key of the samples, bounds and originals. Raises EngineError."""
        return self._gate.key

    def why_not(self) -> str | None:
        """Why no engine can run here, if known without a probe."""
        return "no NVIDIA GPU found" if self._hardware.host.nvidia_evidence() is None else None

    def run(self, spec: EngineSpec, engine: Path, sha256: str) -> dict[str, Any] | str:
        """The figures of an engine of these bytes, or why it was not run. Raises EngineError."""
        from ..build.compare_on_gpu import compare_on_gpu
        from ..build.inputs_unchanged import check_unchanged

        began = time.monotonic()
        try:
            interpreter = self._hardware.interpreter(self._python)
            runtime = interpreter.runtime(spec.hardware.signature.product)
        except HardwareError as error:
            return str(error)
        step = self._gate.spec()
        check_unchanged(spec, [self._gate.done()])
        found = compare_on_gpu(engine, sha256, spec, step, runtime, self._context())
        self._report.compared_on_gpu(spec, found, time.monotonic() - began)
        return {**found, "by": step.key} if isinstance(found, dict) else found
