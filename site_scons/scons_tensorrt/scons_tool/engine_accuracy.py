"""Compare the engine itself with its original, on its GPU: see build/run_engine.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.spec import EngineSpec
from ..errors import HardwareError
from .onnx_target import OnnxTarget

if TYPE_CHECKING:
    from .session import Session


class EngineAccuracyCheck:
    """gate: the samples, options and ONNX files to compare by, whether or not it is a target."""

    def __init__(self, session: Session, gate: OnnxTarget, python: str, env: Any) -> None:
        self._session, self._gate = session, gate
        self._python, self._env = python, env

    def key(self) -> str:
        """A key of the samples, bounds and originals. Raises EngineError."""
        return self._gate.key

    def why_not(self) -> str | None:
        """Why no engine can run here, if known without a probe."""
        if self._session.nvidia is None:
            return "no NVIDIA GPU found"
        return None

    def run(self, spec: EngineSpec, engine: Path, sha256: str) -> dict[str, Any] | str:
        """The figures of an engine of these bytes, or why it was not run. Raises EngineError."""
        from ..build.run_engine import run_engine
        from .unchanged import check_unchanged

        session, began = self._session, time.monotonic()
        try:
            interpreter = session.interpreter(self._python)
            runtime = interpreter.runtime(spec.hardware.signature.product)
        except HardwareError as error:
            return str(error)
        context = session.making.onnx_context(self._env)
        step = self._gate.spec()
        check_unchanged(spec, [self._gate])
        found = run_engine(engine, sha256, spec, step, runtime, context)
        session.report.proved(spec, found, time.monotonic() - began)
        return {**found, "by": step.key} if isinstance(found, dict) else found
