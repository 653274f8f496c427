"""After the engines: `env.EngineManifest`, `env.InstallEngines` and `scons engines-prune`.

Each is imported when it is used: a run that hands nothing on pays for none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import SCons.Errors

from ..errors import EngineError
from .nodes import PRUNE
from .pinned_action import PinnedAction
from .session import session_of

if TYPE_CHECKING:
    from .session import Session


def EngineManifest(env: Any, target: Any = None, engines: Any = None) -> Any:
    """Declare the manifest of `engines` at `target`; returns the nodes of the manifest, its sidecar,
    SHA256SUMS, and, where there is a signing key, the signed statement.

    engines: what `env.Engine` returned, or nodes of it; of several kinds of hardware, each has its
    manifest in a folder of its name beside `target`. Raises UserError.
    """
    from .manifest import declare

    try:
        return declare(env, _session(env), target, engines)
    except EngineError as error:
        raise SCons.Errors.UserError(f"EngineManifest {target!s}: {error}") from None


def InstallEngines(env: Any, folder: Any = None, engines: Any = None, manifest: Any = None) -> Any:
    """Declare that `scons install` brings `engines`, and the manifest of them, into `folder`; returns
    the installed nodes.

    folder: relative to the prefix, or absolute; where both lie, install_root=, PREFIX=, prefix= and
    DESTDIR= say. engines: as for `env.EngineManifest`, of several kinds of hardware in folders of their
    names; manifest: what it returned. Raises UserError.
    """
    from .install import declare

    try:
        return declare(env, _session(env), folder, engines, manifest)
    except EngineError as error:
        raise SCons.Errors.UserError(f"InstallEngines {folder!s}: {error}") from None


def _session(env: Any) -> Session:
    session = session_of(env)
    session.bind_settings(env)
    return session


def declare_prune(env: Any) -> None:
    """The alias `engines-prune`."""
    alias = env.Alias(PRUNE, [], PinnedAction(_prune, _would_prune, "scons-tensorrt prune"))
    env.AlwaysBuild(alias)


def _prune(target: Any, source: Any, env: Any) -> None:
    from .prune import prune

    prune(env, session_of(env))


def _would_prune(target: Any, source: Any, env: Any) -> str:
    from . import settings

    if settings.option("no_exec"):
        _prune(target, source, env)
    return ""
