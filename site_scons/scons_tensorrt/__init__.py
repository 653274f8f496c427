"""scons-tensorrt: a TensorRT engine as a node in SCons's dependency graph.

The public names are imported on first use: importing the package alone imports nothing, and a device needs
only the standard library for `load_verified`. The rooms of the package: docs/architecture.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact.plain_api import EngineFilenameSchema as EngineFilenameSchema
    from .artifact.plain_api import HostCapabilities as HostCapabilities
    from .artifact.plain_api import Sha256Sidecar as Sha256Sidecar
    from .artifact.verify_pair import load_verified as load_verified
    from .build.compiler import EngineCompiler as EngineCompiler
    from .build.compiler import build_engine_compiler as build_engine_compiler
    from .build.compiler_types import BackboneConfig as BackboneConfig
    from .build.compiler_types import BackboneSpec as BackboneSpec
    from .build.compiler_types import BuildConfig as BuildConfig
    from .build.compiler_types import CompileEngineCallable as CompileEngineCallable
    from .build.compiler_types import CompileOutcome as CompileOutcome
    from .build.compiler_types import EngineCacheEntry as EngineCacheEntry
    from .build.compiler_types import EngineCompileRequest as EngineCompileRequest
    from .build.compiler_types import EngineCompileResult as EngineCompileResult
    from .build.compiler_types import EngineCompileSummary as EngineCompileSummary
    from .build.compiler_types import OptimizationProfile as OptimizationProfile
    from .build.compiler_types import ProvisioningConfig as ProvisioningConfig
    from .build.compiler_types import build_backbone_specs as build_backbone_specs
    from .build.local_runtime import default_runtime as default_runtime
    from .errors import CalibrationCacheError as CalibrationCacheError
    from .errors import EngineBuildError as EngineBuildError
    from .errors import EngineError as EngineError
    from .hardware.signature import HardwareSignature as HardwareSignature

__version__ = "0.1.0"

_PUBLIC = {
    "artifact.plain_api": "EngineFilenameSchema HostCapabilities Sha256Sidecar",
    "artifact.verify_pair": "load_verified",
    "build.compiler": "EngineCompiler build_engine_compiler",
    "build.compiler_types": (
        "BackboneConfig BackboneSpec BuildConfig CompileEngineCallable CompileOutcome EngineCacheEntry "
        "EngineCompileRequest EngineCompileResult EngineCompileSummary OptimizationProfile "
        "ProvisioningConfig build_backbone_specs"
    ),
    "build.local_runtime": "default_runtime",
    "errors": "CalibrationCacheError EngineBuildError EngineError",
    "hardware.signature": "HardwareSignature",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    for module, names in _PUBLIC.items():
        if name in names.split():
            from importlib import import_module

            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
