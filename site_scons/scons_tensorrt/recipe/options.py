"""The options of `env.Engine`, checked when they are read and told apart by what they change.

An option at its default is no ingredient of the key, so that a later version may add one
without compiling a fleet again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineFilenameError, RecipeError
from ..identity.filename import PRECISIONS, check_model_name
from .shapes import Profile, parse_profiles, text

DEFAULTS: Mapping[str, Any] = {
    "precision": "fp32",
    "shapes": None,
    "workspace_mb": 4096,
    "flags": (),
    "plugins": (),
    "timeout_s": None,
}
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


@dataclass(frozen=True)
class Recipe:
    """How one engine is made.

    workspace_mb: MiB of builder workspace; flags: BuilderFlag names, sorted; plugins:
    libraries to load before parsing; timeout_s: seconds after which the compile is ended
    (not in the key: it changes no bytes).
    """

    model: str
    precision: str = "fp32"
    profiles: tuple[Profile, ...] = ()
    workspace_mb: int = 4096
    flags: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    timeout_s: float | None = None

    def key_fields(self) -> dict[str, str]:
        """The options that are not at their default, as text; plugins count by their bytes."""
        fields = {"precision": self.precision}
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
        return {
            "precision": self.precision,
            "profiles": [{name: list(b) for name, b in p.items()} for p in self.profiles],
            "workspace_mb": self.workspace_mb,
            "flags": list(self.flags),
            "plugins": [path.name for path in self.plugins],
        }


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
        raise RecipeError(f"{len(positional)} options by position; write them as name=value")
    named = dict(zip(DEFAULTS, positional))
    twice = sorted(named.keys() & options.keys())
    if twice:
        raise RecipeError(f"option {twice[0]} is given twice")
    return {**named, **options}


def parse(model: Any, options: Mapping[str, Any], plugins: Sequence[Path] = ()) -> Recipe:
    """The recipe of `env.Engine(model, source, **options)`.

    plugins: the paths of the `plugins` option. Raises RecipeError.
    """
    check_known(options)
    chosen = {**DEFAULTS, **options}
    try:
        check_model_name(model)
    except EngineFilenameError as error:
        raise RecipeError(str(error)) from None
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
    )


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
    return float(value)


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
