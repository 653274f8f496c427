"""What a user can set, and where it is looked for: command line, then construction variable.

A construction variable that the SConstruct leaves unset comes from the process environment.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import SCons.Errors
import SCons.Script

from ..artifact.state import DEFAULT as STATE_DIR
from ..errors import RecipeError

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
    "TRT_STORE": "",
    "TRT_STORE_MODE": "read",
    "TRT_STORE_TRUST": "",
    "TRT_STORE_REFUSALS": "use",
    "TRT_STORE_WAIT": "600",
    "TRT_STORE_PATIENCE": "10",
    "TRT_STORE_TIMEOUT": "60",
    "TRT_ENGINECOMSTR": "",
    "TRT_BUILDER_ID": "",
}
SIGNING_KEY = "TRT_SIGNING_KEY"  # a secret: it goes from the environment into no construction variable
# What is read from the command line, beside what many tools read: PREFIX and the like.
ARGUMENTS = (
    *("HARDWARE", "BACKEND", "VERIFY", "ENGINE_DIR", "REPORT", "JETPACK", "SIGNING_KEY"),
    *("STORE", "STORE_MODE", "STORE_KEY", "STORE_TRUST", "STORE_REFUSALS", "STORE_WAIT"),
    *("STORE_PATIENCE", "DISPATCH", "DISPATCH_CERTIFICATES", "DISPATCH_WAIT"),
    *("PRUNE", "KEEP", "OLDER"),
)
HELP = """
TensorRT engines (scons-tensorrt):
  scons engines         build every engine, or reuse it; `scons -c engines` removes them
  scons engines-report  the same, and a page of what was done: .trt/report/index.html
  HARDWARE=NAME         hardware/NAME.json, a path of such a file, or a built-in:
                        rtx_portable (when no NVIDIA GPU is found),
                        rtx_sm75, rtx_sm80, rtx_sm86, rtx_sm89, rtx_sm120, rtx_sm121;
                        several, as in HARDWARE=orin_nx,rtx_sm89, in one run
  BACKEND=NAME          tensorrt or tensorrt_rtx; default: what the hardware says
  VERIFY=stat|full      stat (default) believes an unchanged stat; full hashes every file
  ENGINE_DIR=DIR        where engines go; default: engines
  REPORT=DIR            where engines-report writes; default: .trt/report
  JETPACK=X.Y           the JetPack of a Jetson whose L4T release does not say it
  STORE=URL             what the team made once: file:///…, s3://…, gs://… or az://…; default: none
  STORE_MODE=read|write write (CI) also gives it what is made here, signed with STORE_KEY=FILE
  STORE_TRUST=FILES     public keys whose engines are taken: files, or folders of *.pub
  STORE_REFUSALS=ignore compile what the store says cannot be
  scons engines-prune   list what no declared engine and no hardware in hardware/ wants; PRUNE=yes
                        deletes it, KEEP=N but the last N of each, OLDER=DAYS only what is older
  scons install         what env.InstallEngines names, below install_root= or DESTDIR= and PREFIX=
  SIGNING_KEY=FILE      an Ed25519 private key, PEM: manifests are signed
The same in the environment or as construction variables: TRT_HARDWARE, TRT_BACKEND,
TRT_VERIFY, TRT_ENGINE_DIR, TRT_STORE, TRT_STORE_MODE, TRT_STORE_KEY, TRT_STORE_TRUST,
TRT_STORE_REFUSALS, TRT_REPORT; and TRT_STATE_DIR (default .trt), TRT_PYTHON (the interpreter that
has TensorRT), TRT_ONNX_PYTHON (the one that has onnx and onnxruntime, for conversions),
TRT_LOCK_TIMEOUT (seconds to wait for another process; default: for ever), TRT_STORE_WAIT (seconds
for giving to the store at the end; default: 600), TRT_STORE_PATIENCE (seconds for its next byte;
default: 10), TRT_STORE_TIMEOUT (seconds for one of its operations, and one more for each MB;
default: 60), TRT_ENGINECOMSTR (a line to print before each engine's action), TRT_SIGNING_KEY (a
file, or the PEM itself), TRT_BUILDER_ID (a URI that says in signed statements who builds).
"""


class Settings(NamedTuple):
    """The settings of one environment for one kind of hardware; equal settings share it.

    alone: whether that is the only kind that was asked for.
    """

    hardware: str
    backend: str
    jetpack: str
    python: str
    engine_dir: str
    alone: bool = True

    @property
    def folder(self) -> str:
        """Where an engine is said to be whose hardware is not known: each kind has its own."""
        stem = os.path.basename(self.hardware).removesuffix(".json")
        name = "" if self.alone else re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".")
        return os.path.join(self.engine_dir, name) if name else self.engine_dir


def set_defaults(env: Any, more: Mapping[str, str]) -> None:
    """Give the construction variables their defaults; a user's earlier value stays."""
    env.SetDefault(
        **{name: os.environ.get(name) or default for name, default in {**VARIABLES, **more}.items()}
    )


