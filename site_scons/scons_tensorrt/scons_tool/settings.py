"""The settings of a run. The command line wins over a construction variable, and a construction
variable that the SConstruct does not set defaults to the process environment. Those of the store are in
store_settings.py, those of remote compiles in remote_settings.py."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Script

from ..artifact.state_folder import DEFAULT as STATE_DIR
from ..errors import RecipeError
from ..recipe.option_checks import literal, setting
from ..values import Value

VARIABLES = {
    "TRT_HARDWARE": "",
    "TRT_BACKEND": "",
    "TRT_VERIFY": "stat",
    "TRT_ENGINE_DIR": "engines",
    "TRT_STATE_DIR": STATE_DIR,
    "TRT_REPORT": "",
    "TRT_PYTHON": "",
    "TRT_ONNX_PYTHON": "",
    "TRT_LOCK_TIMEOUT": "",
    "TRT_ENGINECOMSTR": "",
    "TRT_BUILDER_ID": "",
    "TRT_VERBOSE": "",
    "TRT_CACHE_SIZE": "5Gi",
    "TRT_PROFILE": "",
}
SIGNING_KEY = "TRT_SIGNING_KEY"  # not copied from the environment: env.Dump() would print it
# Arguments of the command line that are ours alone: not PREFIX, DESTDIR and the like.
ARGUMENTS = (
    *("HARDWARE", "BACKEND", "VERIFY", "ENGINE_DIR", "REPORT", "JETPACK", "SIGNING_KEY", "CACHE_SIZE"),
    *("STORE", "STORE_MODE", "STORE_SIGNING_KEY", "STORE_TRUSTED_KEYS", "STORE_REFUSALS"),
    *("FETCH", "STORE_WAIT", "STORE_PATIENCE", "STORE_TIMEOUT"),
    *("DISPATCH", "DISPATCH_CERTIFICATES", "DISPATCH_WAIT"),
    *("PRUNE", "KEEP", "OLDER", "VERBOSE", "TIMING", "PROFILE"),
)
HELP = """
TensorRT engines (scons-tensorrt):
  scons engines         build every engine that is out of date; `scons -c engines` removes them
  scons engines-report  the same, then write a report: .trt/report/index.html
  HARDWARE=NAME         hardware/NAME.json, the path of such a file, or a built-in:
                        rtx_portable (default when no NVIDIA GPU is found),
                        rtx_sm75, rtx_sm80, rtx_sm86, rtx_sm89, rtx_sm120, rtx_sm121;
                        a list builds for several: HARDWARE=orin_nx,rtx_sm89
  BACKEND=NAME          tensorrt or tensorrt_rtx; default: that of the hardware
  VERIFY=stat|full      stat (default) trusts an unchanged stat; full hashes every file
  ENGINE_DIR=DIR        the folder of engines; default: engines
  REPORT=DIR            the folder of engines-report; default: .trt/report
  JETPACK=X.Y           the JetPack version, if it cannot be derived from the L4T release
  CACHE_SIZE=SIZE       how much to keep of engines that a change replaced, so that undoing it
                        compiles nothing; default: 5Gi; 0 keeps nothing
  TIMING=record         write the files of timing_cache=: each layer's kernel, on this hardware
  VERBOSE=1             print a line for each reused engine, not only their number
  PROFILE=FILE.json     write when each step of the run began and ended, for ui.perfetto.dev
  scons engines-prune   list files that no declared engine and no hardware in hardware/ needs;
                        PRUNE=yes deletes them, KEEP=N keeps the last N of each, OLDER=DAYS only
                        deletes older ones
  scons install         copy what env.InstallEngines names to install_root=, or DESTDIR= and PREFIX=
  SIGNING_KEY=FILE      sign manifests with this private key (PEM)
The same settings as construction variables or in the environment: TRT_HARDWARE, TRT_BACKEND,
TRT_VERIFY, TRT_ENGINE_DIR, TRT_REPORT, TRT_CACHE_SIZE, TRT_VERBOSE, TRT_PROFILE,
TRT_SIGNING_KEY (the file, or the PEM itself). And:
  TRT_STATE_DIR         the state folder; default: .trt
  TRT_PYTHON            the Python interpreter that has TensorRT
  TRT_ONNX_PYTHON       the Python interpreter that has onnx and onnxruntime, for conversions
  TRT_LOCK_TIMEOUT      seconds to wait for a lock of another process; default: no limit
  TRT_ENGINECOMSTR      a line to print before each engine's action
  TRT_BUILDER_ID        a URI that identifies the builder in signed statements
