"""Which builder options which version of TensorRT has, for `scons-tensorrt query what-if`.

From the Python API of TensorRT 8.5, 8.6, 10.3, 10.13 and 11.4, and of TensorRT for RTX 1.7, in
tests/build/surfaces. Whether a version between two of them has an option that only one of them has is not
known. A build does not use this table: the compile worker asks the runtime itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..hardware.signature import HardwareSignature
from ..values import Value
from .conversion import strongly_typed
from .options import Recipe

VERSIONS = ((8, 5), (8, 6), (10, 3), (10, 13), (11, 4))  # of TensorRT, whose API is known
# By option: the first and the last of these versions that have it.
_SINCE: Mapping[tuple[int, int], Sequence[str]] = {
    (8, 6): (
        *(
            "flag EXCLUDE_LEAN_RUNTIME",
            "flag VERSION_COMPATIBLE",
            "hardware_compatibility",
            "max_aux_streams",
        ),
        *("memory_pools tactic_dram", "optimization_level", "precision fp8"),
    ),
    (10, 3): (
        *("flag DISABLE_COMPILATION_CACHE", "flag ERROR_ON_TIMING_CACHE_MISS", "flag REFIT_IDENTICAL"),
        *("flag REFIT_INDIVIDUAL", "flag STRIP_PLAN", "flag WEIGHT_STREAMING"),
        *("memory_pools tactic_shared_memory", "precision bf16"),
    ),
    (10, 13): (
        *("flag DISTRIBUTIVE_INDEPENDENCE", "flag EDITABLE_TIMING_CACHE", "flag MONITOR_MEMORY"),
        *("flag STRICT_NANS", "tiling_optimization_level"),
        "hardware_compatibility same_compute_capability",
    ),
}
_UNTIL: Mapping[tuple[int, int], Sequence[str]] = {
    (10, 13): (
        "flag OBEY_PRECISION_CONSTRAINTS",
        "flag PREFER_PRECISION_CONSTRAINTS",
        "flag REJECT_EMPTY_ALGORITHMS",
    ),
}
_NEVER: Mapping[str, Sequence[str]] = {
    "tensorrt": ("flag REQUIRE_USER_ALLOCATION",),
    "tensorrt_rtx": _UNTIL[10, 13],
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
    given |= {text for name, value in recipe.settings.items() for text in (name, f"{name} {value}")}
    if not strongly_typed(signature):  # else the types in the ONNX decide, not a flag
        given.add(f"precision {recipe.precision}")
    return [absent for absent in absent_options(signature) if absent.option in given]


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
