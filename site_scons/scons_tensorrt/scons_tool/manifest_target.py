"""One manifest of a run: its contents, and whether the files are up to date."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, HandoffError
from ..files.reading import read_small
from ..hardware.signature import DEVICE_CLASS, HARD
from ..release import files_of
from .engine_target import EngineTarget
from .session import Session

if TYPE_CHECKING:
    from ..files.keys import SigningKey
    from ..release.manifest import Manifest, ManifestEntry


class ManifestTarget:
    """One manifest. engines: in the order of their names; key: of the signature, "" for none."""

    def __init__(
        self, session: Session, path: Path, engines: list[EngineTarget], builder: str, key: str
    ) -> None:
        self._session = session
        self.path = path
        self.label = session.state.relative(path)
        self.engines = engines
        self.problem: EngineError | None = None
        self._builder, self._key = builder, key
        self._signing_key: SigningKey | None = None
        self._contents: dict[str, bytes] | None = None
        self._looked: set[Any] = set()

    @property
    def sidecar(self) -> Path:
        return self._beside(0)

    @property
    def sums(self) -> Path:
        return self._beside(1)

    @property
    def envelope(self) -> Path:
        return self._beside(2)

    def _beside(self, which: int) -> Path:
        return self.path.with_name(files_of(self.path.name)[which])

    @property
    def signed(self) -> bool:
        return bool(self._key)

    def on_visit(self, node: Any) -> None:
        """A second visit is another build of an interactive session."""
        if node in self._looked:
            self._looked, self._contents, self.problem = set(), None, None
        self._looked.add(node)

    def ready(self) -> bool:
        """Whether every engine is up to date."""
        return all(engine.current for engine in self.engines)

    def contents(self) -> dict[str, bytes]:
        """The contents of each file by name. Raises EngineError."""
        if self._contents is None:
            from ..release.manifest import digest

            manifest = self.manifest()
            data = manifest.dump()
            files = {
                self.path.name: data,
                self.sidecar.name: digest(data).encode("ascii"),
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

    def _sign(self, manifest: Manifest, data: bytes) -> bytes:
        from ..files.keys import load_signing_key
        from ..release.provenance import BUILDER, sign_statement, statement

        self._signing_key = self._signing_key or load_signing_key(self._key)
        payload = statement(manifest, self.path.name, data, self._builder or BUILDER)
        return sign_statement(payload, self._signing_key)

    def right(self, name: str) -> bool:
        """Whether the file of this name is up to date. Raises EngineError."""
        return read(self.path.with_name(name)) == self.contents()[name]

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
        if not changed and [n for n in self.contents() if not self.right(n)] == [self.envelope.name]:
            return "it has no statement signed with this key"
        return "; ".join(changed) or "its files were modified"

    def foreign_envelope(self) -> str | None:
        """The warning about a signed statement beside it that is not of this manifest."""
        from ..release.provenance import LARGEST as LARGEST_ENVELOPES
        from ..release.provenance import covers, read_envelopes

        try:
            data = read_small(self.envelope, LARGEST_ENVELOPES, follow=False)
            manifest, found = self.contents()[self.path.name], read_envelopes(data)
            engines = self.manifest().engines
        except FileNotFoundError:
            return None
        except (OSError, EngineError) as error:
            return f"{self._session.state.relative(self.envelope)}: {error}"
        if any(covers(each, manifest, engines) for each in found):
            return None
        where = self._session.state.relative(self.envelope)
        return f"{where} signs another manifest; sign again with SIGNING_KEY=, or remove it"


def _entry(engine: EngineTarget) -> ManifestEntry:
    from ..release.manifest import ManifestEntry

    spec, sha256 = engine.known, engine.sha256  # its inputs may have changed since
    if spec is None or sha256 is None or engine.hardware is None:
        raise HandoffError(f"{engine.label} is not built")
    given = engine.hardware.signature.to_json()
    signature = {name: given[name] for name in HARD + DEVICE_CLASS if name in given}
    size = os.lstat(engine.path).st_size
    return ManifestEntry(spec.filename, sha256, size, spec.key, spec.ingredients, signature)


def read(path: Path) -> bytes | None:
    """The bytes of a small file; None if it cannot be read."""
    from ..release.manifest import LARGEST

    try:
        return read_small(path, 4 * LARGEST, follow=False)
    except OSError:
        return None
