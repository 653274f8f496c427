"""The SCons tool: `Environment(tools=["trt_engines"])`."""

from __future__ import annotations

import os
from typing import Any

import SCons.dblite
import SCons.Script

from ..files.streams import open_standard_streams
from . import remote_settings, settings, store_settings
from .builders import make_builder, make_step_builder
from .calls import user_call
from .env_engine import Engine, OnnxExport
from .nodes import ALIAS, REPORT
from .release_methods import EngineManifest, InstallEngines, declare_prune
from .session import session_of


def EnginesFromFile(env: Any, *args: Any, **kwargs: Any) -> Any:
    """See engines_from_file.py, which is imported on first use."""
    from .engines_from_file import EnginesFromFile

    return EnginesFromFile(env, *args, **kwargs)


@user_call
def generate(env: Any) -> None:
    """Add the methods, builders and variables of this tool to `env`. Raises UserError."""
    open_standard_streams()
    settings.set_defaults(env, {**store_settings.VARIABLES, **remote_settings.VARIABLES})
    if "TRT_Engine" in env["BUILDERS"]:
        return
    env["BUILDERS"]["TRT_Engine"] = make_builder()
    env["BUILDERS"]["TRT_Onnx"] = make_step_builder()
    env.AddMethod(user_call(Engine), "Engine")
    env.AddMethod(user_call(OnnxExport), "OnnxExport")
    env.AddMethod(user_call(EnginesFromFile), "EnginesFromFile")
    env.AddMethod(user_call(EngineManifest), "EngineManifest")
    env.AddMethod(user_call(InstallEngines), "InstallEngines")
    session = session_of(env)
    if not session.helped:
        session.helped = True
        SCons.Script.Help(settings.HELP + store_settings.HELP + remote_settings.HELP)
        _use_own_sconsign_temporary()
        declare_prune(env)
        env.Alias(REPORT, env.Alias(ALIAS))
    env.Alias(ALIAS)  # without engines, `scons engines` would mean the folder


def _use_own_sconsign_temporary() -> None:
    """Give each process its own temporary file for .sconsign: two scons in one tree share it, and one
    would fail after it has built its engines."""
    for name in ("TMP_SUFFIX", "tmp_suffix"):
        if hasattr(SCons.dblite, name):
            setattr(SCons.dblite, name, f".{os.getpid()}.tmp")


def exists(env: Any) -> bool:
    """Always true: a missing dependency is reported when an engine is built."""
    return True
