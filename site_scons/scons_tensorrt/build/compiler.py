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
import os
import time
from pathlib import Path
from typing import Any

from ..artifact.filename import EngineFilename
from ..artifact.receipt import Receipt
from ..artifact.schema import HostCapabilities
from ..artifact.sidecar import read_sidecar, sidecar_of
from ..artifact.state_folder import StateFolder
from ..artifact.verify import fault_of
from ..errors import EngineBuildError, EngineError, SidecarError
from ..files.digest_cache import DigestCache
from ..files.locks import engine_lock
from ..hardware.resolve import Hardware
from ..hardware.signature import SCHEMA, HardwareSignature
from ..recipe.key import value_fields
from .corpus import (
    BackboneSpec,
    BuildConfig,
    CompileEngineCallable,
    CompileOutcome,
    EngineCacheEntry,
    EngineCompileRequest,
    EngineCompileResult,
    EngineCompileSummary,
    ProvisioningConfig,
    recipe_of,
)
from .local_runtime import LocalRuntime, default_runtime, state_folder
from .spec import EngineInputs, EngineSpec, engine_spec
from .up_to_date import check_up_to_date

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
        engine = Path(request.cache_root).absolute() / _filename(backbone, request.host).build()
        state = state_folder(engine.parent, request.state_dir)
        model = backbone.model_name
        if isinstance(self.runtime, LocalRuntime):
            recipe = recipe_of(model, config, calibration=True)
            onnx = Path(backbone.onnx_path).absolute()
            outcome, key = self.runtime.build(recipe, onnx, request.host, engine, state, self._logger.debug)
            up_to_date, sha256, seconds = outcome.up_to_date, outcome.sha256, outcome.seconds
            self._tell(model, up_to_date.code)
        else:
            sha256, key, seconds = self._by_callers_runtime(backbone, config, request.host, engine, state)
        entry = EngineCacheEntry(engine, sha256, key)
        outcome_of = CompileOutcome.REUSED if seconds is None else CompileOutcome.BUILT
        return EngineCompileResult(entry, outcome_of, seconds)

    def _by_callers_runtime(
        self,
        backbone: BackboneSpec,
        config: BuildConfig,
        host: HostCapabilities | HardwareSignature,
        engine: Path,
        state: StateFolder,
    ) -> tuple[str, str, float | None]:
        """The engine's sha256 and key, and the seconds of its compile: its bytes and sidecar are written by a
        runtime that need not know of receipts. Raises EngineError and what the runtime raises."""
        what = state.relative(engine)
        engine.parent.mkdir(parents=True, exist_ok=True)
        with engine_lock(state.lock(engine), what, lambda holder: None, lambda: False):
            digest_cache = DigestCache(state.digests, state.top)
            spec = _spec(backbone, config, host, engine, digest_cache)
            up_to_date = check_up_to_date(spec, state, digest_cache)
            self._tell(backbone.model_name, up_to_date.code)
            if up_to_date.current:
                digest_cache.save()
                assert up_to_date.sha256
                return up_to_date.sha256, spec.key, None
            before, began = _stamps(engine), time.monotonic()
            try:
                entry = self.runtime.compile_engine(backbone.onnx_path, config, engine)
                seconds = time.monotonic() - began
                sha256 = _check_written(engine, entry)
            except BaseException:
                if _stamps(engine) != before:
                    _remove_unless_whole(engine)
                raise
            details = {"duration_s": round(seconds, 3), "recipe": spec.recipe.to_json()}
            size = engine.stat().st_size
            state.receipts.put(Receipt(engine.name, spec.key, sha256, size, spec.ingredients, details))
            digest_cache.save()
        return sha256, spec.key, seconds

    def _tell(self, model: str, code: str) -> None:
        """Log whether an engine is reused, and why not. code: of an `UpToDateResult`."""
        if code in ("current", "unfinished"):
            self._log(logging.INFO, "engine.cache.hit", model_name=model)
            return
        reason = "digest_mismatch" if code in _MISMATCH else code
        if code in _MISMATCH or code.startswith("sidecar_"):
            self._log(logging.WARNING, "engine.sidecar.mismatch", model_name=model, reason=reason)
        self._log(logging.WARNING, "engine.cache.miss", model_name=model, reason=reason)

    def _log(self, level: int, event: str, **fields: Any) -> None:
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        self._logger.log(level, f"{event} {words}", extra={"event": event, "fields": fields})


def _spec(
    backbone: BackboneSpec,
    config: BuildConfig,
    host: HostCapabilities | HardwareSignature,
    engine: Path,
    digest_cache: DigestCache,
) -> EngineSpec:
    """The spec of an engine that a caller's runtime compiles: any file serves as ONNX, and calibration data
    may be missing."""
    signature = host if isinstance(host, HardwareSignature) else _signature(host)
    recipe = recipe_of(backbone.model_name, config, calibration=False)
    fields = value_fields(recipe, signature)
    samples = config.calibration_path
    if samples is not None and Path(samples).is_file():
        fields["input calibration"] = digest_cache.sha256(samples)
    made = EngineInputs(Path(backbone.onnx_path).absolute(), str(backbone.onnx_path), {})
    return engine_spec(
        engine=engine,
        recipe=recipe,
        hardware=Hardware(None, signature, "given"),
        fields=fields,
        inputs=made,
        digest=lambda path, label: _digest(path, label, digest_cache),
    )


def _digest(path: Path, label: str, digest_cache: DigestCache) -> str:
    try:
        return digest_cache.sha256(path)
    except OSError as error:
        raise EngineBuildError(f"{label}: {error.strerror}; check the path") from None


def _signature(host: HostCapabilities) -> HardwareSignature:
    """What a Jetson in short says of its hardware."""
    major, minor = divmod(host.sm, 10)
    fields = {
        "schema": SCHEMA,
        "product": "tensorrt",
        "runtime_version": str(host.trt),
        "os": "linux",
        "machine": "aarch64",
        "compute_capability": f"{major}.{minor}",
        "jetpack": str(host.jp),
    }
    return HardwareSignature.from_json(fields, "HostCapabilities")


def _filename(backbone: BackboneSpec, host: HostCapabilities | HardwareSignature) -> EngineFilename:
    if isinstance(host, HardwareSignature):
        return EngineFilename.of(host, backbone.model_name, backbone.precision)
    return host.filename(backbone.model_name, backbone.precision)


def _stamps(engine: Path) -> list[tuple[int, ...] | None]:
    """Changes when the engine or its sidecar is written."""
    found: list[tuple[int, ...] | None] = []
    for path in (engine, sidecar_of(engine)):
        try:
            stat = os.lstat(path)
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        except OSError:
            found.append(None)
    return found


def _check_written(engine: Path, entry: Any) -> str:
    """The sha256 of the pair that a runtime wrote. Raises EngineBuildError."""
    try:
        fault = fault_of(engine)
    except SidecarError as error:
        fault = str(error)
    if fault is None and entry.sha256 != (found := read_sidecar(engine)):
        fault = f"the runtime says sha256 {str(entry.sha256)[:12]}, the file has {found[:12]}"
    if fault is None and Path(entry.engine_path).absolute() != engine:
        fault = f"the runtime wrote {entry.engine_path}"
    if fault is not None:
        raise EngineBuildError(f"{engine.name}: the runtime left no whole engine: {fault}")
    return str(entry.sha256)


def _remove_unless_whole(engine: Path) -> None:
    """Remove what a failed compile left half written."""
    try:
        if fault_of(engine) is None:
            return
    except EngineError:
        pass
    for path in (engine, sidecar_of(engine)):
        path.unlink(missing_ok=True)
