"""A corpus of models to compile, and what comes of it: the types of build/compiler.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..artifact.plain_api import HostCapabilities
from ..artifact.sidecar import sidecar_of
from ..artifact.state_folder import StateFolder
from ..hardware.signature import HardwareSignature
from ..recipe.options import DEFAULTS, Recipe, parse
from ..values import Value

DEFAULT_WORKSPACE_MB: int = DEFAULTS["workspace_mb"]


class CompileOutcome(Enum):
    """What was done for one engine."""

    BUILT = "built"
    REUSED = "reused"


@dataclass(frozen=True)
class OptimizationProfile:
    """The shapes of one input, in elements: the smallest, the one to optimize for, the largest."""

    input_name: str
    min_shape: tuple[int, ...]
    opt_shape: tuple[int, ...]
    max_shape: tuple[int, ...]


@dataclass(frozen=True)
class BuildConfig:
    """How one engine is built. workspace_mb: MiB; calibration_path: samples, for int8 and fp8."""

    precision: str
    workspace_mb: int
    calibration_path: Path | None
    profiles: tuple[OptimizationProfile, ...]


@dataclass(frozen=True)
class BackboneConfig:
    """One model. expected_input_shape: of `input_name`, in elements. Raises ValueError."""

    model_name: str
    onnx_path: Path
    expected_input_shape: tuple[int, ...]
    input_name: str = "input"
    precision: str = "fp16"
    calibration_path: Path | None = None

    def __post_init__(self) -> None:
        _check_backbone(self.model_name, self.input_name, self.expected_input_shape)


@dataclass(frozen=True)
class BackboneSpec(BackboneConfig):
    """One model of a request. profiles: None for one with min = opt = max = expected_input_shape. Raises
    ValueError."""

    profiles: tuple[OptimizationProfile, ...] | None = None

    def absolute(self) -> BackboneSpec:
        """The same with absolute paths."""
        calibration = self.calibration_path
        return replace(
            self,
            onnx_path=Path(self.onnx_path).absolute(),
            calibration_path=None if calibration is None else Path(calibration).absolute(),
        )

    def config(self, workspace_mb: int) -> BuildConfig:
        """The same as a runtime gets it."""
        shape = tuple(self.expected_input_shape)
        profiles = self.profiles
        if profiles is None:
            profiles = (OptimizationProfile(self.input_name, shape, shape, shape),)
        return BuildConfig(self.precision, workspace_mb, self.calibration_path, tuple(profiles))


@dataclass(frozen=True)
class ProvisioningConfig:
    """The models of a device. workspace_mb: MiB. Raises ValueError, also for a model that is named twice."""

    backbones: tuple[BackboneConfig, ...]
    workspace_mb: int = DEFAULT_WORKSPACE_MB

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbones", _tuple_of(BackboneConfig, self.backbones))
        _check_corpus(self.backbones, self.workspace_mb)


@dataclass(frozen=True)
class EngineCompileRequest:
    """What to compile. host: a Jetson in short, or a full hardware signature; cache_root: the folder of the
    engines; workspace_mb: MiB; state_dir: receipts and locks, `.trt` beside cache_root by default. Raises
    ValueError."""

    backbones: tuple[BackboneSpec, ...]
    host: HostCapabilities | HardwareSignature
    cache_root: Path
    workspace_mb: int = DEFAULT_WORKSPACE_MB
    state_dir: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbones", _tuple_of(BackboneSpec, self.backbones))
        _check_corpus(self.backbones, self.workspace_mb)
        if not isinstance(self.host, (HostCapabilities, HardwareSignature)):
            raise ValueError(
                f"host={self.host!r}: give default_runtime(hardware=NAME).host(), or HostCapabilities(…)"
            )

    def absolute(self) -> EngineCompileRequest:
        """The same with absolute paths."""
        return replace(
            self,
            backbones=tuple(each.absolute() for each in self.backbones),
            cache_root=Path(self.cache_root).absolute(),
            state_dir=None if self.state_dir is None else Path(self.state_dir).absolute(),
        )


@dataclass(frozen=True)
class EngineCacheEntry:
    """An engine in the cache. sha256: of its bytes, in hex; key: its cache key, None where only the
    compiler knows it."""

    engine_path: Path
    sha256: str
    key: str | None = None

    @property
    def sidecar_path(self) -> Path:
        return sidecar_of(self.engine_path)


@dataclass(frozen=True)
class EngineCompileResult:
    """compile_duration_s: seconds; None when the engine was reused."""

    entry: EngineCacheEntry
    outcome: CompileOutcome
    compile_duration_s: float | None


@dataclass(frozen=True)
class EngineCompileSummary:
    """seconds: wall time."""

    engines_built: int
    engines_reused: int
    seconds: float


class EngineRequest(Value):
    """One engine to compile. engine: its path; state: the state folder of its cache."""

    backbone: BackboneSpec
    config: BuildConfig
    host: HostCapabilities | HardwareSignature
    engine: Path
    state: StateFolder


class CompiledEngine(Value):
    """key: its cache key; seconds: of the compile, None when it was reused."""

    sha256: str
    key: str
    seconds: float | None


Say = Callable[[str], None]


@runtime_checkable
class ReusingRuntime(Protocol):
    """A runtime that itself decides whether an engine is up to date, as that of this machine does."""

    def reuse_or_compile(
        self, request: EngineRequest, told: Callable[[str], None], say: Say
    ) -> CompiledEngine:
        """The engine, reused or compiled. told: gets the code of the up-to-date check; say: gets a line, such
        as for whom it waits. Raises EngineError."""


class CompileEngineCallable(Protocol):
    """Compiles one engine, and writes it and its sidecar: with `Sha256Sidecar.write_atomic_and_sidecar`, or
    its own way."""

    def compile_engine(self, onnx_path: Path, config: BuildConfig, output: Path) -> EngineCacheEntry: ...


def build_backbone_specs(config: ProvisioningConfig) -> tuple[BackboneSpec, ...]:
    """The models of a configuration, in order."""
    return tuple(BackboneSpec(**vars(each)) for each in config.backbones)


def recipe_of(model: str, config: BuildConfig, *, calibration: bool) -> Recipe:
    """The options of `env.Engine` that a configuration means. Raises RecipeError."""
    profiles: list[dict[str, Any]] = [{}]
    for each in config.profiles:  # an input that comes again begins another profile
        bounds = tuple(each.min_shape), tuple(each.opt_shape), tuple(each.max_shape)
        if each.input_name in profiles[-1]:
            profiles.append({})
        profiles[-1][each.input_name] = bounds
    options: dict[str, Any] = {"precision": config.precision, "workspace_mb": config.workspace_mb}
    if config.profiles:
        options["shapes"] = profiles if len(profiles) > 1 else profiles[0]
    if calibration and config.calibration_path is not None:
        options["calibration"] = str(config.calibration_path)
    return parse(model, options)


def _check_backbone(model_name: Any, input_name: Any, shape: Any) -> None:
    for name, value in (("model_name", model_name), ("input_name", input_name)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name}={value!r}: write a name")
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if not sizes or not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError(f"{model_name}: expected_input_shape={shape!r}: write sizes of at least 1")


def _tuple_of(kind: type, backbones: Any) -> tuple[Any, ...]:
    found = tuple(backbones) if isinstance(backbones, Iterable) else (backbones,)
    wrong = [each for each in found if not isinstance(each, kind)]
    if wrong or not isinstance(backbones, Iterable):
        raise ValueError(f"backbones={(wrong or backbones)!r}: write a tuple of {kind.__name__}")
    return found


def _check_corpus(backbones: Any, workspace_mb: Any) -> None:
    if type(workspace_mb) is not int or workspace_mb < 1:
        raise ValueError(f"workspace_mb={workspace_mb!r}: write MiB, at least 1")
    seen = set()
    for each in backbones:
        if (each.model_name, each.precision) in seen:
            raise ValueError(f"{each.model_name} ({each.precision}) is listed twice")
        seen.add((each.model_name, each.precision))