"""


class Settings(Value):
    """The settings of one environment for one hardware. alone: whether only one was requested."""

    hardware: str
    backend: str
    jetpack: str
    python: str
    engine_dir: str
    alone: bool = True

    @property
    def folder(self) -> str:
        """The folder in the label of an engine whose hardware could not be resolved."""
        stem = os.path.basename(self.hardware).removesuffix(".json")
        name = "" if self.alone else re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".")
        return os.path.join(self.engine_dir, name) if name else self.engine_dir


def as_written(env: Any, names: Sequence[str]) -> tuple[Any, ...] | None:
    """The construction variables and arguments that settings are read from; None if one must be expanded.
    Equal ones have equal settings, so that they need not be read again for each of many engines."""
    values = tuple([env.get(name, "") for name in names])
    for value in values:
        if value.__class__ is not str or "$" in value:
            return None
    return (*values, *SCons.Script.ARGUMENTS.items())


def set_defaults(env: Any, more: Mapping[str, str]) -> None:
    """Set the construction variables that the user has not set to their defaults."""
    env.SetDefault(
        **{name: os.environ.get(name) or default for name, default in {**VARIABLES, **more}.items()}
    )


def read(env: Any, top: Path, hardware: Any = None) -> tuple[Settings, ...]:
    """The settings of `env` for each hardware. Relative paths are relative to `top`.

    hardware: the argument of the call, a name or a list; only the command line wins over it. Raises
    RecipeError or UserError.
    """
    named = str(SCons.Script.ARGUMENTS.get("HARDWARE") or _named(env, hardware))
    return _settings(
        named or value_of(env, "TRT_HARDWARE"),
        chosen(env, "BACKEND"),
        str(SCons.Script.ARGUMENTS.get("JETPACK", "")),
        value_of(env, "TRT_PYTHON"),
        chosen(env, "ENGINE_DIR"),
        top,
    )


@lru_cache  # thousands of engines share the same settings
def _settings(
    hardware: str, backend: str, jetpack: str, python: str, engine_dir: str, top: Path
) -> tuple[Settings, ...]:
    names = list(dict.fromkeys(name.strip() for name in hardware.split(",")))
    if len(names) > 1 and "" in names:
        raise SCons.Errors.UserError(
            f"HARDWARE={hardware}: a name is missing between commas; remove the extra comma"
        )
    rest = backend, jetpack, _program(python, top), below(engine_dir, top), len(names) == 1
    return tuple(Settings(name, *rest) for name in names)


def _named(env: Any, hardware: Any) -> str:
    """The `hardware=` argument of a call as a value of HARDWARE=."""
    if hardware is None:
        return ""
    names = hardware if isinstance(hardware, (list, tuple)) else [hardware]
    texts = [str(env.subst(name)) for name in names if isinstance(name, str)]
    if len(texts) < len(names) or not (texts and all(texts)):
        raise RecipeError(
            f"{setting('hardware', hardware)}: write a name or a list of names, such as "
            f"{literal(['orin_nx', 'rtx_sm89'])}"
        )
    return ",".join(texts)


def chosen(env: Any, argument: str) -> str:
    """A setting: the argument of the command line, else the construction variable."""
    return str(SCons.Script.ARGUMENTS.get(argument) or value_of(env, f"TRT_{argument}"))


def as_given(argument: str) -> str:
    """The name by which the user gave a setting, for messages."""
    return argument if SCons.Script.ARGUMENTS.get(argument) else f"TRT_{argument}"


def value_of(env: Any, name: str) -> str:
    """A construction variable, expanded."""
    value = env.get(name, "")
    if isinstance(value, str) and "$" not in value:
        return value
    return str(env.subst(f"${name}"))


@lru_cache
def below(path: str, top: Path) -> str:
    """The absolute path; a relative one, with or without a leading `#`, is relative to the top."""
    return os.path.abspath(os.path.join(top, path[1:].lstrip("/") if path[:1] == "#" else path))


def _program(program: str, top: Path) -> str:
    """A name without a slash is left to be found in PATH."""
    return below(program, top) if "/" in program and program[0] not in "~" else program


def state_dir(env: Any, top: Path) -> str:
    """The state folder, absolute."""
    return below(value_of(env, "TRT_STATE_DIR"), top)


def report_dir(env: Any, top: Path, state: Path) -> Path:
    """Where `engines-report` writes, absolute."""
    named = chosen(env, "REPORT")
    return Path(below(named, top)) if named else state / "report"


def profile(env: Any, top: Path) -> str:
    """The file of the run's profile, absolute; "" for none."""
    named = chosen(env, "PROFILE")
    return below(named, top) if named else ""


