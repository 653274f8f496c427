"""`build`: engines of ONNX files, of an engines.toml or of a SConstruct.

It runs SCons in this process with a SConstruct: the one that is there, or the one that a user would write.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, RecipeError, plural
from ..files.reading import read_small
from ..files.writing import write_atomic
from ..recipe.engines_file import (
    LARGEST,
    NAME,
    format_shape,
    model_name,
    parse_shape,
    propose_shapes,
    read_engines,
)
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.options import BUILDABLE, parse
from .common import add_command, say, writing
from .name import engine_path

if TYPE_CHECKING:
    from .common import Commands

SCONSTRUCTS = ("SConstruct", "Sconstruct", "sconstruct", "SConstruct.py", "Sconstruct.py", "sconstruct.py")
HEADER = """DefaultEnvironment(tools=[])
env = Environment(tools=["trt_engines"], toolpath=[PyPackageDir("scons_tensorrt.tools")])
"""
PROGRAM = "scons-tensorrt"
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
}
MODELS_IN_MEMORY = 3  # a compile takes about so many times the bytes of its model


def program() -> str:
    """How this command was called."""
    return PROGRAM if os.path.basename(sys.argv[0]) == PROGRAM else "python3 -m scons_tensorrt"


def add(commands: Commands) -> None:
    build = add_command(
        commands,
        "build",
        "build engines of ONNX files, of engines.toml or of the SConstruct",
        "model.onnx --shape image=1x3x224x224",
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
    build.add_argument("-j", "--jobs", type=_jobs, metavar="N", help="compiles at once (default: as fit)")
    build.add_argument("--depfile", metavar="FILE", help="also write what the engines depend on, for make")
    build.add_argument("-n", "--dry-run", action="store_true", help="print what would be built")
    build.add_argument("-k", "--keep-going", action="store_true", help="build the rest after a failure")
    options = build.add_argument_group("engine options", "values as in Python; see docs/recipes.md")
    for name, (metavar, text) in OTHERS.items():
        options.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, type=_value, help=text)
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
    settings = [each for each in arguments.models if _SETTING.fullmatch(each)]
    models = [each for each in arguments.models if each not in settings]
    if not models:
        only = [
            n for n in ("precision", "shape", "name", "depfile", *OTHERS) if getattr(arguments, n) is not None
        ]
        if only:
            arguments.wrong(f"--{only[0].replace('_', '-')} is for an ONNX; name one")
        return _scons(arguments, settings, _own_file(), [])
    if arguments.name and len(models) > 1:
        arguments.wrong("--name is for one ONNX")
    options = _options(arguments)
    calls = []
    for model in models:
        name = arguments.name or model_name(model)
        parse(name, options)
        missing = _missing(arguments, model, options)
        if missing:
            say(missing, sys.stderr)
            return 1
        words = [f"{key}={value!r}" for key, value in options.items()]
        calls.append(f"env.Engine({', '.join([repr(name), repr(model), *words])})\n")
    status = _scons(arguments, settings, HEADER + "".join(calls), models)
    if arguments.depfile and status == 0:
        chosen = dict(each.split("=", 1) for each in settings)
        _write_depfile(arguments, models, options, chosen.get("ENGINE_DIR", ""))
    return status


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of env.Engine that were given. Raises RecipeError."""
    found = {n: getattr(arguments, n) for n in ("precision", *OTHERS) if getattr(arguments, n) is not None}
    profiles: list[dict[str, Any]] = [{}]
    for text in arguments.shape or ():
        name, separator, shape = text.rpartition("=")
        if not separator or not name:
            arguments.wrong(f"--shape {text}: write INPUT=1x3x224x224")
        profile = next((each for each in profiles if name not in each), None)
        if profile is None:
            profiles.append(profile := {})
        profile[name] = parse_shape(shape)
    if arguments.shape:
        found["shapes"] = profiles if len(profiles) > 1 else profiles[0]
    return found


def _summary(model: str) -> OnnxSummary:
    from ..recipe.onnx.walk import read_onnx

    try:
        return read_onnx(model)
    except OSError as error:
        raise RecipeError(f"{model}: {error.strerror}; check the path") from None
    except RecipeError as error:
        raise RecipeError(f"{model}: {error}") from None


