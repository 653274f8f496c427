"""Which options have no effect, or are not supported, on which product: reported before a compile.

Measured on TensorRT for RTX 1.7.1 without a GPU (docs/recipes.md); for `tensorrt`, NVIDIA's documentation.
A new option is added in options.py, builder_settings.py and worker/trt/settings.py, which checks that the
version has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..hardware.signature import HardwareSignature
from .option_checks import option, setting
from .options import Recipe

EDITABLE_FROM = (10, 13)  # its Python API can read a timing cache: ITimingCache.queryKeys
# Options that RTX accepts without changing the engine: not in its key, never passed on, and reported.
_NO_TIMING = "TensorRT for RTX does not time kernels when it compiles"
WITHOUT_EFFECT: Mapping[str, Mapping[str, str]] = {
    "tensorrt_rtx": {
        "optimization_level": "TensorRT for RTX optimizes when the engine is loaded",
        "avg_timing_iterations": _NO_TIMING,
        "tiling_optimization_level": _NO_TIMING,
        "l2_limit_for_tiling": _NO_TIMING,
        "max_num_tactics": _NO_TIMING,
        "tactic_sources": "TensorRT for RTX makes the same engine from any of them",
        "flag DISABLE_TIMING_CACHE": _NO_TIMING,
        "flag EDITABLE_TIMING_CACHE": _NO_TIMING,
        "flag ERROR_ON_TIMING_CACHE_MISS": _NO_TIMING,
        "flag GPU_FALLBACK": "TensorRT for RTX does not support DLA, so there is nothing to fall back from",
        "flag SPARSE_WEIGHTS": "TensorRT for RTX makes the same engine from sparse weights",
    }
}


def without_effect(recipe: Recipe, product: str) -> dict[str, str]:
    """The options of a recipe that have no effect on this product, each with the reason."""
    known = WITHOUT_EFFECT.get(product, {})
    given = [*recipe.settings, *(f"flag {name}" for name in recipe.flags)]
    return {name: known[name] for name in given if name in known}


def effective(recipe: Recipe, product: str) -> Recipe:
    """The recipe without the options that have no effect on this product."""
    ignored = without_effect(recipe, product)
    if not ignored:
        return recipe
    return recipe._replace(
        flags=tuple(name for name in recipe.flags if f"flag {name}" not in ignored),
        settings={name: value for name, value in recipe.settings.items() if name not in ignored},
    )


def unsupported_options(recipe: Recipe, signature: HardwareSignature) -> list[str]:
    """The options of a recipe that this hardware's product does not support, or would silently ignore,
    each with the next step."""
    found = []
    if "EXCLUDE_LEAN_RUNTIME" in recipe.flags and "VERSION_COMPATIBLE" not in recipe.flags:
        found.append("flag EXCLUDE_LEAN_RUNTIME: needs flag VERSION_COMPATIBLE; add it, or leave both out")
    if recipe.timing_cache:
        found += _pinning_refusals(recipe, signature)
    if "plugins_to_serialize" in recipe.settings and "VERSION_COMPATIBLE" not in recipe.flags:
        found.append("plugins_to_serialize: only in an engine with flag VERSION_COMPATIBLE; add it")
    for_dla = _only_for_a_dla(recipe)
    if signature.product == "tensorrt_rtx":
        return found + _rtx_refusals(recipe, "dla_core" if "dla_core" in recipe.settings else for_dla)
    if "dla_core" in recipe.settings:
        if recipe.precision not in ("fp16", "int8"):
            found.append(f"dla_core: a DLA supports fp16 and int8, not {recipe.precision}")
        if recipe.calibrator == "minmax":
            found.append(f"dla_core: a DLA supports only calibration {setting('method', 'entropy')}")
        if signature.integrated is False:
            found.append("dla_core: only a Jetson has a DLA; leave it out for this GPU")
    elif for_dla:
        found.append(f"{for_dla}: only for a DLA; set {option('dla_core')} too")
    if "engine_capability" in recipe.settings and recipe.accuracy is not None:
        given = setting("engine_capability", recipe.settings["engine_capability"])
        found.append(
            f"engine_capability: the standard runtime does not load such an engine, so {option('accuracy')} "
            f"cannot compare it; leave out {given} or {option('accuracy')}"
        )
    if "hardware_compatibility" in recipe.settings and signature.integrated:
        found.append(
            "hardware_compatibility: not supported by TensorRT on a Jetson; build for each board, HARDWARE="
        )
    return found


def _pinning_refusals(recipe: Recipe, signature: HardwareSignature) -> list[str]:
    if signature.product == "tensorrt_rtx":
        return [
            "timing_cache: TensorRT for RTX chooses kernels when it loads the engine, not when it compiles, "
            "and its timing cache does nothing; its runtime cache (IRuntimeConfig.set_runtime_cache) keeps "
            "them on the device; leave it out"
        ]
    found = []
    if tuple(map(int, signature.runtime_version.split(".")[:2])) < EDITABLE_FROM:
        found.append(
            f"timing_cache: needs TensorRT 10.13 or later, and this is {signature.runtime_version}; leave it "
            "out"
        )
    if "DISABLE_TIMING_CACHE" in recipe.flags:
        found.append("timing_cache: flag DISABLE_TIMING_CACHE switches it off; leave out one of the two")
    found += [
        f"timing_cache: sets flag {name} itself where it is needed; leave the flag out"
        for name in recipe.flags
        if name in ("DISABLE_COMPILATION_CACHE", "EDITABLE_TIMING_CACHE", "ERROR_ON_TIMING_CACHE_MISS")
    ]
    return found


def _only_for_a_dla(recipe: Recipe) -> str | None:
    """An option of the recipe that is only for a DLA, besides dla_core."""
    settings = recipe.settings
    found = [f"memory_pools {name}" for name in recipe.memory_pools if name.startswith("dla_")]
    found += [f"parser_flags {w}" for w in str(settings.get("parser_flags", "")).split() if "DLA" in w]
    found += ["layer_devices"] * ("layer_devices" in settings)
    formats = json.loads(str(settings["io_formats"])) if "io_formats" in settings else {}
    found += [f"io_formats {each}" for each in formats.values() if "dla_" in each]
    if settings.get("engine_capability") == "dla_standalone":
        found.append(setting("engine_capability", "dla_standalone"))
    return next(iter(found), None)


def _rtx_refusals(recipe: Recipe, for_dla: str | None) -> list[str]:
    """for_dla: an option that is only for a DLA."""
    found = []
    if {"STRIP_PLAN", "REFIT_INDIVIDUAL"} <= {*recipe.flags}:
        found.append(
            "flags STRIP_PLAN and REFIT_INDIVIDUAL: with both, TensorRT for RTX does not strip weights; "
            "leave out STRIP_PLAN"
        )
    if "VERSION_COMPATIBLE" in recipe.flags and "EXCLUDE_LEAN_RUNTIME" not in recipe.flags:
        found.append(
            "flag VERSION_COMPATIBLE: TensorRT for RTX has no lean runtime to include; add "
            "EXCLUDE_LEAN_RUNTIME"
        )
    if "hardware_compatibility" in recipe.settings:
        found.append(
            "hardware_compatibility: with TensorRT for RTX, the hardware says which architectures the engine "
            "is for; set HARDWARE=rtx_portable, or list `architectures` in a hardware file"
        )
    for name in ("build_route", "engine_capability"):
        if name in recipe.settings:
            found.append(f"{name}: not supported by TensorRT for RTX; leave it out")
    if for_dla:
        found.append(f"{for_dla}: not supported by TensorRT for RTX; a DLA needs `tensorrt` on a Jetson")
    return found
