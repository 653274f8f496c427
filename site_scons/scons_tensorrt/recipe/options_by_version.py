"""Which builder options which version of TensorRT has, for `scons-tensorrt query what-if`.

From the Python API of TensorRT 8.5, 8.6, 10.3, 10.13, 10.16 and 11.4, and of TensorRT for RTX 1.7, in
tests/build/surfaces. Whether a version between two of them has an option that only one of them has is not
known. A build does not use this table: the compile worker asks the runtime itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..hardware.signature import HardwareSignature
from ..values import Value
from .conversion import strongly_typed
from .options import Recipe

VERSIONS = ((8, 5), (8, 6), (10, 3), (10, 13), (10, 16), (11, 4))  # of TensorRT, whose API is known
# By the first of these versions that has them, if that is not 8.5.
_SINCE: Mapping[tuple[int, int], Sequence[str]] = {
    (8, 6): (
        *("flag EXCLUDE_LEAN_RUNTIME", "flag VERSION_COMPATIBLE", "hardware_compatibility"),
        *("max_aux_streams", "memory_pools tactic_dram", "optimization_level", "plugins_to_serialize"),
        *("parser_flags NATIVE_INSTANCENORM", "precision fp8", "preview_features PROFILE_SHARING_0806"),
    ),
    (10, 3): (
        *("flag DISABLE_COMPILATION_CACHE", "flag ERROR_ON_TIMING_CACHE_MISS", "flag REFIT_IDENTICAL"),
        *("flag REFIT_INDIVIDUAL", "flag STRIP_PLAN", "flag WEIGHT_STREAMING", "precision bf16"),
        *("memory_pools tactic_shared_memory", "preview_features ALIASED_PLUGIN_IO_10_03"),
    ),
    (10, 13): (
        *("flag DISTRIBUTIVE_INDEPENDENCE", "flag EDITABLE_TIMING_CACHE", "flag MONITOR_MEMORY"),
        *("flag STRICT_NANS", "tiling_optimization_level", "l2_limit_for_tiling", "max_num_tactics"),
        "hardware_compatibility same_compute_capability",
        "parser_flags ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA",
        "preview_features RUNTIME_ACTIVATION_RESIZE_10_10",
    ),
    (10, 16): (
        *("parser_flags ADJUST_FOR_DLA", "parser_flags ENABLE_PLUGIN_OVERRIDE"),
        "preview_features MULTIDEVICE_RUNTIME_10_16",
    ),
    (11, 4): ("build_route",),
}
# By the last of these versions that has them.
_UNTIL: Mapping[tuple[int, int], Sequence[str]] = {
    (8, 6): (
        *("flag ENABLE_TACTIC_HEURISTIC", "preview_features FASTER_DYNAMIC_SHAPES_0805"),
        "preview_features DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805",
    ),
    (10, 16): (
        *("flag OBEY_PRECISION_CONSTRAINTS", "flag PREFER_PRECISION_CONSTRAINTS"),
        *("flag REJECT_EMPTY_ALGORITHMS", "preview_features MULTIDEVICE_RUNTIME_10_16"),
        *("preview_features PROFILE_SHARING_0806", "tactic_sources CUBLAS", "tactic_sources CUBLAS_LT"),
        "tactic_sources CUDNN",
    ),
}
_NEVER: Mapping[str, Sequence[str]] = {
    "tensorrt": ("flag REQUIRE_USER_ALLOCATION",),
    "tensorrt_rtx": tuple(name for names in _UNTIL.values() for name in names),
}


class Absent(Value):
    """An option that a version does not have. sure: False if only one of the two nearest known versions has
    it."""

    option: str
    why: str
    sure: bool


def missing_options(recipe: Recipe, signature: HardwareSignature) -> list[Absent]:
    """The options of a recipe that the version of TensorRT does not have, or may not have."""
    given = {f"flag {name}" for name in recipe.flags}
    given |= {f"memory_pools {name}" for name in recipe.memory_pools}
    given |= {text for name, value in recipe.settings.items() for text in (name, *_members(name, value))}
    if not strongly_typed(signature):  # else the types in the ONNX decide, not a flag
        given.add(f"precision {recipe.precision}")
    return [absent for absent in absent_options(signature) if absent.option in given]


def _members(name: str, value: object) -> Iterator[str]:
    """The words of a setting's value, each with its name."""
    return (f"{name} {word}" for word in re.findall(r"\w+", str(value)))


def absent_options(signature: HardwareSignature) -> Iterator[Absent]:
    """The options that the version of TensorRT does not have, or may not have."""
    not_there = f"not in {signature.title}"
    for name in _NEVER[signature.product]:
        yield Absent(name, not_there, True)
    if signature.product != "tensorrt":
        return
    major, minor = signature.runtime_version.split(".")[:2]
    version = int(major), int(minor)
    for first, names in _SINCE.items():
        before = VERSIONS[VERSIONS.index(first) - 1]
        if version < first:
            sure = version <= before
            why = not_there if sure else _unknown(signature, before, first)
            yield from (Absent(name, why, sure) for name in names)
    for last, names in _UNTIL.items():
        after = VERSIONS[VERSIONS.index(last) + 1]
        if version > last:
            sure = version >= after
            why = not_there if sure else _unknown(signature, last, after)
            yield from (Absent(name, why, sure) for name in names)


def _unknown(signature: HardwareSignature, *near: tuple[int, int]) -> str:
    words = " and ".join(".".join(map(str, version)) for version in near)
    return f"not known for {signature.title}: only one of {words} has it"
