"""The engine itself against its original, where its GPU is here: see convert/engine.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compile.wanted import Wanted
from ..errors import HardwareError
from .derived import Derived

if TYPE_CHECKING:
    from .session import Session


class Proof:
    """gate: the samples, options and ONNX files to compare by, whether or not it is a target."""

    def __init__(self, session: Session, gate: Derived, python: str, env: Any) -> None:
        self._session, self._gate = session, gate
        self._python, self._env = python, env

    def key(self) -> str:
        """Other text when other samples, bounds or originals would count. Raises EngineError."""
        return self._gate.key

    def why_not(self) -> str | None:
        """Why no engine is run here, as far as that is known without asking anyone."""
        if self._session.nvidia is None:
            return "nothing here speaks for an NVIDIA GPU"
        return None

    def run(self, wanted: Wanted, engine: Path, sha256: str) -> dict[str, Any] | str:
        """The figures of an engine of these bytes, or why it was not run. Raises EngineError."""
        from ..convert.engine import run_engine
        from .unchanged import check_unchanged

        session, began = self._session, time.monotonic()
        try:
            interpreter = session.interpreter(self._python)
            runtime = interpreter.runtime(wanted.hardware.signature.product)
        except HardwareError as error:
            return str(error)
        shop = session.making.converting(self._env)
        step = self._gate.wanted()
        check_unchanged(wanted, [self._gate])
        found = run_engine(engine, sha256, wanted, step, runtime, shop)
        session.report.proved(wanted, found, time.monotonic() - began)
        return {**found, "by": step.key} if isinstance(found, dict) else found
