"""The OpenSSF model signature beside a manifest, as a target; see `release/model_signature.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..artifact.filename import SIDECAR_SUFFIX
from ..artifact.sidecar import sidecar_bytes
from ..errors import EngineError, plural
from ..files.writing import write_atomic
from ..release import model_signature_of
from .manifest_target import ManifestTarget, read
from .run_files import RunFiles
from .target import HandoffTarget


class ModelSignatureTarget(HandoffTarget):
    """The signature of one manifest, its engines and what lies beside them when they are installed."""

    opens = False

    def __init__(self, files: RunFiles, listed: ManifestTarget) -> None:
        self.names: tuple[str, ...] = (model_signature_of(listed.path.name),)
        super().__init__(files, listed.path.with_name(self.names[0]))
        self.listed = listed
        self._beside = list(listed.beside)

    def data(self, name: str) -> bytes:
        """The contents of the file. Raises EngineError."""
        from ..release.model_signature import sign_model, statement

        return sign_model(statement(self.path.stem, name, self._files_signed()), self.listed.signing_key())

    def _files_signed(self) -> dict[str, str]:
        """The sha256 of each file by name. Raises EngineError."""
        manifest = self.listed.manifest()
        found = {name: engine.sha256 for name, engine in manifest.engines.items()}
        found.update({name: recorded.sha256 for name, recorded in manifest.recorded().items()})
        contents = {
            f"{name}{SIDECAR_SUFFIX}": sidecar_bytes(e.sha256) for name, e in manifest.engines.items()
        }
        contents.update(self.listed.contents())
        contents.update({name: each.data(name) for each in self._beside for name in each.names})
        found.update({name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})
        return found

    def is_right(self, node: object) -> bool:
        try:
            return self.listed.ready() and self._is_written()
        except (EngineError, OSError):
            return False  # the action reports it

    def _is_written(self) -> bool:
        """Whether the file is up to date. Raises EngineError."""
        return read(self.path) == self.data(self.path.name)

    def write(self) -> Iterator[str]:
        if self._is_written():
            return
        why = "not written before" if read(self.path) is None else "what it signs has changed, or the key"
        write_atomic(self.path, self.data(self.path.name))
        yield f"WROTE {self.label} ({plural(len(self.listed.engines), 'engine')}) because {why}"

    def preview(self) -> str | None:
        if not self.listed.ready():
            return f"WOULD WRITE {self.label} because its engines would be built first"
        return None if self._is_written() else f"WOULD WRITE {self.label} because it is not up to date"
