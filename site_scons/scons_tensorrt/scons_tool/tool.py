"""The SCons tool: `Environment(tools=["trt_engines"])`, with what follows the engines: manifests,
installation and `scons engines-prune`. Each of these is imported when it is used."""

from __future__ import annotations

import os
from typing import Any

import SCons.dblite
import SCons.SConsign
import SCons.Script

from ..files.streams import open_standard_streams
from . import remote_settings, settings, store_settings
from .builders import make_builder, make_step_builder
from .call_errors import tool_call, user_call
from .env_engine import Engine, OnnxExport
from .nodes import ALIAS, PRUNE, REPORT
from .session import Session, session_of
from .target import PinnedAction


def EnginesFromFile(env: Any, *args: Any, **kwargs: Any) -> Any:
    """See engines_from_file.py, which is imported on first use."""
    from .engines_from_file import EnginesFromFile

    return EnginesFromFile(env, *args, **kwargs)


@tool_call
def generate(env: Any) -> None:
    """Add the methods, builders and variables of this tool to `env`. Raises UserError."""
    open_standard_streams()
    settings.set_defaults(env, {**store_settings.VARIABLES, **remote_settings.VARIABLES})
    if "TRT_Engine" in env["BUILDERS"]:
        return
    env["BUILDERS"]["TRT_Engine"] = make_builder()
    env["BUILDERS"]["TRT_Onnx"] = make_step_builder()
    for method in (Engine, OnnxExport, EnginesFromFile, EngineManifest, InstallEngines, EpContext):
        env.AddMethod(user_call(method), method.__name__)
    session = session_of(env)
    if not session.helped:
        session.helped = True
        SCons.Script.Help(settings.HELP + store_settings.HELP + remote_settings.HELP)
        _use_own_sconsign_temporary()
        if not os.access(session.top, os.W_OK) and SCons.SConsign.DB_Module is SCons.dblite:
            from . import read_only_tree

            SCons.SConsign.DB_Module = read_only_tree
        env.AlwaysBuild(env.Alias(PRUNE, [], PinnedAction(_prune, "scons-tensorrt prune", _prune)))
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


def EngineManifest(env: Any, target: Any = None, engines: Any = None, bom: Any = True) -> Any:
    """Declare the manifest of `engines` at `target`; returns the nodes of the manifest, its sidecar,
    SHA256SUMS, with a signing key the signed statement, and the bills of materials (CycloneDX, SPDX) unless
    `bom` is False.

    engines: what `env.Engine` returned, or nodes of it; of several kinds of hardware, each has its
    manifest in a folder of its name beside `target`. Raises UserError.
    """
    from .declare_manifest import declare

    return declare(env, _session(env), target, engines, bom)


def InstallEngines(env: Any, folder: Any = None, engines: Any = None, manifest: Any = None) -> Any:
    """Let `scons install` copy `engines`, and their manifest, into `folder`; returns the installed nodes.

    folder: absolute, or relative to the prefix, which install_root=, PREFIX=, prefix= and DESTDIR= set.
    engines: as for `env.EngineManifest`, of several kinds of hardware in folders of their names;
    manifest: what that returned. Raises UserError.
    """
    from .install_engines import declare

    return declare(env, _session(env), folder, engines, manifest)


def EpContext(env: Any, engine: Any = None, target: Any = None, embed: bool = False) -> Any:
    """Declare an ONNX with an EPContext node around an engine, for ONNX Runtime; returns its node.

    engine: what `env.Engine` returned; of several, each has an ONNX. target: default: beside the
    engine, with the suffix `.onnx`; embed: whether the engine is inside the ONNX, instead of beside or below
    it. Raises UserError.
    """
    from .epcontext_target import declare

    return declare(env, _session(env), engine, target, embed)


def _session(env: Any) -> Session:
    session = session_of(env)
    session.bind_settings(env)
    return session


def _prune(target: Any, source: Any, env: Any) -> None:
    from .engines_prune import prune

    prune(env, session_of(env))
