"""The options of `env.Engine`: their checks, and the recipe made of them.

An option at its default is not in the cache key, so that a later version can add options without
rebuilding every engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.filename import PRECISIONS, check_model_name
from ..errors import EngineFilenameError, RecipeError, plural
from ..values import Value
from .conversion import Calibration, Conversion, Preparation, parse_conversion
from .gate_options import Gate, parse_gate
from .option_checks import flag, hint, is_text, names, one_of, seconds, setting
from .sample_options import Samples
from .shapes import Profile, Shape, parse_profiles, text

if TYPE_CHECKING:
    from .model_card import ModelCard

# Builder settings that were added later. A new option goes to the end, because options may be given by
# position. Add it also to builder_settings.py, options_by_version.py and worker/trt/settings.py.
ADDED_SETTINGS = (
    *("max_num_tactics", "l2_limit_for_tiling", "build_route", "tactic_sources", "preview_features"),
    *("parser_flags", "engine_capability", "io_formats", "layer_devices", "plugins_to_serialize"),
)
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
    "timing_cache": None,
    "model_card": None,
    **dict.fromkeys(ADDED_SETTINGS),
}
# Those of them that are settings of the builder configuration.
BUILDER_SETTINGS = (
    *("optimization_level", "hardware_compatibility", "dla_core", "max_aux_streams"),
    *("avg_timing_iterations", "tiling_optimization_level", "profiling_verbosity", *ADDED_SETTINGS),
)
# The BuilderFlags of TensorRT 8.5 to 11.4 and RTX 1.7, without deprecated names. The worker checks whether
# its runtime has one.
FLAGS = frozenset(
    "DEBUG DIRECT_IO DISABLE_COMPILATION_CACHE DISABLE_TIMING_CACHE DISTRIBUTIVE_INDEPENDENCE "
    "EDITABLE_TIMING_CACHE ENABLE_TACTIC_HEURISTIC ERROR_ON_TIMING_CACHE_MISS EXCLUDE_LEAN_RUNTIME "
    "GPU_FALLBACK MONITOR_MEMORY OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS REFIT "
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
    steps before the compile, in the key through the ONNX that they make; timing_cache: the file that says
    which kernels to use, see timing_cache_file.py; model_card: not in the key.
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
    timing_cache: Path | None = None
    model_card: ModelCard | None = None

    @property
    def ampere_plus(self) -> bool:
        """Whether the engine is for Ampere and later architectures; its filename then says so."""
        return self.settings.get("hardware_compatibility") == "ampere_plus"

    @property
    def calibrator(self) -> str | None:
        """The method of TensorRT's own calibrator, if it is used."""
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
            "timing_cache": self.timing_cache and self.timing_cache.name,
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
    def from_json(
        cls, model: str, data: Mapping[str, Any], plugins: Sequence[Path], timing_cache: Path | None = None
    ) -> Recipe:
        """The recipe in a receipt, without the steps before the compile. timing_cache: the path of its file.
        Raises LookupError, TypeError or ValueError if the receipt is from another version."""
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
            timing_cache=timing_cache if data.get("timing_cache") else None,
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
        seconds(chosen["timeout_s"]),
        _pools(chosen["memory_pools"]),
        _settings(chosen, libraries),
        flag("strongly_typed", chosen["strongly_typed"]),
        parse_conversion(chosen),
        parse_gate(chosen["accuracy"]),
        _preparation(chosen["prepare"], chosen["freeze"]),
        _timing_cache(chosen["timing_cache"]),
        _model_card(chosen["model_card"]),
    )


def _model_card(value: Any) -> ModelCard | None:
    if value is None:
        return None
    from .model_card import parse_model_card  # rarely needed

    return parse_model_card(value)


def _preparation(way: Any, freeze: Any) -> Preparation:
    if is_text(way, DEFAULTS["prepare"]) and freeze is None:
        return Preparation()
    from .preparation import parse_preparation  # rarely needed

    return parse_preparation(way, freeze)


def _timing_cache(value: Any) -> Path | None:
    if value is None:
        return None
    from .builder_settings import parse_timing_cache  # rarely needed

    return parse_timing_cache(value)


def _pools(value: Any) -> dict[str, int]:
    if value is None:
        return {}
    from .builder_settings import parse_pools  # rarely needed

    return parse_pools(value)


def _settings(chosen: Mapping[str, Any], libraries: Sequence[str]) -> dict[str, int | str]:
    given = {name: chosen[name] for name in BUILDER_SETTINGS if chosen[name] is not None}
    if not given:
        return {}
    from .builder_settings import parse_settings  # rarely needed

    return parse_settings(given, libraries)


def _precision(value: Any) -> str:
    if isinstance(value, str) and value in PRECISIONS and value not in BUILDABLE:
        known = ", ".join(BUILDABLE)
        raise RecipeError(f"{setting('precision', value)}: not supported by this version; {known}")
    return one_of("precision", value, BUILDABLE)


def _workspace(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 40:
        raise RecipeError(f"{setting('workspace_mb', value)}: write a whole number of MiB above 0")
    return value


def _flags(value: Any) -> tuple[str, ...]:
    found = sorted({name.upper() for name in names("flags", value)})
    for name in found:
        if name in PRECISION_FLAGS:
            raise RecipeError(f"flag {name}: write {setting('precision', name.lower())} instead")
        if name not in FLAGS:
            raise RecipeError(f"flag {name}: unknown; {hint(name, sorted(FLAGS))}")
    return tuple(found)
