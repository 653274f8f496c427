"""The bills of materials beside a manifest, as targets; see `release/bom/`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..artifact.receipt import Receipt
from ..errors import EngineError, HandoffError, plural
from ..files.json_cache import JsonCache
from ..files.reading import read_small
from ..files.writing import write_atomic
from ..release import BOM_VERSION, LARGEST_BOM, boms_of
from . import settings
from .nodes import real_path
from .run_files import RunFiles
from .target import HandoffTarget

if TYPE_CHECKING:
    from .engine_target import EngineTarget
    from .manifest_target import ManifestTarget


class BomTarget(HandoffTarget):
    """The bills of one manifest. A null build does not write them again to compare: it compares their sha256
    with that of what was written last, if nothing has changed that they are made of."""

    opens = False

    def __init__(self, files: RunFiles, listed: ManifestTarget) -> None:
        self.names: tuple[str, ...] = boms_of(listed.path.name)
        super().__init__(files, listed.path.with_name(self.names[0]))
        self.listed = listed
        self._contents: dict[str, bytes] | None = None
        self._made_of: str | None = None  # the stamp of this run
        self._written = JsonCache(files.state.bom(listed.path))

    def reset(self) -> None:
        super().reset()
        self._contents = self._made_of = None

    def contents(self) -> dict[str, bytes]:
        """The contents of each file by name. Raises EngineError."""
        if self._contents is None:
            from ..release.bom import cyclonedx, spdx
            from ..release.bom.collect import Description, both_digests, collect

            paths = {path: None for engine in self.listed.engines for path in _files(engine)}
            known = Description(
                receipts=self._files.state.receipts,
                cards=self._cards(),
                steps=self._steps(),
                sha512={**self._not_downloaded(), **both_digests(paths)},
                created=_created(),
                version=__version__,
            )
            bom = collect(self.listed.path.name, self.listed.manifest(), known)
            self._contents = dict(zip(self.names, (cyclonedx.dump(bom), spdx.dump(bom))))
        return self._contents

    def _not_downloaded(self) -> dict[str, str]:
        """The sha512 of files that this run did not download, by sha256."""
        from ..build.entry_description import description_of

        found = {}
        for engine in self.listed.engines:
            for target in (engine, *engine.declared_steps()):
                receipt = target.receipt() if target.in_store is not None else None
                known = receipt and description_of(receipt.filename, receipt.details)
                if receipt and known:
                    found[receipt.sha256] = known.sha512
                    if known.data_sha512:
                        found[str(receipt.details["data_sha256"])] = known.data_sha512
        return found

    def data(self, name: str) -> bytes:
        """The contents of one file, which is up to date or would be written. Raises EngineError."""
        there = self._read(name)
        return there if there is not None and self._is_written(name) else self.contents()[name]

    def is_right(self, node: Any) -> bool:
        try:
            return self.listed.ready() and self._is_written(node.name)
        except (EngineError, OSError):
            return False  # the action reports it

    def _cards(self) -> dict[str, Any]:
        cards = {engine.path.name: engine.recipe.model_card for engine in self.listed.engines}
        return {name: card for name, card in cards.items() if card}

    def _steps(self) -> dict[str, str]:
        """The recipe digests of the steps of all engines by filename."""
        found = {}
        for step in (step for engine in self.listed.engines for step in engine.declared_steps()):
            with contextlib.suppress(EngineError):  # of a step that is not needed: its engine is up to date
                found[step.path.name] = step.key
        return found

    def _is_written(self, name: str) -> bool:
        """Whether a file is up to date. Raises EngineError and OSError."""
        stamp, digests = self._written.get()
        if stamp is not None and stamp == self._stamp():
            return bool(self._digest(name) == digests.get(name))
        if self._read(name) != self.contents()[name]:
            return False
        if all(self._read(each) == data for each, data in self.contents().items()):
            self._remember()
        return True

    def _stamp(self) -> str | None:
        """A digest of everything that the files are made of; None if a receipt is elsewhere."""
        if self._made_of is not None:
            return self._made_of
        digest, name = self._files.digest_cache.sha256, self.listed.path.name
        engines = self.listed.manifest().engines.values()
        receipts = [Receipt(e.name, e.key, e.sha256, e.size, e.recipe, {}) for e in engines]
        try:
            read = [digest(self._files.state.receipts.path(each)) for each in receipts]
        except OSError:
            return None
        cards = {engine: list(card) for engine, card in sorted(self._cards().items())}
        steps = sorted(self._steps().items())  # another one may give the same bytes
        made_of = json.dumps([BOM_VERSION, __version__, _created(), name, read, cards, steps]).encode("ascii")
        self._made_of = hashlib.sha256(made_of + self.listed.contents()[name]).hexdigest()
        return self._made_of

    def _remember(self) -> None:
        stamp = self._stamp()
        if stamp is None or not settings.writes():
            return
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.contents().items()}
        self._written.put(stamp, digests)
        with contextlib.suppress(OSError):  # only dearer next time
            self._written.save()

    def _digest(self, name: str) -> str | None:
        try:
            return self._files.digest_cache.sha256(self.path.with_name(name), follow=False)
        except OSError:
            return None

    def _read(self, name: str) -> bytes | None:
        try:
            return read_small(self.path.with_name(name), LARGEST_BOM, follow=False)
        except OSError:
            return None

    def write(self) -> Iterator[str]:
        why, engines = self._reason(), plural(len(self.listed.engines), "engine")
        wrong = [name for name in self.names if not self._is_written(name)]
        for name in wrong:
            write_atomic(self.path.with_name(name), self.contents()[name])
        if wrong:
            self._remember()
            yield f"WROTE {self.label} ({engines}) because {why}"

    def preview(self) -> str | None:
        if self.listed.ready() and all(map(self._is_written, self.names)):
            return None
        return f"WOULD WRITE {self.label} because {self._reason()}"

    def _reason(self) -> str:
        """Why the files are written. Raises EngineError."""
        if not self.listed.ready():
            return "its engines would be built first"
        if all(self._read(name) is None for name in self.names):
            return "not written before"
        stamp, _ = self._written.get()
        return "its files were modified" if stamp == self._stamp() else "what it lists has changed"


def _files(engine: EngineTarget) -> Iterator[Path]:
    """The files of an engine, and what it and its steps are made of."""
    yield engine.path
    if engine.recorded:
        yield engine.recorded.path
    if engine.known:
        yield from engine.known.inputs().values()
    yield real_path(engine.original)
    for step in engine.declared_steps():
        with contextlib.suppress(EngineError):
            spec = step.spec()
            for onnx in spec.onnx.values():
                yield from (onnx.path, *onnx.external.values())
            yield from spec.files.values()
            yield from [spec.script] if spec.script else []


def _created() -> int | None:
    """The time of SOURCE_DATE_EPOCH, see reproducible-builds.org. Raises HandoffError."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise HandoffError(f"SOURCE_DATE_EPOCH={text}: write a number of seconds since 1970")
    return int(text)