def read(env: Any, top: Path, hardware: Any = None) -> tuple[Settings, ...]:
    """The settings for engines of `env`, for each kind of hardware; paths are below `top` unless they
    are absolute.

    hardware: what the call names, one or a list: the command line alone wins over it. Raises
    RecipeError.
    """

    def chosen(argument: str) -> str:
        return str(SCons.Script.ARGUMENTS.get(argument) or value_of(env, f"TRT_{argument}"))

    named = str(SCons.Script.ARGUMENTS.get("HARDWARE") or _named(env, hardware))
    return _settings(
        named or value_of(env, "TRT_HARDWARE"),
        chosen("BACKEND"),
        str(SCons.Script.ARGUMENTS.get("JETPACK", "")),
        value_of(env, "TRT_PYTHON"),
        chosen("ENGINE_DIR"),
        top,
    )


@lru_cache  # for thousands of engines they are the same
def _settings(
    hardware: str, backend: str, jetpack: str, python: str, engine_dir: str, top: Path
) -> tuple[Settings, ...]:
    names = list(dict.fromkeys(name.strip() for name in hardware.split(",")))
    if len(names) > 1 and "" in names:
        raise RecipeError(f"HARDWARE={hardware}: there is no name at one of its commas; leave that out")
    rest = backend, jetpack, _program(python, top), below(engine_dir, top), len(names) == 1
    return tuple(Settings(name, *rest) for name in names)


def _named(env: Any, hardware: Any) -> str:
    """What `hardware=` of a call names, as it stands after HARDWARE=."""
    if hardware is None:
        return ""
    names = hardware if isinstance(hardware, (list, tuple)) else [hardware]
    texts = [str(env.subst(name)) for name in names if isinstance(name, str)]
    if len(texts) < len(names) or not (texts and all(texts)):
        raise RecipeError(
            f"hardware={hardware!r}: write a name or a list of names, such as ['orin_nx', 'rtx_sm89']"
        )
    return ",".join(texts)


def value_of(env: Any, name: str) -> str:
    """A construction variable with what it refers to; most refer to nothing."""
    value = env.get(name, "")
    if isinstance(value, str) and "$" not in value:
        return value
    return str(env.subst(f"${name}"))


@lru_cache
def below(path: str, top: Path) -> str:
    """A path as SCons reads it: absolute, or below the top with or without a leading `#`."""
    return os.path.abspath(os.path.join(top, path[1:].lstrip("/") if path[:1] == "#" else path))


def _program(program: str, top: Path) -> str:
    """A command name is looked up in PATH; anything with a slash is a path."""
    return below(program, top) if "/" in program and program[0] not in "~" else program


def state_dir(env: Any, top: Path) -> str:
    """The state folder, absolute."""
    return below(value_of(env, "TRT_STATE_DIR"), top)


def report_dir(env: Any, top: Path, state: Path) -> Path:
    """Where `engines-report` writes, absolute."""
    chosen = str(SCons.Script.ARGUMENTS.get("REPORT") or value_of(env, "TRT_REPORT"))
    return Path(below(chosen, top)) if chosen else state / "report"


def onnx_python(env: Any, top: Path) -> str:
    """The interpreter that converts; SCons's own unless another is named."""
    return _program(value_of(env, "TRT_ONNX_PYTHON"), top) or sys.executable


def verify_full(env: Any) -> bool:
    """Whether every file is to be hashed. Raises UserError."""
    verify = str(SCons.Script.ARGUMENTS.get("VERIFY") or value_of(env, "TRT_VERIFY"))
    if verify not in ("stat", "full"):
        raise SCons.Errors.UserError(f"VERIFY={verify}: write VERIFY=stat or VERIFY=full")
    return verify == "full"


