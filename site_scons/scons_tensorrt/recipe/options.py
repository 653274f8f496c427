"""The options of `env.Engine`: their checks, and the recipe made of them.

An option at its default is not in the cache key, so that a later version can add options without
rebuilding every engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..artifact.filename import PRECISIONS, check_model_name
from ..errors import EngineFilenameError, RecipeError, plural
from ..values import Value
from .conversion import Calibration, Conversion, Preparation, parse_conversion
from .gate import Gate, parse_gate
from .option_values import entry, flag, hint, is_number, is_text, literal, names, one_of, option, setting
from .samples import Samples
from .shapes import Profile, Shape, parse_profiles, text

DEFAULTS: Mapping[str, Any] = {
    "precision": "fp32",
    "shapes": None,
    "workspace_mb": 4096,
    "flags": (),
    "plugins": (),
    "timeout_s": None,
    "memory_pools": None,
    "optimization_level": None,
    "hardware_compatibility": None,
    "dla_core": None,
    "max_aux_streams": None,
    "avg_timing_iterations": None,
    "tiling_optimization_level": None,
    "profiling_verbosity": None,
    "strongly_typed": False,
    "keep_ops": (),
    "keep_nodes": (),
    "keep_io": True,
    "calibration": None,
    "accuracy": None,
    "prepare": "auto",
    "freeze": None,
}
# Settings of the builder configuration. None and TensorRT's own default are not in the key.
NUMBERS: Mapping[str, tuple[int, int]] = {
    "optimization_level": (0, 5),
    "dla_core": (0, 15),
    "max_aux_streams": (0, 128),
    "avg_timing_iterations": (1, 1 << 20),
}
WORDS: Mapping[str, tuple[str, ...]] = {
    "hardware_compatibility": ("none", "ampere_plus", "same_compute_capability"),
    "tiling_optimization_level": ("none", "fast", "moderate", "full"),
    "profiling_verbosity": ("layer_names_only", "none", "detailed"),
}
DEFAULT_NUMBERS = {"optimization_level": 3, "avg_timing_iterations": 1}
POOLS = ("dla_managed_sram", "dla_local_dram", "dla_global_dram", "tactic_dram", "tactic_shared_memory")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# All BuilderFlags of TensorRT 10.3, 10.13, 11.4 and RTX 1.7. The worker checks whether its runtime has one.
FLAGS = frozenset(
    "DEBUG DIRECT_IO DISABLE_COMPILATION_CACHE DISABLE_TIMING_CACHE DISTRIBUTIVE_INDEPENDENCE "
    "EDITABLE_TIMING_CACHE ERROR_ON_TIMING_CACHE_MISS EXCLUDE_LEAN_RUNTIME GPU_FALLBACK "
    "MONITOR_MEMORY OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS REFIT "
    "REFIT_IDENTICAL REFIT_INDIVIDUAL REJECT_EMPTY_ALGORITHMS REQUIRE_USER_ALLOCATION "
    "SAFETY_SCOPE SPARSE_WEIGHTS STRICT_NANS STRIP_PLAN VERSION_COMPATIBLE "
    "WEIGHT_STREAMING".split()
)
PRECISION_FLAGS = frozenset("TF32 FP16 BF16 INT8 FP8 INT4 FP4".split())
# Supported by this version; the filename schema has further ones.
BUILDABLE = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8", "mixed")


class Recipe(Value):
    """How one engine is built.

    workspace_mb: builder workspace in MiB; flags: BuilderFlag names, sorted; plugins: libraries to load
    before parsing; timeout_s: seconds after which the compile is stopped (not in the key); memory_pools:
    bytes by pool; settings: of the builder configuration, by option; conversion, accuracy, preparation:
    steps before the compile, in the key through the ONNX that they make.
    """

    model: str
    precision: str = "fp32"
    profiles: tuple[Profile, ...] = ()
    workspace_mb: int = 4096
    flags: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    timeout_s: float | None = None
    memory_pools: Mapping[str, int] = {}
    settings: Mapping[str, int | str] = {}
    strongly_typed: bool = False
    conversion: Conversion = Conversion()
    accuracy: Gate | None = None
    preparation: Preparation = Preparation()

    @property
    def ampere_plus(self) -> bool:
        """Whether the engine is for Ampere and later architectures; its filename then says so."""
        return self.settings.get("hardware_compatibility") == "ampere_plus"

    @property
    def calibrator(self) -> str | None:
        """The method of TensorRT 10's own calibrator, if it is used."""
        calibration = self.conversion.calibration
        return calibration.method if calibration and calibration.by == "calibrator" else None

    def key_fields(self) -> dict[str, str]:
        """The precision, and the other options that are not at their default, as text."""
        fields = {"precision": self.precision}
        fields.update({name: str(value) for name, value in self.settings.items()})
        fields.update({f"memory_pools {n}": str(size) for n, size in self.memory_pools.items()})
        if self.strongly_typed:
            fields["strongly_typed"] = "True"
        if self.calibrator:
            fields["calibrator"] = self.calibrator
        if self.workspace_mb != DEFAULTS["workspace_mb"]:
            fields["workspace_mb"] = str(self.workspace_mb)
        if self.flags:
            fields["flags"] = " ".join(self.flags)
        if len(self.plugins) > 1:  # their order; each plugin's sha256 is an ingredient itself
            fields["plugins"] = " ".join(path.name for path in self.plugins)
        for number, profile in enumerate(self.profiles):
            place = "" if len(self.profiles) == 1 else f"[{number}]"
            for name, bounds in profile.items():
                fields[f"shapes{place} {name}"] = text(bounds)
        return fields

    def to_json(self) -> dict[str, Any]:
        """For the worker and the receipt; plugins by name."""
        more = {
            "memory_pools": dict(self.memory_pools),
            "settings": dict(self.settings),
            "strongly_typed": self.strongly_typed,
            "calibrator": self.calibrator,
        }
        return {
            "precision": self.precision,
            "profiles": [{name: list(b) for name, b in p.items()} for p in self.profiles],
            "workspace_mb": self.workspace_mb,
            "flags": list(self.flags),
            "plugins": [path.name for path in self.plugins],
            **{name: value for name, value in more.items() if value},
        }

    @classmethod
    def from_json(cls, model: str, data: Mapping[str, Any], plugins: Sequence[Path]) -> Recipe:
        """The recipe in a receipt, without the steps before the compile. Raises LookupError, TypeError or
        ValueError if the receipt is from another version."""
        profiles: list[Profile] = [
            {name: _bounds(bounds) for name, bounds in profile.items()} for profile in data["profiles"]
        ]
        method = data.get("calibrator")
        native = Calibration(Samples(None), method, by="calibrator") if method else None
        return cls(
            model,
            data["precision"],
            tuple(profiles),
            int(data["workspace_mb"]),
            tuple(data["flags"]),
            tuple(plugins),
            memory_pools=dict(data.get("memory_pools", {})),
            settings=dict(data.get("settings", {})),
            strongly_typed=bool(data.get("strongly_typed", False)),
            conversion=Conversion(calibration=native),
        )


