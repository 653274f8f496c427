"""`build`: engines of ONNX files, of an engines.toml or of a SConstruct."""

from __future__ import annotations

import argparse
import ast
import functools
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, RecipeError, plural
from ..recipe.engines_file import (
    NAME,
    EngineEntry,
    distinct_name,
    format_shape,
    model_name,
    parse_shape,
    propose_shapes,
)
from ..recipe.onnx.summary import OnnxInput, OnnxSummary
from ..recipe.options import BUILDABLE, parse
from . import depfile
from .common import add_command, add_json, program, say
from .run_scons import EVENTS, own_entries, run_for_json, run_scons

if TYPE_CHECKING:
    from .common import Commands

PROFILE = ".trt/profile.json"
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
# The options of env.Engine besides precision and shapes: placeholder and help.
OTHERS = {
    "workspace_mb": ("MIB", "memory of the builder (default: 4096)"),
    "flags": ("LIST", "builder flags, such as \"['STRICT_NANS']\""),
    "plugins": ("LIST", "plugin libraries, such as \"['libplugin.so']\""),
    "timeout_s": ("SECONDS", "end a compile after this time"),
    "memory_pools": ("MAP", "such as \"{'tactic_dram': '1G'}\""),
    "optimization_level": ("0-5", "builder optimization level (default: 3)"),
    "hardware_compatibility": ("LEVEL", "ampere_plus or same_compute_capability"),
    "dla_core": ("N", "compile for this DLA core"),
    "max_aux_streams": ("N", "auxiliary streams"),
    "avg_timing_iterations": ("N", "timing iterations of a kernel"),
    "tiling_optimization_level": ("LEVEL", "fast, moderate or full"),
    "profiling_verbosity": ("LEVEL", "none or detailed"),
    "strongly_typed": ("BOOL", "compile the types of the ONNX (True or False)"),
    "keep_ops": ("LIST", "operators that stay float32, such as \"['Softmax']\""),
    "keep_nodes": ("LIST", "nodes that stay float32"),
    "keep_io": ("BOOL", "inputs and outputs keep their types (default: True)"),
    "calibration": ("SAMPLES", "int8 and fp8: a .npz, a folder of .npy, or reader.py:function"),
    "accuracy": ("SAMPLES", "compare with the original: samples, or a map with bounds"),
    "prepare": ("WAY", "none: compile an ONNX as it is, even one that TensorRT would refuse"),
    "timing_cache": ("FILE", "use the kernels in this file, which TIMING=record writes"),
    "model_card": ("MAP", "for bills of materials, such as \"{'license': 'MIT'}\""),
    "max_num_tactics": ("N", "most tactics to time where there is a choice"),
    "l2_limit_for_tiling": ("BYTES", "L2 cache that tiling may use, such as 24M"),
    "build_route": ("TEXT", "knobs of the compiler, as in --build-route=-NAME=VALUE"),
    "tactic_sources": ("LIST", "the only tactic sources to use, such as \"['JIT_CONVOLUTIONS']\""),
    "preview_features": ("LIST", "preview features to enable"),
    "parser_flags": ("LIST", "flags of the ONNX parser, such as \"['ADJUST_FOR_DLA']\""),
    "engine_capability": ("WORD", "safety or dla_standalone"),
    "io_formats": ("MAP", "formats of inputs and outputs, such as \"{'image': 'chw16'}\""),
    "layer_devices": ("MAP", "gpu or dla for single layers, with --dla-core"),
    "plugins_to_serialize": ("LIST", "plugins to include in a version-compatible engine"),
    "freeze": ("INPUT=VALUE", "make an input a constant, such as sr=16000; repeated: further inputs"),
}


