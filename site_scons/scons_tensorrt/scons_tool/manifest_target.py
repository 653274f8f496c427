"""The manifest of engines as targets; declare_manifest.py declares them.

Its sources are the sidecars, which are small; what engines are is known of them by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Util

from ..artifact.sidecar import sidecar_bytes
from ..errors import EngineError, HandoffError, plural
from ..files.reading import read_small
from ..files.writing import write_atomic
from ..hardware.signature import DEVICE_CLASS, HARD
from ..release import files_of
from .engine_target import EngineTarget
from .nodes import target_of
from .run_files import RunFiles
from .target import HandoffTarget

if TYPE_CHECKING:
    from ..files.signing_keys import SigningKey
    from ..release.manifest import Manifest, ManifestEntry
    from .target import Beside


class ManifestTarget(HandoffTarget):
    """One manifest. engines: in the order of their names; key: of the signature, "" for none."""

    opens = False

    def __init__(
        self, files: RunFiles, path: Path, engines: list[EngineTarget], builder: str, key: str
    ) -> None:
        super().__init__(files, path)
        self.engines = engines
        self.sidecar, self.sums, self.envelope = map(path.with_name, files_of(path.name))
        self._builder, self._key = builder, key
        self._signing_key: SigningKey | None = None
        self._contents: dict[str, bytes] | None = None
        self.beside: list[Beside] = []  # what describes its engines further

    @property
    def signed(self) -> bool:
        return bool(self._key)

    def reset(self) -> None:
        super().reset()
        self._contents = None

    def ready(self) -> bool:
        """Whether every engine, and what is recorded beside it, is up to date."""
        recorded = (engine.recorded for engine in self.engines)
        return all(engine.current for engine in self.engines) and all(r is None or r.sha256 for r in recorded)

    def contents(self) -> dict[str, bytes]:
        """The contents of each file by name. Raises EngineError."""
        if self._contents is None:
            from ..release.manifest import digest

            manifest = self.manifest()
            data = manifest.dump()
            files = {
                self.path.name: data,
                self.sidecar.name: sidecar_bytes(digest(data)),
                self.sums.name: manifest.sums(),
            }
            if self._key:
                files[self.envelope.name] = self._sign(manifest, data)
            self._contents = files
        return self._contents

    def manifest(self) -> Manifest:
        """The manifest of the engines as this run checked or built them. Raises EngineError."""
        from ..release.manifest import Manifest

        hardware = self.engines[0].hardware
        entries = {engine.path.name: _entry(engine) for engine in self.engines}
        return Manifest(hardware.name if hardware else None, entries)

    def signing_key(self) -> SigningKey:
        """Raises SigningError."""
        from ..files.signing_keys import load_signing_key

        self._signing_key = self._signing_key or load_signing_key(self._key)
        return self._signing_key

    def _sign(self, manifest: Manifest, data: bytes) -> bytes:
        from ..release.manifest_signature import BUILDER, sign_statement, statement

        payload = statement(manifest, self.path.name, data, self._builder or BUILDER)
        return sign_statement(payload, self.signing_key())

    def is_right(self, node: Any) -> bool:
        try:
            return self.ready() and self._is_written(node.name)
        except (EngineError, OSError):
            return False  # the action reports it

    def _is_written(self, name: str) -> bool:
        """Whether the file of this name is up to date. Raises EngineError."""
        return read(self.path.with_name(name)) == self.contents()[name]

    def write(self) -> Iterator[str]:
        why = self.reason()
        wrong = [name for name in self.contents() if not self._is_written(name)]
        for name in reversed(wrong):  # the manifest last: it lists the others
            write_atomic(self.path.with_name(name), self.contents()[name])
        if wrong:
            yield f"WROTE {self.label} ({plural(len(self.engines), 'engine')}) because {why}"
        foreign = None if self.signed else self.foreign_envelope()
        if foreign:
            yield f"engines: {foreign}"

    def preview(self) -> str | None:
        if self.ready() and all(map(self._is_written, self.contents())):
            return None
        return f"WOULD WRITE {self.label} because {self.reason()}"

    def reason(self) -> str:
        """Why the manifest is written. Raises EngineError."""
        from ..release.manifest import Manifest

        if not self.ready():
            return "its engines would be built first"
        there = read(self.path)
        if there is None:
            return "not written before"
        try:
            before, now = Manifest.load(there).engines, self.manifest().engines
        except EngineError:
            return "the file there is not a manifest"
        changed = [
            *(f"{name} added" for name in now if name not in before),
            *(f"{name} removed" for name in before if name not in now),
            *(f"{name} changed" for name in now if name in before and now[name] != before[name]),
        ]
        if not changed and [n for n in self.contents() if not self._is_written(n)] == [self.envelope.name]:
            return "it has no statement signed with this key"
        return "; ".join(changed) or "its files were modified"

    def foreign_envelope(self) -> str | None:
        """The warning about a signed statement beside it that is not of this manifest."""
        from ..release.manifest_signature import LARGEST as LARGEST_ENVELOPES
        from ..release.manifest_signature import covers, read_envelopes

        try:
            data = read_small(self.envelope, LARGEST_ENVELOPES, follow=False)
            manifest, found = self.contents()[self.path.name], read_envelopes(data)
            engines = self.manifest().engines
        except FileNotFoundError:
            return None
        except (OSError, EngineError) as error:
            return f"{self._files.state.relative(self.envelope)}: {error}"
        if any(covers(each, manifest, engines) for each in found):
            return None
        where = self._files.state.relative(self.envelope)
        return f"{where} signs another manifest; sign again with SIGNING_KEY=, or remove it"


def _entry(engine: EngineTarget) -> ManifestEntry:
    from ..release.manifest import ManifestEntry, RecordedFile

    spec, sha256 = engine.known, engine.sha256  # its inputs may have changed since
    if spec is None or sha256 is None or engine.hardware is None:
        raise HandoffError(f"{engine.label} is not built")
    given = engine.hardware.signature.to_json()
    signature = {name: given[name] for name in HARD + DEVICE_CLASS if name in given}
    size = engine.size()
    beside = engine.recorded
    if beside and not beside.sha256:
        raise HandoffError(f"{beside.label} is not built")
    recorded = RecordedFile(str(beside.sha256), beside.size()) if beside else None
    return ManifestEntry(spec.filename, sha256, size, spec.key, spec.ingredients, signature, recorded)


def read(path: Path) -> bytes | None:
    """The bytes of a small file; None if it cannot be read."""
    from ..release.manifest import LARGEST

    try:
        return read_small(path, 4 * LARGEST, follow=False)
    except OSError:
        return None


def engines_of(engines: Any) -> dict[str | None, list[EngineTarget]]:
    """The engines that nodes are of, by their names, for each kind of hardware. Raises
    HandoffError."""
    found: dict[str | None, dict[str, EngineTarget]] = {}
    for node in SCons.Util.flatten(engines):
        declared = target_of(node)
        if not isinstance(declared, EngineTarget):
            raise HandoffError(f"{node!s}: not an engine; give what env.Engine returned")
        other = found.setdefault(_kind(declared), {}).setdefault(declared.path.name, declared)
        if other is not declared:
            raise HandoffError(
                f"{other.label} and {declared.label} have the same name; list only one of them"
            )
    if not found:
        raise HandoffError("no engines; give what env.Engine returned")
    return {kind: [group[name] for name in sorted(group)] for kind, group in found.items()}


def _kind(engine: EngineTarget) -> str | None:
    """The name of an engine's hardware, also if unresolved; None for the default host."""
    if engine.hardware is not None:
        return engine.hardware.name
    return os.path.basename(engine.asked_for).removesuffix(".json") or None


def place_of(folder: Path, kind: str | None, kinds: int) -> Path:
    """The folder of one hardware: if there are several, each named one has its own."""
    return folder / kind if kind and kinds > 1 else folder
