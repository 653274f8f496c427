"""`env.InstallEngines`: copy engines and their manifest into the folder of a package or image.

Unlike SCons's Install, it only copies an engine that is up to date, hashes the copy while it writes
it, and checks an existing copy by its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import SCons.Util

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.sidecar import read_sidecar
from ..errors import EngineError, HandoffError, SidecarError
from . import settings
from .builders import make_handoff_builder, out_of_date
from .engine_target import EngineTarget
from .manifest_target import ManifestTarget, engines_of, place_of, read
from .nodes import EngineFile, OwnFile, target_of
from .onnx_target import OnnxTarget
from .run_files import RunFiles
from .session import Session
from .target import HandoffTarget

ALIAS = "install"
GUARD = "the bytes that were installed"
DEFAULT_PREFIX = "/usr/local"


class _Installed(HandoffTarget):
    def write(self) -> Iterator[str]:
        if not all(map(self.is_right, self.nodes)):  # else only .sconsign was lost
            self._install()
            yield f"INSTALLED {self.label}"

    def _install(self) -> None:
        """Raises EngineError or OSError."""
        raise NotImplementedError

    def preview(self) -> str | None:
        return None if all(map(self.is_right, self.nodes)) else f"WOULD INSTALL {self.label}"


class InstalledFile(_Installed):
    """The copy of an engine."""

    def __init__(self, files: RunFiles, engine: EngineTarget, path: Path) -> None:
        super().__init__(files, path)
        self._engine = engine

    @property
    def sha256(self) -> str | None:
        return self._engine.sha256

    def is_right(self, node: Any) -> bool:
        if not self._engine.current:
            return False
        try:
            if node is self.nodes[0]:
                return self._files.digest_cache.sha256(self.path, follow=False) == self.sha256
            return read_sidecar(self.path) == self.sha256
        except (OSError, SidecarError):
            return False

    def _install(self) -> None:
        if not self._engine.current or self.sha256 is None:
            raise HandoffError(f"{self._engine.label} is out of date; run `scons engines`")
        from ..release.install_files import install_engine

        install_engine(self._engine.path, self.path, self.sha256)


class InstalledRecorded(_Installed):
    """The copy of what is recorded beside an engine."""

    def __init__(self, files: RunFiles, recorded: OnnxTarget, path: Path) -> None:
        super().__init__(files, path)
        self._recorded = recorded

    @property
    def sha256(self) -> str | None:
        return self._recorded.sha256

    def is_right(self, node: Any) -> bool:
        try:
            return self._files.digest_cache.sha256(self.path, follow=False) == self.sha256
        except OSError:
            return False

    def _install(self) -> None:
        if self.sha256 is None:
            raise HandoffError(f"{self._recorded.label} is out of date; run `scons engines`")
        from ..release.install_files import install_file

        install_file(self._recorded.path, self.path, self.sha256)


class InstalledManifest(_Installed):
    """The copy of a manifest and its files. envelope: whether these include a signed statement."""

    def __init__(self, files: RunFiles, listed: ManifestTarget, folder: Path, envelope: bool) -> None:
        super().__init__(files, folder / listed.path.name)
        self._listed = listed
        self._envelope = envelope

    def _contents(self) -> dict[str, bytes]:
        """Raises EngineError."""
        found = dict(self._listed.contents())
        if self._envelope and not self._listed.signed:
            foreign = self._listed.foreign_envelope()
            data = read(self._listed.envelope)
            if foreign or data is None:
                raise HandoffError(foreign or f"{self._listed.envelope.name} is not readable")
            found[self._listed.envelope.name] = data
        return found

    def _data(self, name: str) -> bytes:
        """Raises EngineError."""
        other = next((each for each in self._listed.beside if name in each.names), None)
        return other.data(name) if other else self._contents()[name]

    def is_right(self, node: Any) -> bool:
        try:
            return self._listed.ready() and read(Path(node.get_abspath())) == self._data(node.name)
        except (EngineError, OSError):
            return False  # the action reports it

    def _install(self) -> None:
        from ..release.install_files import install_bytes

        contents = {node.name: self._data(node.name) for node in self.nodes}
        for name, data in reversed(contents.items()):  # the manifest last: it lists the others
            path = self.path.with_name(name)
            if read(path) != data:
                install_bytes(path, data)


def declare(env: Any, session: Session, folder: Any, engines: Any, manifest: Any) -> Any:
    """Declare the installed nodes, in the alias `install`. Raises EngineError."""
    groups = engines_of(engines)
    manifests = _manifests(manifest)
    written = os.fspath(env.subst(folder)) if isinstance(folder, (str, os.PathLike)) else ""
    root = Path(settings.below(installed_path(written, settings.arguments()), session.top))
    nodes: list[Any] = []
    for kind, found in groups.items():
        where = place_of(root, kind, len(groups))
        for engine in found:
            path = where / engine.path.name
            targets = [env.fs.File(str(path)), env.fs.File(f"{path}{SIDECAR_SUFFIX}")]
            copied = InstalledFile(session.files, engine, path)
            nodes += _declare(env, session, targets, list(engine.nodes), copied, EngineFile)
            if engine.recorded:
                beside = where / engine.recorded.path.name
                put = InstalledRecorded(session.files, engine.recorded, beside)
                made = [env.fs.File(str(beside))]
                nodes += _declare(env, session, made, [engine.recorded.target], put, EngineFile)
        if manifest is not None:
            nodes += _declare_manifest(env, session, where, found, manifests)
    env.Alias(ALIAS, nodes)
    return nodes


def _manifests(manifest: Any) -> list[ManifestTarget]:
    """The manifests that the nodes belong to. Raises HandoffError."""
    found: list[ManifestTarget] = []
    for node in SCons.Util.flatten(manifest) if manifest is not None else ():
        listed = target_of(node)
        listed = getattr(listed, "listed", listed)  # of a bill of materials or a model signature
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
    sources = [*listed.nodes]
    envelope = listed.signed or os.path.lexists(listed.envelope)
    if envelope and not listed.signed:
        sources.append(env.fs.File(str(listed.envelope)))
    sources += [node for each in listed.beside for node in each.nodes]
    targets = [env.fs.File(str(where / node.name)) for node in sources]
    copied = InstalledManifest(session.files, listed, where, envelope)
    return _declare(env, session, targets, sources, copied)


def _declare(
    env: Any,
    session: Session,
    targets: list[Any],
    sources: list[Any],
    copied: _Installed,
    kind: type[OwnFile] = OwnFile,
) -> list[Any]:
    # A copy: no version of this code changes its bytes.
    made = make_handoff_builder("scons-tensorrt install")(env, targets, sources)
    copied.connect(made, [session.value(env, GUARD, out_of_date)], kind)
    return list(made)


def installed_path(folder: str, arguments: Mapping[str, str]) -> str:
    """The path at which `folder` is installed.

    arguments: of the command line. Reads install_root, PREFIX or prefix, and DESTDIR, as OpenEmbedded's
    scons.bbclass and the GNU conventions define them. A relative folder is below the prefix:

        >>> installed_path("share/engines", {"install_root": "/image/usr", "PREFIX": "/usr"})
        '/image/usr/share/engines'
        >>> installed_path("share/engines", {"DESTDIR": "/target", "PREFIX": "/usr"})
        '/target/usr/share/engines'
        >>> installed_path("/opt/engines", {"install_root": "/image/usr", "PREFIX": "/usr", "prefix": "/usr"})
        '/image/opt/engines'

    Raises HandoffError.
    """
    if not folder or ".." in folder.split("/"):
        raise HandoffError(f"folder {folder!r}: use a folder inside the installation prefix")
    prefix, root = _prefix(arguments), arguments.get("install_root", "")
    destination = arguments.get("DESTDIR", "")
    if not os.path.isabs(folder):
        whole = root or (_below(destination, prefix) if destination else prefix)
        return os.path.normpath(os.path.join(whole, folder))
    if not destination and root:
        inner = os.path.normpath(prefix)
        if not os.path.normpath(root).endswith(inner):
            raise HandoffError(
                f"install_root={root} does not end in PREFIX={prefix}, so the location of the "
                f"absolute {folder} is unknown; set DESTDIR= too"
            )
        destination = os.path.normpath(root)[: -len(inner)] or "/"
    return _below(destination, folder) if destination else os.path.normpath(folder)


def _prefix(arguments: Mapping[str, str]) -> str:
    upper, lower = arguments.get("PREFIX", ""), arguments.get("prefix", "")
    if upper and lower and upper != lower:
        raise HandoffError(f"PREFIX={upper} and prefix={lower} differ; set only one")
    return upper or lower or DEFAULT_PREFIX


def _below(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path.lstrip("/")))
