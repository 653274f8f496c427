"""Which option does something on which product: told before a compile, with what would serve.

Measured on TensorRT for RTX 1.7.1 without a GPU (docs/recipes.md); for `tensorrt`, NVIDIA's
documentation. Whether a runtime has an option at all is asked of it by the worker.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..hardware.signature import HardwareSignature
from .options import Recipe

# What RTX takes and makes the same bytes of: left out of its key, never passed on, and told.
_NO_TIMING = "TensorRT for RTX times no kernels when it compiles"
WITHOUT_EFFECT: Mapping[str, Mapping[str, str]] = {
    "tensorrt_rtx": {
        "optimization_level": "TensorRT for RTX optimizes when the engine is loaded",
        "avg_timing_iterations": _NO_TIMING,
        "tiling_optimization_level": _NO_TIMING,
        "flag DISABLE_TIMING_CACHE": _NO_TIMING,
        "flag EDITABLE_TIMING_CACHE": _NO_TIMING,
        "flag ERROR_ON_TIMING_CACHE_MISS": _NO_TIMING,
        "flag GPU_FALLBACK": "TensorRT for RTX has no DLA to fall back from",
        "flag SPARSE_WEIGHTS": "TensorRT for RTX makes the same engine of sparse weights",
    }
}
_DLA_POOLS = ("dla_managed_sram", "dla_local_dram", "dla_global_dram")


def without_effect(recipe: Recipe, product: str) -> dict[str, str]:
    """The options of a recipe that change nothing on this product, each with why."""
    known = WITHOUT_EFFECT.get(product, {})
    given = [*recipe.settings, *(f"flag {name}" for name in recipe.flags)]
    return {name: known[name] for name in given if name in known}


def effective(recipe: Recipe, product: str) -> Recipe:
    """The recipe without the options that change nothing on this product."""
    idle = without_effect(recipe, product)
    if not idle:
        return recipe
    return recipe._replace(
        flags=tuple(name for name in recipe.flags if f"flag {name}" not in idle),
        settings={name: value for name, value in recipe.settings.items() if name not in idle},
    )


def refusals(recipe: Recipe, signature: HardwareSignature) -> list[str]:
    """The options of a recipe that this hardware's product cannot take, or would take and not
    do, each with what would serve."""
    found = []
    flags, settings = set(recipe.flags), recipe.settings
    pools = [name for name in _DLA_POOLS if name in recipe.memory_pools]
    if "EXCLUDE_LEAN_RUNTIME" in flags and "VERSION_COMPATIBLE" not in flags:
        found.append("flag EXCLUDE_LEAN_RUNTIME: it is for VERSION_COMPATIBLE, which is not set")
    if signature.product == "tensorrt_rtx":
        if {"STRIP_PLAN", "REFIT_INDIVIDUAL"} <= flags:
            found.append(
                "flags STRIP_PLAN and REFIT_INDIVIDUAL: TensorRT for RTX takes both and strips "
                "nothing; leave out STRIP_PLAN"
            )
        if "VERSION_COMPATIBLE" in flags and "EXCLUDE_LEAN_RUNTIME" not in flags:
            found.append(
                "flag VERSION_COMPATIBLE: TensorRT for RTX ships no lean runtime to put in; add "
                "EXCLUDE_LEAN_RUNTIME"
            )
        if "hardware_compatibility" in settings:
            found.append(
                "hardware_compatibility: TensorRT for RTX takes its architectures from the hardware; "
                "name HARDWARE=rtx_portable, or list `architectures` in a hardware file"
            )
        if "dla_core" in settings or pools:
            name = "dla_core" if "dla_core" in settings else f"memory_pools {pools[0]}"
            found.append(f"{name}: TensorRT for RTX has no DLA; it is for `tensorrt` on a Jetson")
        return found
    if pools and "dla_core" not in settings:
        found.append(f"memory_pools {pools[0]}: it is for a DLA; write dla_core= too")
    if "dla_core" in settings:
        if recipe.precision not in ("fp16", "int8"):
            found.append(f"dla_core: a DLA computes fp16 and int8, not {recipe.precision}")
        if recipe.calibrator == "minmax":
            found.append("dla_core: a DLA takes calibration method='entropy' only")
        if signature.integrated is False:
            found.append("dla_core: only a Jetson has a DLA; leave it out for this GPU")
    if "hardware_compatibility" in settings and signature.integrated:
        found.append("hardware_compatibility: TensorRT has none on a Jetson; build for each board, HARDWARE=")
    return found