def _missing(arguments: argparse.Namespace, model: str, options: Mapping[str, Any]) -> str | None:
    """What to say where dynamic inputs have no shape: the same command, completed. Raises RecipeError."""
    summary = _summary(model)
    shapes = options.get("shapes", {})
    given = {name for each in (shapes if isinstance(shapes, list) else [shapes]) for name in each}
    unknown = sorted(given - {each.name for each in summary.inputs})
    if unknown:
        listed = ", ".join(map(str, summary.inputs)) or "none"
        raise RecipeError(f"{model}: --shape: the model has no input `{unknown[0]}`; inputs: {listed}")
    proposed = propose_shapes(summary.inputs)
    missing = [each for each in summary.inputs if each.name in proposed and each.name not in given]
    if not missing:
        return None
    command = [*program().split(), *sys.argv[1:]]
    command += [f"--shape={each.name}={format_shape(proposed[each.name])}" for each in missing]
    inputs = ", ".join(map(str, missing))
    return (
        f"{model}: {plural(len(missing), 'dynamic input')} without a shape: {inputs}; run this, with your "
        f"sizes: {shlex.join(command)}"
    )


def _own_file() -> str | None:
    """The text of the SConstruct for an engines.toml; None where the folder has a SConstruct. Raises
    EngineError."""
    if any(map(os.path.isfile, SCONSTRUCTS)):
        return None
    if os.path.isfile(NAME):
        for entry in read_engines(NAME, read_small(NAME, LARGEST)):
            entry.check()
        return f"{HEADER}env.EnginesFromFile({NAME!r})\n"
    raise EngineError(
        f"no SConstruct and no {NAME} in this folder; name an ONNX, or run `{program()} init` to write one"
    )


def _scons(
    arguments: argparse.Namespace, settings: list[str], sconstruct: str | None, models: Sequence[str]
) -> int:
    """Run `scons engines` in this process. sconstruct: its text, None for the folder's own file."""
    try:
        import SCons.Script
    except ImportError:
        raise EngineError("SCons is not installed: run `python3 -m pip install scons`") from None
    jobs = arguments.jobs or _jobs_that_fit(models)
    command = [PROGRAM, "-Q", f"-j{jobs}"]
    command += ["-n"] * arguments.dry_run + ["-k"] * arguments.keep_going
    command += ["-f", "-"] * (sconstruct is not None)
    command += ["engines", *settings]
    if arguments.hardware:
        command.append(f"HARDWARE={arguments.hardware}")
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = command, io.StringIO(sconstruct or "")
    try:
        SCons.Script.main()
    except SystemExit as end:  # it always exits
        if end.code and not isinstance(end.code, int):
            say(str(end.code), sys.stderr)
            return 2
        return end.code or 0
    finally:
        sys.argv, sys.stdin = before
    return 0


def _write_depfile(
    arguments: argparse.Namespace, models: Sequence[str], options: Mapping[str, Any], folder: str
) -> None:
    """Write a rule of make for the engine of each model, with all of its input files. folder: of engines."""
    rules = []
    for model in models:
        name, precision = arguments.name or model_name(model), options.get("precision", "fp32")
        data = [os.path.join(os.path.dirname(model), location) for location in _summary(model).external]
        engine = engine_path(name, precision, arguments.hardware, folder)
        files = [engine, model, *data, *_other_files(options)]
        target, *inputs = [re.sub(r"([ #:\\])", r"\\\1", file).replace("$", "$$") for file in files]
        rules.append(f"{target}: {' '.join(inputs)}\n")
    with writing(arguments.depfile):
        Path(arguments.depfile).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(arguments.depfile), "".join(rules).encode(), durable=False)


def _other_files(options: Mapping[str, Any]) -> Iterator[str]:
    """The plugins, samples and references among the options; of a folder, its files."""
    plugins = options.get("plugins", ())
    found = [plugins] if isinstance(plugins, str) else list(plugins)
    for name in ("calibration", "accuracy"):
        given = options.get(name)
        chosen = given.values() if isinstance(given, Mapping) else [given]
        found += [each for value in chosen for each in (value if isinstance(value, list) else [value])]
    for each in found:
        path = Path(re.sub(r"(\.py):\w+$", r"\1", each)) if isinstance(each, str) else None
        if path is not None and path.is_dir():
            yield from sorted(str(file) for file in path.rglob("*.npy"))
        elif path is not None and path.is_file():
            yield str(path)


def _jobs_that_fit(models: Sequence[str]) -> int:
    """As many compiles as there are cores and memory for."""
    cores = len(os.sched_getaffinity(0))
    largest = max((os.path.getsize(model) for model in models or Path().rglob("*.onnx*")), default=0)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory // max(1, MODELS_IN_MEMORY * largest)))
