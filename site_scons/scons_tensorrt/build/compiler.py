"""Compile a corpus of models for one host, from Python: each engine is reused or built.

    from pathlib import Path
    from scons_tensorrt import BackboneSpec, EngineCompiler, EngineCompileRequest, default_runtime

    spec = BackboneSpec("dinov2_vpr", Path("models/dinov2_vpr.onnx"), (1, 3, 224, 224))
    compiler = EngineCompiler(default_runtime())
    host = compiler.runtime.host()
    request = EngineCompileRequest(backbones=(spec,), host=host, cache_root=Path("engines"))
    for result in compiler.compile_engines_for_corpus(request):
        print(result.outcome, result.entry.engine_path)

Engines, receipts and keys are those of `scons engines`: with the state folder of a tree, each reuses what the
other built. Errors propagate: engines before the one that failed are complete, those after it are not tried.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from ..artifact.filename import EngineFilename
from ..artifact.plain_api import HostCapabilities
from ..hardware.signature import HardwareSignature
from .callers_runtime import CallersRuntime
from .compiler_types import (
    BackboneSpec,
    CompileEngineCallable,
    CompileOutcome,
    EngineCacheEntry,
    EngineCompileRequest,
    EngineCompileResult,
    EngineCompileSummary,
    EngineRequest,
    ProvisioningConfig,
    ReusingRuntime,
)
from .local_runtime import default_runtime, state_folder

# Codes of an engine that is there and is not what its sidecar states.
_MISMATCH = ("engine_tampered", "engine_truncated", "engine_other", "engine_unreadable", "sidecar_mismatch")


def build_engine_compiler(config: ProvisioningConfig, logger: logging.Logger | None = None) -> EngineCompiler:
    """A compiler that compiles on this machine, for `build_backbone_specs(config)`."""
    return EngineCompiler(default_runtime(), logger)


class EngineCompiler:
    """Compiles engines with a runtime, and reuses what is up to date.

    logger: gets records with `.event` and `.fields`; by default the logger `scons_tensorrt`.
    """

    def __init__(self, runtime: CompileEngineCallable, logger: logging.Logger | None = None) -> None:
        self.runtime = runtime
        self._logger = logger or logging.getLogger("scons_tensorrt")

    def compile_engines_for_corpus(self, request: EngineCompileRequest) -> tuple[EngineCompileResult, ...]:
        """One result for each model, in order. Raises what the runtime raises, and EngineError."""
        began = time.monotonic()
        request = request.absolute()  # a runtime may change the current folder
        results: list[EngineCompileResult] = []
        for backbone in request.backbones:
            try:
                results.append(self._compile(backbone, request))
            except Exception as error:
                path = backbone.calibration_path
                self._log(
                    logging.ERROR,
                    "engine.compile.error",
                    model_name=backbone.model_name,
                    calibration_path=None if path is None else str(path),
                    error_class=type(error).__name__,
                )
                raise
        built = sum(result.outcome is CompileOutcome.BUILT for result in results)
        summary = EngineCompileSummary(built, len(results) - built, time.monotonic() - began)
        self._log(logging.INFO, "engine.compile.summary", **vars(summary))
        return tuple(results)

    def _compile(self, backbone: BackboneSpec, request: EngineCompileRequest) -> EngineCompileResult:
        config = backbone.config(request.workspace_mb)
        engine = request.cache_root / _filename(backbone, request.host).build()
        state = state_folder(request.cache_root, request.state_dir)
        one = EngineRequest(backbone, config, request.host, engine, state)
        tell = partial(self._tell, backbone.model_name)
        runtime = self.runtime if isinstance(self.runtime, ReusingRuntime) else CallersRuntime(self.runtime)
        sha256, key, seconds = runtime.reuse_or_compile(one, tell, self._say)
        entry = EngineCacheEntry(engine, sha256, key)
        outcome_of = CompileOutcome.REUSED if seconds is None else CompileOutcome.BUILT
        return EngineCompileResult(entry, outcome_of, seconds)

    def _tell(self, model: str, code: str) -> None:
        """Log whether an engine is reused, and why not. code: of an `UpToDateResult`."""
        if code in ("current", "unfinished"):
            self._log(logging.INFO, "engine.cache.hit", model_name=model)
            return
        reason = "digest_mismatch" if code in _MISMATCH else code
        if code in _MISMATCH or code.startswith("sidecar_"):
            self._log(logging.WARNING, "engine.sidecar.mismatch", model_name=model, reason=reason)
        self._log(logging.WARNING, "engine.cache.miss", model_name=model, reason=reason)

    def _say(self, line: str) -> None:
        """Log a line of a build; that it waits for another one is a warning."""
        waits = line.startswith("WAITING ")
        event = "engine.lock.wait" if waits else "engine.compile.note"
        self._log(logging.WARNING if waits else logging.DEBUG, event, text=line)

    def _log(self, level: int, event: str, **fields: Any) -> None:
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        self._logger.log(level, f"{event} {words}", extra={"event": event, "fields": fields})


def _filename(backbone: BackboneSpec, host: HostCapabilities | HardwareSignature) -> EngineFilename:
    signature = host.signature() if isinstance(host, HostCapabilities) else host
    return EngineFilename.of(signature, backbone.model_name, backbone.precision)