def add(commands: Commands) -> None:
    build = add_command(
        commands,
        "build",
        "build engines of ONNX files, of engines.toml or of the SConstruct",
        ("models/face.onnx --shape image=1x3x224x224", "--dry-run HARDWARE=rtx_sm89"),
        "Build the engine of each ONNX file; without one, those of the SConstruct or engines.toml in this "
        "folder. What is up to date is reused. Writes engines/ and .trt/.",
    )
    build.usage = "%(prog)s [OPTIONS] [MODEL.onnx | SETTING=VALUE]..."
    build.add_argument(
        "models", nargs="*", metavar="MODEL.onnx, SETTING=VALUE", help="ONNX files; settings of scons engines"
    )
    build.add_argument("--precision", choices=BUILDABLE, help="precision of the engines (default: fp32)")
    build.add_argument(
        "--shape",
        action="append",
        metavar="INPUT=SHAPE",
        help="shape of a dynamic input, 1x3x224x224 or MIN:OPT:MAX; repeated: another profile",
    )
    build.add_argument("--name", metavar="NAME", help="model name in the filename (default: the ONNX's)")
    build.add_argument("--hardware", metavar="NAME", help="hardware name or file, as in HARDWARE=")
    build.add_argument("--fetch", choices=("all", "needed", "none"), help="what to download, as in FETCH=")
    build.add_argument("-j", "--jobs", type=_jobs, metavar="N", help="compiles at once (default: as fit)")
    build.add_argument("--depfile", metavar="FILE", help="also write what the engines depend on, for make")
    build.add_argument(
        "--profile",
        nargs="?",
        const=PROFILE,
        metavar="FILE.json",
        help=f"write when each step began and ended, for ui.perfetto.dev (default: {PROFILE})",
    )
    build.add_argument("-n", "--dry-run", action="store_true", help="print what would be built")
    build.add_argument("-k", "--keep-going", action="store_true", help="build the rest after a failure")
    add_json(build, "print the outcome of each engine as JSON, and the run's lines to standard error")
    options = build.add_argument_group("engine options", "values as in Python; see docs/recipes.md")
    for name, (metavar, text) in OTHERS.items():
        more = {"action": "append"} if name == "freeze" else {"type": _value}
        options.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=text, **more)
    build.set_defaults(run=_build)


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0")
    return int(text)