def lock_timeout_s(env: Any) -> float | None:
    """Seconds to wait for a lock, None for ever. Raises UserError."""
    seconds = _seconds("TRT_LOCK_TIMEOUT", value_of(env, "TRT_LOCK_TIMEOUT") or "inf")
    return None if seconds == float("inf") else seconds


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise SCons.Errors.UserError(f"{name}={text}: write seconds, such as 600")
    return seconds


class StoreSettings(NamedTuple):
    """url: "" for no store; key: a path, or the PEM itself; trust: paths; wait_s: seconds for giving
    at the end of a run; patience_s: seconds for the server's next byte; timeout_s: seconds
    for a whole operation, and one more for each MB."""

    url: str = ""
    writes: bool = False
    key: str = ""
    trust: tuple[str, ...] = ()
    refusals: bool = True
    wait_s: float = 600.0
    patience_s: float = 10.0
    timeout_s: float = 60.0


def store(env: Any, top: Path) -> StoreSettings:
    """The team's store. Raises UserError."""

    def chosen(argument: str) -> str:
        return str(SCons.Script.ARGUMENTS.get(argument) or value_of(env, f"TRT_{argument}"))

    url = chosen("STORE")
    if not url:
        return StoreSettings()
    # A secret that the environment holds gets into no construction variable, which env.Dump() prints.
    key = chosen("STORE_KEY") or os.environ.get("TRT_STORE_KEY", "")
    return _store(url, key, *map(chosen, _STORE), top)


_STORE = ("STORE_MODE", "STORE_TRUST", "STORE_REFUSALS", "STORE_WAIT", "STORE_PATIENCE", "STORE_TIMEOUT")
_SCHEMES = ("file:///", "s3://", "gs://", "az://")


@lru_cache
def _store(
    url: str,
    key: str,
    mode: str,
    trust: str,
    refusals: str,
    wait: str,
    patience: str,
    timeout: str,
    top: Path,
) -> StoreSettings:
    if not url.startswith(_SCHEMES):
        raise SCons.Errors.UserError(f"STORE={url}: write file:///FOLDER, s3://…, gs://… or az://…")
    for name, text, known in (
        ("STORE_MODE", mode, ("read", "write")),
        ("STORE_REFUSALS", refusals, ("use", "ignore")),
    ):
        if text not in known:
            raise SCons.Errors.UserError(f"{name}={text}: write {name}={known[0]} or {name}={known[1]}")
    if mode == "write" and not key:
        raise SCons.Errors.UserError(
            "STORE_MODE=write needs STORE_KEY=FILE; `python3 -m scons_tensorrt keygen FILE` makes one"
        )
    if key and not key.startswith("-----BEGIN"):
        key = below(key, top)
    places = tuple(below(place, top) for place in trust.split(os.pathsep) if place)
    waits = {"STORE_WAIT": wait, "STORE_PATIENCE": patience, "STORE_TIMEOUT": timeout}
    seconds = [_seconds(name, text) for name, text in waits.items()]
    return StoreSettings(url, mode == "write", key, places, refusals == "use", *seconds)


def signing_key(env: Any, top: Path) -> str:
    """What signs manifests: a PEM file's path, or, from the environment, the PEM itself; "" where none
    is named."""
    named = SCons.Script.ARGUMENTS.get("SIGNING_KEY") or value_of(env, SIGNING_KEY)
    key = str(named or os.environ.get(SIGNING_KEY, ""))
    return key if not key or "\n" in key or key.startswith("-----") else below(key, top)


def builder_id(env: Any) -> str:
    """Who builds, as a URI; "" for nobody in particular."""
    return value_of(env, "TRT_BUILDER_ID")


def arguments_in(env: Any) -> set[str]:
    """Names of the command line that are construction variables too: Variables, or Environment's own
    arguments, took them from there. Ours have defaults, so of these the value tells."""
    given = SCons.Script.ARGUMENTS.items()
    return {n for n, v in given if n in env and (not n.startswith("TRT_") or env.get(n) == v)}


def arguments() -> Mapping[str, str]:
    """Of the command line."""
    return {name: str(value) for name, value in SCons.Script.ARGUMENTS.items()}


def option(name: str) -> Any:
    """A command-line option of SCons, such as no_exec."""
    return SCons.Script.GetOption(name)


def writes() -> bool:
    """Whether this run may write anything of ours: not under -n, -q, -h or -c."""
    return not any(option(name) for name in ("no_exec", "question", "help", "clean"))