def _bounds(written: Sequence[Sequence[int]]) -> tuple[Shape, Shape, Shape]:
    low, usual, high = (tuple(shape) for shape in written)
    return low, usual, high


def name_options(positional: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by name; positional ones are in the order of DEFAULTS. Raises RecipeError."""
    if len(positional) > len(DEFAULTS):
        raise RecipeError(f"{plural(len(positional), 'option')} by position; write them as name=value")
    named = dict(zip(DEFAULTS, positional))
    twice = sorted(named.keys() & options.keys())
    if twice:
        raise RecipeError(f"option {twice[0]} is given twice")
    return {**named, **options}


def check_name(model: Any) -> None:
    """Raise RecipeError unless `model` can name an engine."""
    try:
        check_model_name(model)
    except EngineFilenameError as error:
        raise RecipeError(str(error)) from None


def parse(model: Any, options: Mapping[str, Any], plugins: Sequence[Path] = ()) -> Recipe:
    """The recipe of `env.Engine(model, source, **options)`.

    plugins: the paths of the `plugins` option. Raises RecipeError.
    """
    for name in options:
        if name not in DEFAULTS:
            raise RecipeError(f"unknown option {setting(name, options[name])}; {hint(name, DEFAULTS)}")
    chosen = {**DEFAULTS, **options}
    check_name(model)
    libraries = [path.name for path in plugins]
    if len(set(libraries)) != len(libraries):
        raise RecipeError(f"{setting('plugins', libraries)}: two libraries have the same name; rename one")
    return Recipe(
        str(model),
        _precision(chosen["precision"]),
        parse_profiles(chosen["shapes"]),
        _workspace(chosen["workspace_mb"]),
        _flags(chosen["flags"]),
        tuple(plugins),
        _seconds(chosen["timeout_s"]),
        _pools(chosen["memory_pools"]),
        _settings(chosen),
        flag("strongly_typed", chosen["strongly_typed"]),
        parse_conversion(chosen),
        parse_gate(chosen["accuracy"]),
        _preparation(chosen["prepare"], chosen["freeze"]),
    )


def _preparation(way: Any, freeze: Any) -> Preparation:
    if is_text(way, DEFAULTS["prepare"]) and freeze is None:
        return Preparation()
    from .preparation import parse_preparation  # rarely needed

    return parse_preparation(way, freeze)


def _pools(value: Any) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        example = entry("tactic_dram", literal("1G"))
        raise RecipeError(f"{setting('memory_pools', value)}: write a map such as {example}")
    for name in value:
        if name == "workspace":
            raise RecipeError(f"memory_pools workspace: write {option('workspace_mb')} instead")
        if name not in POOLS:
            raise RecipeError(f"memory_pools {literal(name)}: unknown; {hint(str(name), POOLS)}")
    return {name: _bytes(name, value[name]) for name in sorted(value)}


def _bytes(name: str, value: Any) -> int:
    text = str(value) if type(value) is int else value
    parts = re.fullmatch(r"([1-9][0-9]{0,17})([KMG]?)", text) if isinstance(text, str) else None
    size = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    if not 0 < size < 1 << 62:
        wrong = setting(f"memory_pools {name}", value)
        raise RecipeError(f"{wrong}: write a number of bytes, such as 4096 or {literal('1G')}")
    return size


def _settings(chosen: Mapping[str, Any]) -> dict[str, int | str]:
    """The settings that differ from TensorRT's own defaults, sorted."""
    given = {name: chosen[name] for name in sorted({*NUMBERS, *WORDS}) if chosen[name] is not None}
    for name, value in given.items():
        if name in WORDS:
            one_of(name, value, WORDS[name])
            continue
        low, high = NUMBERS[name]
        if type(value) is not int or not low <= value <= high:
            raise RecipeError(f"{setting(name, value)}: write a whole number from {low} to {high}")
    defaults = {**DEFAULT_NUMBERS, **{name: words[0] for name, words in WORDS.items()}}
    return {name: value for name, value in given.items() if value != defaults.get(name)}


def _precision(value: Any) -> str:
    if isinstance(value, str) and value in PRECISIONS and value not in BUILDABLE:
        known = ", ".join(BUILDABLE)
        raise RecipeError(f"{setting('precision', value)}: not supported by this version; {known}")
    return one_of("precision", value, BUILDABLE)


def _workspace(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 40:
        raise RecipeError(f"{setting('workspace_mb', value)}: write a whole number of MiB above 0")
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not value > 0:
        raise RecipeError(f"{setting('timeout_s', value)}: write a number of seconds above 0")
    try:
        return float(value)
    except OverflowError:
        raise RecipeError("timeout_s is too large; leave it out for no limit") from None


def _flags(value: Any) -> tuple[str, ...]:
    found = sorted({name.upper() for name in names("flags", value)})
    for name in found:
        if name in PRECISION_FLAGS:
            raise RecipeError(f"flag {name}: write {setting('precision', name.lower())} instead")
        if name not in FLAGS:
            raise RecipeError(f"flag {name}: unknown; {hint(name, sorted(FLAGS))}")
    return tuple(found)
