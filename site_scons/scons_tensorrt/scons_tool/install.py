"""`env.InstallEngines`: copy engines and their manifest into the folder of a package or image.

Unlike SCons's Install, it only copies an engine that is up to date, hashes the copy while it writes
it, and checks an existing copy by its bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import SCons.Builder
import SCons.Node
import SCons.Util

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.sidecar import read_sidecar
from ..errors import EngineError, HandoffError, SidecarError
from ..release.install import install_bytes, install_engine, place
from . import settings
from .engine_target import EngineTarget
from .file_nodes import EngineFile, sign
from .manifest import engines_of, fail, place_of
from .manifest_target import ManifestTarget, read
from .pinned_action import PinnedAction
from .session import Session, session_of

ALIAS = "install"
GUARD = "the bytes that were installed"


class InstalledFile:
    """The copy of an engine."""

    def __init__(self, session: Session, engine: EngineTarget, path: Path) -> None:
        self._digest_cache = session.digest_cache
        self._engine = engine
        self.path = path
        self.label = session.state.relative(path)

    @property
    def sha256(self) -> str | None:
        return self._engine.sha256

    def right(self, path: Path) -> bool:
        """Whether the copy, or its sidecar, is up to date."""
        if not self._engine.current:
            return False
        try:
            if path == self.path:
                return self._digest_cache.sha256(path, follow=False) == self.sha256
            return read_sidecar(self.path) == self.sha256
        except (OSError, SidecarError):
            return False

    def install(self) -> None:
        """Raises EngineError or OSError."""
        if not self._engine.current or self.sha256 is None:
            raise HandoffError(f"{self._engine.label} is out of date; run `scons engines`")
        install_engine(self._engine.path, self.path, self.sha256)


class InstalledManifest:
    """The copy of a manifest and its files. envelope: whether these include a signed statement."""

    def __init__(self, session: Session, listed: ManifestTarget, folder: Path, envelope: bool) -> None:
        self._listed = listed
        self._folder = folder
        self._envelope = envelope
        self.label = session.state.relative(folder / listed.path.name)

    def contents(self) -> dict[str, bytes]:
        """Raises EngineError."""
        found = dict(self._listed.contents())
        if self._envelope and not self._listed.signed:
            foreign = self._listed.foreign_envelope()
            data = read(self._listed.envelope)
            if foreign or data is None:
                raise HandoffError(foreign or f"{self._listed.envelope.name} is not readable")
            found[self._listed.envelope.name] = data
        return found

    def right(self, path: Path) -> bool:
        try:
            return self._listed.ready() and read(path) == self.contents()[path.name]
        except (EngineError, OSError):
            return False  # the action reports it

    def install(self) -> None:
        """Install the manifest last: it lists the others. Raises EngineError or OSError."""
        for name, data in reversed(self.contents().items()):
            if not self.right(self._folder / name):
                install_bytes(self._folder / name, data)


def declare(env: Any, session: Session, folder: Any, engines: Any, manifest: Any) -> Any:
    """Declare the installed nodes, in the alias `install`. Raises EngineError."""
    groups = engines_of(engines)
    manifests = _manifests(manifest)
    written = os.fspath(env.subst(folder)) if isinstance(folder, (str, os.PathLike)) else ""
    root = Path(settings.below(place(written, settings.arguments()), session.top))
    nodes: list[Any] = []
    for kind, found in groups.items():
        where = place_of(root, kind, len(groups))
        for engine in found:
            path = where / engine.path.name
            targets = [env.fs.File(str(path)), env.fs.File(f"{path}{SIDECAR_SUFFIX}")]
            nodes += _declare(env, session, targets, list(engine.pair), InstalledFile(session, engine, path))
            sign(targets[0], EngineFile)
        if manifest is not None:
            nodes += _declare_manifest(env, session, where, found, manifests)
    env.Alias(ALIAS, nodes)
    return nodes


def _manifests(manifest: Any) -> list[ManifestTarget]:
    """The manifests that the nodes belong to. Raises HandoffError."""
    found: list[ManifestTarget] = []
    for node in SCons.Util.flatten(manifest) if manifest is not None else ():
        listed = getattr(getattr(node, "attributes", None), "trt_manifest", None)
        if not isinstance(listed, ManifestTarget):
            raise HandoffError(f"manifest {node!s}: give what env.EngineManifest returned")
        if listed not in found:
            found.append(listed)
    return found


def _declare_manifest(
    env: Any, session: Session, where: Path, engines: list[EngineTarget], manifests: list[ManifestTarget]
) -> list[Any]:
    listed = next((each for each in manifests if each.engines == engines), None)
    if listed is None:
        names = {engine.path for engine in engines}
        odd = {each.path.name for one in manifests for each in one.engines if each.path not in names}
        odd |= {path.name for path in names - {e.path for one in manifests for e in one.engines}}
        raise HandoffError(
            f"the manifest is of other engines ({', '.join(sorted(odd))}); a device would refuse it"
        )
    sources = [listed.path, listed.sidecar, listed.sums]
    envelope = listed.signed or os.path.lexists(listed.envelope)
    sources += [listed.envelope] if envelope else []
    targets = [env.fs.File(str(where / path.name)) for path in sources]
    copied = InstalledManifest(session, listed, where, envelope)
    return _declare(env, session, targets, [env.fs.File(str(path)) for path in sources], copied)


def _declare(
    env: Any,
    session: Session,
    targets: list[Any],
    sources: list[Any],
    copied: InstalledFile | InstalledManifest,
) -> list[Any]:
    if "TRT_Install" not in env["BUILDERS"]:
        env["BUILDERS"]["TRT_Install"] = make_builder()
    made = env.TRT_Install(targets, sources)
    guard = session.value(env, GUARD, uninstalled)
    for each in made:
        each.attributes.trt_engine = each.attributes.trt_copied = copied
        each.add_dependency([guard])
        each.set_precious(True)
        each.set_nocache(True)
    return list(made)


def uninstalled(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider: whether an installed file is out of date. SCons calls it again after a build."""
    if target.get_state() > SCons.Node.executing:
        return False
    copied: InstalledFile | InstalledManifest = target.attributes.trt_copied
    path = Path(target.get_abspath())
    if copied.right(path):
        return False
    if settings.writes():
        session_of(target.get_build_env()).make_folder(path)
    return True


def install(target: Any, source: Any, env: Any) -> None:
    """The action. Raises BuildError."""
    copied: InstalledFile | InstalledManifest = target[0].attributes.trt_copied
    session = session_of(env)
    if all(copied.right(Path(node.get_abspath())) for node in target):
        return  # only .sconsign was lost
    try:
        copied.install()
    except (EngineError, OSError) as error:
        fail(session, target, copied.label, error)
    session.report.console.line(f"INSTALLED {copied.label}")


def describe(target: Any, source: Any, env: Any) -> str:
    """The text that SCons prints before the action: none; under -n, print what would be done."""
    copied: InstalledFile | InstalledManifest = target[0].attributes.trt_copied
    if settings.option("no_exec") and not all(copied.right(Path(n.get_abspath())) for n in target):
        session_of(env).report.console.line(f"WOULD INSTALL {copied.label}")
    return ""


def make_builder() -> Any:
    """The builder behind `env.InstallEngines`."""
    # A copy: no version of this code changes its bytes.
    action = PinnedAction(install, describe, "scons-tensorrt install")
    return SCons.Builder.Builder(action=action)
