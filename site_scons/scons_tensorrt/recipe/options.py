"""The options of `env.Engine`, checked when they are read and told apart by what they change.

An option at its default is no ingredient of the key, so that a later version may add one
without compiling a fleet again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..artifact.filename import PRECISIONS, check_model_name
from ..errors import EngineFilenameError, RecipeError, plural
from .conversion import Calibration, Conversion, Gate, Samples, flag, parse_conversion, parse_gate
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
}
# Settings of the builder's configuration: None, or what TensorRT does by itself, is no ingredient.
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
# BuilderFlag of TensorRT 10.3, 10.13, 11.4 and RTX 1.7 together; whether the runtime at hand
# has one is asked of it by the worker.
FLAGS = frozenset(
    "DEBUG DIRECT_IO DISABLE_COMPILATION_CACHE DISABLE_TIMING_CACHE DISTRIBUTIVE_INDEPENDENCE "
    "EDITABLE_TIMING_CACHE ERROR_ON_TIMING_CACHE_MISS EXCLUDE_LEAN_RUNTIME GPU_FALLBACK "
    "MONITOR_MEMORY OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS REFIT "
    "REFIT_IDENTICAL REFIT_INDIVIDUAL REJECT_EMPTY_ALGORITHMS REQUIRE_USER_ALLOCATION "
    "SAFETY_SCOPE SPARSE_WEIGHTS STRICT_NANS STRIP_PLAN VERSION_COMPATIBLE "
    "WEIGHT_STREAMING".split()
)
PRECISION_FLAGS = frozenset("TF32 FP16 BF16 INT8 FP8 INT4 FP4".split())
# What this version can make true; the other names stand in the filename's schema already.
BUILDABLE = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8", "mixed")


class Recipe(NamedTuple):
    """How one engine is made.

    workspace_mb: MiB of builder workspace; flags: BuilderFlag names, sorted; plugins:
    libraries to load before parsing; timeout_s: seconds after which the compile is ended
    (not in the key: it changes no bytes); memory_pools: bytes by pool; settings: of the
    builder's configuration, by option; conversion and accuracy: of the ONNX before its compile,
    which reaches the key by the ONNX that comes out.
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

    @property
    def ampere_plus(self) -> bool:
        """Whether the engine is for every architecture from Ampere on, as its filename then says."""
        return self.settings.get("hardware_compatibility") == "ampere_plus"

    @property
    def calibrator(self) -> str | None:
        """The method of TensorRT 10's own calibrator, where that gives int8 its ranges."""
        calibration = self.conversion.calibration
        return calibration.method if calibration and calibration.by == "calibrator" else None

    def key_fields(self) -> dict[str, str]:
        """The options that are not at their default, as text; plugins count by their bytes."""
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
        if len(self.plugins) > 1:  # one by one they are inputs; the order they are loaded in
            fields["plugins"] = " ".join(path.name for path in self.plugins)
        for number, profile in enumerate(self.profiles):
            place = "" if len(self.profiles) == 1 else f"[{number}]"
            for name, bounds in profile.items():
                fields[f"shapes{place} {name}"] = text(bounds)
        return fields

    def to_json(self) -> dict[str, Any]:
        """For the worker and the receipt; plugins are told by their names."""
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
        """The recipe of a receipt, as far as it reaches the compile. Raises LookupError, TypeError
        or ValueError where the receipt is not one of this version's."""
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


def default_text(field: str) -> str | None:
    """What an absent key field means, for messages: '4096' for workspace_mb; None if nothing."""
    value = DEFAULTS.get(field)
    return str(value) if value else None


def check_known(options: Mapping[str, Any]) -> None:
    """Raise RecipeError for an option that `env.Engine` does not have."""
    for name in options:
        if name not in DEFAULTS:
            raise RecipeError(f"unknown option {name}={options[name]!r}; {_hint(name, DEFAULTS)}")


def name_options(positional: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by name: those given by position in the order of DEFAULTS. Raises RecipeError."""
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
    check_known(options)
    chosen = {**DEFAULTS, **options}
    check_name(model)
    names = [path.name for path in plugins]
    if len(set(names)) != len(names):
        raise RecipeError(f"plugins={names}: two libraries of one name; rename one")
    return Recipe(
        str(model),
        _precision(chosen["precision"]),
        parse_profiles(chosen["shapes"]),
        _count("workspace_mb", chosen["workspace_mb"]),
        _flags(chosen["flags"]),
        tuple(plugins),
        _seconds(chosen["timeout_s"]),
        _pools(chosen["memory_pools"]),
        _settings(chosen),
        flag("strongly_typed", chosen["strongly_typed"]),
        parse_conversion(chosen),
        parse_gate(chosen["accuracy"]),
    )


def _pools(value: Any) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecipeError(f"memory_pools={value!r}: write a map such as {{'tactic_dram': '1G'}}")
    return {_pool(name): _bytes(name, value[name]) for name in sorted(value, key=str)}


def _pool(name: Any) -> str:
    if name == "workspace":
        raise RecipeError("memory_pools workspace: write workspace_mb= instead")
    if name not in POOLS:
        raise RecipeError(f"memory_pools {name!r}: unknown; {_hint(str(name), POOLS)}")
    return str(name)


def _bytes(name: str, value: Any) -> int:
    text = str(value) if type(value) is int else value
    parts = re.fullmatch(r"([1-9][0-9]{0,17})([KMG]?)", text) if isinstance(text, str) else None
    size = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    if not 0 < size < 1 << 62:
        raise RecipeError(f"memory_pools {name}={value!r}: write bytes, or such as '512K', '64M', '1G'")
    return size


def _settings(chosen: Mapping[str, Any]) -> dict[str, int | str]:
    """The settings that were given, sorted; one that only says TensorRT's own default is none."""
    found: dict[str, int | str] = {}
    for name in sorted({*NUMBERS, *WORDS}):
        value = chosen[name]
        if value is None:
            continue
        if name in NUMBERS:
            low, high = NUMBERS[name]
            if type(value) is not int or not low <= value <= high:
                raise RecipeError(f"{name}={value!r}: write a whole number from {low} to {high}")
        elif not isinstance(value, str) or value not in WORDS[name]:
            raise RecipeError(f"{name}={value!r}: write one of {', '.join(WORDS[name])}")
        default = WORDS[name][0] if name in WORDS else DEFAULT_NUMBERS.get(name)
        if value != default:
            found[name] = value
    return found


def _precision(value: Any) -> str:
    if not isinstance(value, str) or value not in PRECISIONS:
        raise RecipeError(f"precision={value!r}: write one of {', '.join(BUILDABLE)}")
    if value not in BUILDABLE:
        raise RecipeError(f"precision={value!r}: this version cannot make it; {', '.join(BUILDABLE)}")
    return str(value)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 40:
        raise RecipeError(f"{name}={value!r}: write a whole number of MiB above 0")
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise RecipeError(f"timeout_s={value!r}: write a number of seconds above 0")
    try:
        return float(value)
    except OverflowError:
        raise RecipeError("timeout_s is too large: leave it out for a compile without a limit") from None


def _hint(name: str, known: Iterable[str]) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _flags(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RecipeError(f"flags={value!r}: write a list such as ['STRICT_NANS']")
    names = sorted({str(name).upper() for name in value})
    for name in names:
        if name in PRECISION_FLAGS:
            raise RecipeError(f"flag {name}: write precision={name.lower()!r} instead")
        if name not in FLAGS:
            raise RecipeError(f"flag {name}: unknown; {_hint(name, sorted(FLAGS))}")
    return tuple(names)
