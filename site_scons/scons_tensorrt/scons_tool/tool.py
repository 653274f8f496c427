"""The SCons tool: `Environment(tools=["trt_engines"])`."""

from __future__ import annotations

import os
from typing import Any

import SCons.dblite
import SCons.Script

from . import remote_settings, settings
from .builders import make_builder, make_step_builder
from .calls import user_call
from .env_engine import Engine, OnnxExport
from .nodes import ALIAS, REPORT
from .release_methods import EngineManifest, InstallEngines, declare_prune
from .session import session_of


@user_call
def generate(env: Any) -> None:
    """Give `env` the method Engine, its builder and its variables; raises UserError."""
    settings.set_defaults(env, remote_settings.VARIABLES)
    if "TRT_Engine" in env["BUILDERS"]:
        return
    env["BUILDERS"]["TRT_Engine"] = make_builder()
    env["BUILDERS"]["TRT_Onnx"] = make_step_builder()
    env.AddMethod(user_call(Engine), "Engine")
    env.AddMethod(user_call(OnnxExport), "OnnxExport")
    env.AddMethod(user_call(EngineManifest), "EngineManifest")
    env.AddMethod(user_call(InstallEngines), "InstallEngines")
    session = session_of(env)
    if not session.helped:
        session.helped = True
        SCons.Script.Help(settings.HELP + remote_settings.HELP)
        _own_record()
        declare_prune(env)
        env.Alias(REPORT, env.Alias(ALIAS))
    env.Alias(ALIAS)  # else `scons engines` means the folder when no engine is declared


def _own_record() -> None:
    """Let two scons in one tree not write their record through one temporary file: one of them
    would end with an error, its engines all made."""
    for name in ("TMP_SUFFIX", "tmp_suffix"):
        if hasattr(SCons.dblite, name):
            setattr(SCons.dblite, name, f".{os.getpid()}.tmp")


def exists(env: Any) -> bool:
    """SCons asks whether the tool can be used; what it lacks is told when an engine is built."""
    return True