def onnx_python(env: Any, top: Path) -> str:
    """The interpreter for conversions; SCons's own by default."""
    return _program(value_of(env, "TRT_ONNX_PYTHON"), top) or sys.executable


def verify_full(env: Any) -> bool:
    """Whether to hash every file. Raises UserError."""
    verify = chosen(env, "VERIFY")
    if verify not in ("stat", "full"):
        name = as_given("VERIFY")
        raise SCons.Errors.UserError(f"{name}={verify}: write {name}=stat or {name}=full")
    return verify == "full"


def verbose(env: Any) -> bool:
    """Whether to print a line for each reused engine. VERBOSE may also be an argument of the SConstruct,
    so any text but 0, no, off and false means yes."""
    text = str(SCons.Script.ARGUMENTS.get("VERBOSE") or value_of(env, "TRT_VERBOSE"))
    return text.lower() not in ("", "0", "no", "off", "false")


def records_timings() -> bool:
    """Whether this run writes the files of `timing_cache=`. Only the command line says so: a setting that
    stays would replace them again and again."""
    return SCons.Script.ARGUMENTS.get("TIMING") == "record" and not option("clean")


def cache_size(env: Any) -> int:
    """The limit of kept engines, in bytes. Raises UserError."""
    text = chosen(env, "CACHE_SIZE")
    if text in ("", VARIABLES["TRT_CACHE_SIZE"]):  # a null build imports nothing of kept engines
        return 5 << 30
    from ..artifact.kept_engines import cache_size as parse

    try:
        return parse(text, as_given("CACHE_SIZE"))
    except RecipeError as error:
        raise SCons.Errors.UserError(str(error)) from None


def lock_timeout_s(env: Any) -> float | None:
    """Seconds to wait for a lock; None for no limit. Raises UserError."""
    limit_s = seconds("TRT_LOCK_TIMEOUT", value_of(env, "TRT_LOCK_TIMEOUT") or "inf")
    return None if limit_s == float("inf") else limit_s


def seconds(name: str, text: str) -> float:
    """The value of a setting in seconds. Raises UserError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise SCons.Errors.UserError(f"{name}={text}: write seconds, such as 600")
    return value


def signing_key(env: Any, top: Path) -> str:
    """The key that signs manifests: the path of a PEM file, or the PEM itself; "" for none."""
    named = SCons.Script.ARGUMENTS.get("SIGNING_KEY") or value_of(env, SIGNING_KEY)
    return key_path(str(named or os.environ.get(SIGNING_KEY, "")), top)


def key_path(key: str, top: Path) -> str:
    """A signing key: an absolute path, or the PEM itself; "" for none."""
    if not key:
        return ""
    from ..files.signing_keys import is_pem

    return key if is_pem(key) else below(key, top)


def arguments_in(env: Any) -> set[str]:
    """Command-line arguments that the SConstruct reads into construction variables. Ours always have
    a default, so these count only if the values are equal."""
    given = SCons.Script.ARGUMENTS.items()
    return {n for n, v in given if n in env and (not n.startswith("TRT_") or env.get(n) == v)}


def arguments() -> Mapping[str, str]:
    """The NAME=VALUE arguments of the command line."""
    return {name: str(value) for name, value in SCons.Script.ARGUMENTS.items()}


def option(name: str) -> Any:
    """A command-line option of SCons, such as no_exec."""
    return SCons.Script.GetOption(name)


def writes() -> bool:
    """Whether this run may write files: not under -n, -q, -h or -c."""
    return not any(option(name) for name in ("no_exec", "question", "help", "clean"))