def _value(text: str) -> Any:
    """A Python literal, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(arguments: argparse.Namespace) -> int:
    if arguments.json and EVENTS not in os.environ:
        return run_for_json(_row, "engines")
    settings = [each for each in arguments.models if _SETTING.fullmatch(each) and not os.path.isfile(each)]
    models = [each for each in arguments.models if each not in settings]
    chosen = dict(each.split("=", 1) for each in settings)
    if arguments.hardware:
        chosen["HARDWARE"] = arguments.hardware
    if arguments.fetch:
        chosen["FETCH"] = arguments.fetch
    if arguments.profile:
        if not arguments.profile.endswith(".json"):
            arguments.wrong(f"--profile {arguments.profile}: write --profile=FILE.json")
        chosen["PROFILE"] = arguments.profile
    if not models:
        only = [
            n for n in ("precision", "shape", "name", "depfile", *OTHERS) if getattr(arguments, n) is not None
        ]
        if only:
            arguments.wrong(f"--{only[0].replace('_', '-')} is for an ONNX; name one")
        return run_scons("engines", _flags(arguments), chosen, own_entries(), NAME)
    if arguments.name is not None and len(models) > 1:
        arguments.wrong("--name is for one ONNX")
    entries, faults = [], 0
    for model in models:
        try:
            entries.append(_entry(arguments, model, alone=len(models) == 1))
        except RecipeError as error:
            say(f"{type(error).__name__}: {error}", sys.stderr)
            faults += 1
    if faults and not (arguments.keep_going and entries):
        return 1
    if arguments.depfile:
        rules = [depfile.rule(entry, _summary(entry.onnx).external, chosen) for entry in entries]
        depfile.check(arguments.depfile, rules)
    _refuse_one_name(entries)
    named = arguments.name is not None
    status = run_scons("engines", _flags(arguments), chosen, entries, None, named)
    if arguments.depfile and status == 0:
        depfile.write(arguments.depfile, rules)
    return status or int(faults > 0)


def _row(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """What --json prints of an event of an engine."""
    if "outcome" not in event or event["event"] == "engine.convert.done":
        return None
    return {
        "engine": event["engine"],
        "name": event["model_name"],
        "outcome": event["outcome"],
        "code": event["reason"],
        "reason": event.get("reason_text", ""),
        "error_class": event["error_class"],
        "compile_duration_s": event["compile_duration_s"],
    }


def _flags(arguments: argparse.Namespace) -> list[str]:
    """The options of SCons."""
    jobs = [f"-j{arguments.jobs}"] if arguments.jobs else []
    return [*jobs, *["-n"] * arguments.dry_run, *["-k"] * arguments.keep_going]


def _refuse_one_name(entries: Sequence[EngineEntry]) -> None:
    """Raise EngineError for a file that is named twice, and for two whose engines would have one name."""
    found: dict[str, str] = {}
    for entry in entries:
        if entry.name in found and os.path.samefile(found[entry.name], entry.onnx):
            raise EngineError(f"{entry.onnx} is named twice; name it once")
        if entry.name in found:
            raise EngineError(
                f"{entry.onnx}: its engine would have the same name as that of {found[entry.name]}, "
                f"{entry.name}; build it in its own command, with --name {distinct_name(entry.onnx, found)}"
            )
        found[entry.name] = entry.onnx


def _entry(arguments: argparse.Namespace, model: str, alone: bool) -> EngineEntry:
    """The engine of a model. alone: else --shape is for those models that leave the input's sizes open.
    Raises RecipeError."""
    name = arguments.name if arguments.name is not None else model_name(model)
    options = _options(arguments)
    inputs = _summary(model).inputs
    if not alone and "shapes" in options:
        dynamic = {each.name for each in inputs if each.dynamic}
        given = options["shapes"] if isinstance(options["shapes"], list) else [options["shapes"]]
        kept = [{key: value for key, value in each.items() if key in dynamic} for each in given]
        options["shapes"] = [each for each in kept if each] or None
    frozen = parse(name, options).preparation.freeze
    missing = _missing(model, [each for each in inputs if each.name not in frozen], options)
    if missing and alone:
        command = shlex.join([*program().split(), *sys.argv[1:], *missing.values()])
        listed = ", ".join(map(str, missing))
        raise RecipeError(
            f"{model}: {plural(len(missing), 'dynamic input')} without a shape: {listed}; run this, with "
            f"your sizes: {command}"
        )
    if missing:
        wanted = " ".join(missing.values())
        raise RecipeError(f"{model}: no shape for a dynamic input; add, with your sizes: {wanted}")
    return EngineEntry(model, name, model, options)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of env.Engine that were given. Raises RecipeError."""
    found = {n: getattr(arguments, n) for n in ("precision", *OTHERS) if getattr(arguments, n) is not None}
    if arguments.freeze:
        pairs = (
            _pair(arguments, "freeze", text, "INPUT=VALUE, such as sr=16000") for text in arguments.freeze
        )
        found["freeze"] = {name: _value(text) for name, text in pairs}
    profiles: list[dict[str, Any]] = [{}]
    for text in arguments.shape or ():
        name, shape = _pair(arguments, "shape", text, "INPUT=1x3x224x224")
        profile = next((each for each in profiles if name not in each), None)
        if profile is None:
            profiles.append(profile := {})
        profile[name] = parse_shape(shape)
    if arguments.shape:
        found["shapes"] = profiles if len(profiles) > 1 else profiles[0]
    return found


def _pair(arguments: argparse.Namespace, option: str, text: str, like: str) -> tuple[str, str]:
    """The name of an input and its value."""
    name, _, value = text.rpartition("=")
    if not name:
        arguments.wrong(f"--{option} {text}: write {like}")
    return name, value


@functools.cache
def _summary(model: str) -> OnnxSummary:
    from ..recipe.onnx.read_onnx import read_onnx

    try:
        return read_onnx(model)
    except OSError as error:
        raise RecipeError(f"{model}: {error.strerror}; check the path") from None
    except RecipeError as error:
        raise RecipeError(f"{model}: {error}") from None


def _missing(model: str, inputs: Sequence[OnnxInput], options: Mapping[str, Any]) -> dict[OnnxInput, str]:
    """The dynamic inputs without a shape, each with an argument that proposes one. Raises RecipeError for the
    shape of an input that there is not."""
    shapes = options.get("shapes") or {}
    given = {name for each in (shapes if isinstance(shapes, list) else [shapes]) for name in each}
    unknown = sorted(given - {each.name for each in inputs})
    if unknown:
        listed = ", ".join(map(str, inputs)) or "none"
        raise RecipeError(f"{model}: --shape: the model has no input `{unknown[0]}`; inputs: {listed}")
    proposed = propose_shapes(inputs)
    return {
        each: f"--shape={each.name}={format_shape(proposed[each.name])}"
        for each in inputs
        if each.name in proposed and each.name not in given
    }
