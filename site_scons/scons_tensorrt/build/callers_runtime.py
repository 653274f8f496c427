"""Compile one engine with a caller's own runtime, which need not know of receipts, nor of this package.

Any file serves such a runtime as ONNX, and its calibration data may be missing. What it writes is verified,
and gets a receipt, by which the next call reuses it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..artifact.cache_key import make_key
from ..artifact.plain_api import HostCapabilities
from ..artifact.publish import Publication
from ..artifact.receipt import Receipt
from ..artifact.sidecar import read_sidecar, sidecar_of
from ..artifact.state_folder import StateFolder
from ..artifact.verify_pair import fault_of
from ..errors import EngineBuildError, EngineError, PublishError, RecipeError, SidecarError
from ..files.digest_cache import DigestCache
from ..files.engine_and_gpu_locks import engine_lock
from ..files.writing import cause
from ..hardware.choose_hardware import Hardware
from ..hardware.signature import HardwareSignature
from ..recipe.key_ingredients import value_fields
from .compiler_types import CompiledEngine, CompileEngineCallable, EngineRequest, Say, recipe_of
from .engine_spec import EngineInputs, EngineSpec, engine_spec
from .input_digests import Inputs
from .reuse_local_engine import ReusableEngines, cache_size_here
from .up_to_date import check_up_to_date


class CallersRuntime:
    """Reuses what a caller's own runtime compiled."""

    def __init__(self, runtime: CompileEngineCallable) -> None:
        self._runtime = runtime

    def reuse_or_compile(
        self, request: EngineRequest, told: Callable[[str], None], say: Say
    ) -> CompiledEngine:
        """See `corpus.ReusingRuntime`. Raises EngineError, and what the runtime raises."""
        engine, state = request.engine, request.state
        try:
            for folder in (engine.parent, state.lock(engine).parent):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = cause(error, "choose another cache_root or state_dir")
            raise PublishError(f"{error.filename or engine.parent}: {why}") from None
        label = state.relative(engine)

        def waiting(holder: str) -> None:
            say(f"WAITING {label}: for {holder}")

        with engine_lock(state.lock(engine), label, waiting, lambda: False, say_after_s=1.0):
            digest_cache = DigestCache(state.digests, state.top)
            spec = _spec(self._runtime, request, digest_cache)
            up_to_date = check_up_to_date(spec, state, digest_cache)
            kept = ReusableEngines(state, digest_cache, cache_size_here(), alone=True)
            reused = up_to_date.sha256 or _put_back(spec, kept, up_to_date.code, state)
            told("current" if reused else up_to_date.code)
            if reused:
                digest_cache.save()
                return CompiledEngine(reused, spec.key, None)
            kept.keep(spec, copy=True)
            sha256, seconds = self._compile(request)
            if _spec(self._runtime, request, digest_cache).key != spec.key:
                raise EngineBuildError(
                    f"{request.backbone.onnx_path} changed while it was compiled; run again"
                )
            details = {"duration_s": round(seconds, 3), "recipe": spec.recipe.to_json()}
            size = engine.stat().st_size
            state.receipts.put(Receipt(engine.name, spec.key, sha256, size, spec.ingredients, details))
            digest_cache.save()
        return CompiledEngine(sha256, spec.key, seconds)

    def _compile(self, request: EngineRequest) -> tuple[str, float]:
        """Let the runtime write the engine: its sha256, and the seconds that took."""
        engine = request.engine
        before, began = _stamps(engine), time.monotonic()
        try:
            entry = self._runtime.compile_engine(request.backbone.onnx_path, request.config, engine)
            seconds = time.monotonic() - began
            if _stamps(engine) == before:
                raise EngineBuildError(f"{engine.name}: the runtime wrote nothing")
            return _check_written(engine, entry), seconds
        except BaseException:
            if _stamps(engine) != before:
                _remove_unless_whole(engine)
            raise


def _put_back(spec: EngineSpec, kept: ReusableEngines, code: str, state: StateFolder) -> str | None:
    """Publish a kept engine: its sha256, None if there is none. code: of the up-to-date check. Raises
    PublishError."""
    if kept.find(spec, code) is None:
        return None
    publication = Publication(state, spec.engine, spec.key)
    found = kept.take(spec, code, publication.open())
    if found is None:
        publication.abandon()
        return None
    publication.commit(found.receipt, state.receipts)
    kept.keep(spec)
    publication.finish()
    kept.replaced(spec, found.receipt.sha256)
    return found.receipt.sha256


def _spec(runtime: CompileEngineCallable, request: EngineRequest, digest_cache: DigestCache) -> EngineSpec:
    backbone, config, host = request.backbone, request.config, request.host
    signature = host.signature() if isinstance(host, HostCapabilities) else host
    recipe = recipe_of(backbone.model_name, config, calibration=False)
    fields = value_fields(recipe, signature)
    if isinstance(host, HardwareSignature):  # the engines of `scons engines` have another key
        fields["option runtime"] = f"{type(runtime).__module__}.{type(runtime).__qualname__}"
    if config.calibration_path is not None:
        fields.update(_calibration_fields(Path(config.calibration_path), digest_cache))
    onnx = backbone.onnx_path
    return engine_spec(
        engine=request.engine,
        recipe=recipe,
        hardware=Hardware(None, signature, "given"),
        fields=fields,
        inputs=EngineInputs(onnx, str(onnx), _external(onnx, digest_cache)),
        digest=lambda path, label: _digest(path, label, digest_cache),
    )


def _external(onnx: Path, digest_cache: DigestCache) -> dict[str, tuple[Path, int]]:
    """The external data of a model; none of a file that is not an ONNX."""
    try:
        external = Inputs(digest_cache).summary(str(onnx)).external
    except (RecipeError, OSError, ValueError):
        return {}
    return {location: (onnx.parent / location, least) for location, least in external.items()}


def _calibration_fields(path: Path, digest_cache: DigestCache) -> dict[str, str]:
    """The digest of calibration data: of a file, or of all files of a folder; none where it is missing."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = {str(file.relative_to(path)): digest_cache.sha256(file) for file in files}
        return {"input calibration": make_key("calibration", lines)}
    return {"input calibration": digest_cache.sha256(path)} if path.is_file() else {}


def _digest(path: Path, label: str, digest_cache: DigestCache) -> str:
    try:
        return digest_cache.sha256(path)
    except OSError as error:
        raise EngineBuildError(f"{label}: {error.strerror}; check the path") from None


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
    said = str(getattr(entry, "sha256", None))
    if fault is None and said != (found := read_sidecar(engine)):
        fault = f"it returned sha256 {said[:12]}, the file has {found[:12]}"
    if fault is None and os.path.realpath(entry.engine_path) != os.path.realpath(engine):
        fault = f"it returned {entry.engine_path}"
    if fault is not None:
        raise EngineBuildError(f"{engine.name}: the runtime left no valid engine: {fault}")
    return said


def _remove_unless_whole(engine: Path) -> None:
    """Remove what a failed compile left half written."""
    try:
        if fault_of(engine) is None:
            return
    except EngineError:
        pass
    for path in (engine, sidecar_of(engine)):
        path.unlink(missing_ok=True)
