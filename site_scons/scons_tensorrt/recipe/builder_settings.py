"""The options of `env.Engine` that are settings of TensorRT's builder configuration.

Each becomes a number or a text in the recipe, the key and the job: a list as its names in order, a map as
JSON. A value that is TensorRT's own default is left out. The worker (worker/trt/settings.py) refuses a
setting or name that its TensorRT lacks. A new option first gets its name in options.py (`ADDED_SETTINGS`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .option_checks import entry, hint, literal, names, one_of, option, setting

NUMBERS: Mapping[str, tuple[int, int]] = {
    "optimization_level": (0, 5),
    "dla_core": (0, 15),
    "max_aux_streams": (0, 128),
    "avg_timing_iterations": (1, 1 << 20),
    "max_num_tactics": (1, (1 << 31) - 1),
}
WORDS: Mapping[str, tuple[str, ...]] = {
    "hardware_compatibility": ("none", "ampere_plus", "same_compute_capability"),
    "tiling_optimization_level": ("none", "fast", "moderate", "full"),
    "profiling_verbosity": ("layer_names_only", "none", "detailed"),
    "engine_capability": ("standard", "safety", "dla_standalone"),
}
# The members of TacticSource, PreviewFeature and OnnxParserFlag in TensorRT 8.5 to 11.4, without
# REPORT_CAPABILITY_DLA, which changes no engine.
LISTS: Mapping[str, tuple[str, ...]] = {
    "tactic_sources": ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"),
    "preview_features": (
        "ALIASED_PLUGIN_IO_10_03",
        "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805",
        "FASTER_DYNAMIC_SHAPES_0805",
        "MULTIDEVICE_RUNTIME_10_16",
        "PROFILE_SHARING_0806",
        "RUNTIME_ACTIVATION_RESIZE_10_10",
    ),
    "parser_flags": (
        "ADJUST_FOR_DLA",
        "ENABLE_PLUGIN_OVERRIDE",
        "ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA",
        "NATIVE_INSTANCENORM",
    ),
}
# TensorFormat, and the types that a weakly typed TensorRT can give an input or output.
FORMATS = (
    *("linear", "chw2", "chw4", "chw16", "chw32", "hwc", "hwc8", "hwc16", "dhwc", "dhwc8", "cdhw32"),
    *("dla_linear", "dla_hwc4"),
)
TYPES = ("fp32", "fp16", "int8", "int32")
DEFAULT_NUMBERS = {"optimization_level": 3, "avg_timing_iterations": 1}
POOLS = ("dla_managed_sram", "dla_local_dram", "dla_global_dram", "tactic_dram", "tactic_shared_memory")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_KNOB = r"-[A-Za-z0-9_:]+=[^\s=]+"


def parse_settings(given: Mapping[str, Any], libraries: Sequence[str]) -> dict[str, int | str]:
    """The settings that differ from TensorRT's own defaults, sorted.

    given: without None; libraries: the names of the option `plugins`. Raises RecipeError.
    """
    parsers: dict[str, Callable[[Any], int | str]] = {
        "l2_limit_for_tiling": lambda value: _bytes("l2_limit_for_tiling", value),
        "build_route": _route,
        "io_formats": _formats,
        "layer_devices": _devices,
        "plugins_to_serialize": lambda value: _libraries(value, libraries),
    }
    found: dict[str, int | str] = {}
    for name, value in sorted(given.items()):
        if name in WORDS:
            found[name] = one_of(name, value, WORDS[name])
        elif name in LISTS:
            found[name] = _list(name, value)
        elif name in NUMBERS:
            found[name] = _number(name, value)
        else:
            found[name] = parsers[name](value)
    defaults = {**DEFAULT_NUMBERS, **{name: words[0] for name, words in WORDS.items()}}
    # No tactic source at all is a setting; no other list or map that is empty is one.
    empty = {name for name in found if found[name] in ("", "{}") and name != "tactic_sources"}
    return {name: v for name, v in found.items() if v != defaults.get(name) and name not in empty}


def _number(name: str, value: Any) -> int:
    low, high = NUMBERS[name]
    if type(value) is not int or not low <= value <= high:
        raise RecipeError(f"{setting(name, value)}: write a whole number from {low} to {high}")
    return value


def _list(name: str, value: Any) -> str:
    found = sorted({each.upper() for each in names(name, value)})
    for each in found:
        if each not in LISTS[name]:
            raise RecipeError(f"{name} {each}: unknown; {hint(each, LISTS[name])}")
    return " ".join(found)


def _route(value: Any) -> str:
    words = value.split() if isinstance(value, str) else [""]
    if not all(re.fullmatch(_KNOB, word) for word in words):
        wrong = setting("build_route", value)
        raise RecipeError(f"{wrong}: write -NAME=VALUE, several with spaces between them")
    return " ".join(words)


def _map(name: str, value: Any, example: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(each, str) and each for each in (*value, *value.values())
    ):
        raise RecipeError(f"{setting(name, value)}: write a map such as {example}")
    return {each: value[each].lower() for each in sorted(value)}


def _formats(value: Any) -> str:
    found = _map("io_formats", value, entry("image", literal("chw16")))
    for tensor, text in found.items():
        kind, typed, form = text.rpartition(":")
        if form not in FORMATS or (typed and kind not in TYPES):
            known = (*FORMATS, *(f"{kind}:{form}" for kind in TYPES for form in FORMATS[:1]))
            raise RecipeError(f"io_formats {literal(tensor)} {literal(text)}: unknown; {hint(text, known)}")
    return json.dumps(found)


def _devices(value: Any) -> str:
    found = _map("layer_devices", value, entry("/head/Softmax", literal("gpu")))
    for layer, device in found.items():
        if device not in ("gpu", "dla"):
            raise RecipeError(f"layer_devices {literal(layer)} {literal(device)}: write gpu or dla")
    return json.dumps(found)


def _libraries(value: Any, plugins: Sequence[str]) -> str:
    found = names("plugins_to_serialize", value)
    for name in found:
        if name not in plugins:
            raise RecipeError(f"plugins_to_serialize {name}: not among the names of {option('plugins')}")
    return json.dumps(list(found)) if found else ""


def parse_timing_cache(value: Any) -> Path | None:
    """value: a path, or a map of paths by name of the hardware; nodes of SCons as text. The recipe of one
    hardware gets its path later. Raises RecipeError."""
    paths = value.values() if isinstance(value, Mapping) else [value]
    if not all(isinstance(path, str) and path and "\0" not in path for path in paths):
        example = entry("orin_nx", literal("models/a.orin_nx.cache"))
        raise RecipeError(
            f"{setting('timing_cache', value)}: write the path of a file, or a map such as {example}"
        )
    return Path(value) if isinstance(value, str) else None


def parse_pools(value: Any) -> dict[str, int]:
    """Bytes by memory pool. Raises RecipeError."""
    if not isinstance(value, Mapping):
        example = entry("tactic_dram", literal("1G"))
        raise RecipeError(f"{setting('memory_pools', value)}: write a map such as {example}")
    for name in value:
        if name == "workspace":
            raise RecipeError(f"memory_pools workspace: write {option('workspace_mb')} instead")
        if name not in POOLS:
            raise RecipeError(f"memory_pools {literal(name)}: unknown; {hint(str(name), POOLS)}")
    return {name: _bytes(f"memory_pools {name}", value[name]) for name in sorted(value)}


def _bytes(what: str, value: Any) -> int:
    text = str(value) if type(value) is int else value
    parts = re.fullmatch(r"([1-9][0-9]{0,17})([KMG]?)", text) if isinstance(text, str) else None
    size = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    if not 0 < size < 1 << 62:
        raise RecipeError(f"{setting(what, value)}: write a number of bytes, such as 4096 or {literal('1G')}")
    return size
