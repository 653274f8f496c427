"""`env.EpContext`: an ONNX with an EPContext node around an engine, as a target.

Its source is the engine's sidecar. The state folder records what was written and what it was made of:
a null build compares digests, and imports nothing that reads or writes an ONNX.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Util

from ..errors import EngineError, HandoffError
from ..files.json_cache import JsonCache
from ..files.writing import write_atomic
from ..recipe.key_ingredients import input_name
from .builders import make_handoff_builder, out_of_date
from .engine_target import EngineTarget
from .manifest_target import engines_of
from .nodes import target_of
from .run_files import RunFiles
from .session import Session
from .target import HandoffTarget

if TYPE_CHECKING:
    from ..release.export.exported_engine import ExportedEngine

VERSION = "1"  # increment it when the same engine gives other bytes
GUARD = "the engine that an ONNX stands for"


class EpContextTarget(HandoffTarget):
    """beside: the path of the engine, relative to the folder of the ONNX; None to embed it."""

    def __init__(self, files: RunFiles, path: Path, engine: EngineTarget, beside: str | None) -> None:
        super().__init__(files, path)
        self._engine, self._beside = engine, beside
        self._record = JsonCache(files.state.export_record(path))

    def opens_besides(self) -> list[Any]:
        """The nodes of files that it reads, and that are not its sources."""
        return [self._engine.onnx]

    def is_right(self, node: Any) -> bool:
        if not self._engine.current:
            return False
        try:
            stamp, sha256 = self._record.get()
            digest = self._files.digest_cache.sha256(self.path, follow=False)
            return bool(sha256) and stamp == self._stamp() and digest == sha256
        except (EngineError, OSError):
            return False  # the action reports it

    def write(self) -> Iterator[str]:
        from ..release.export.epcontext import context_model, is_context
        from ..release.manifest import digest

        why = self.reason()
        data = context_model(self._exported(), self._beside)
        if not self._is_there(digest(data)):
            written = self._record.get()[0] is not None
            if os.path.lexists(self.path) and not written and not is_context(self.path):
                raise HandoffError(
                    f"{self.label}: is there, and env.EpContext did not write it; choose another target, or "
                    "remove it"
                )
            write_atomic(self.path, data)
            yield f"WROTE {self.label} because {why}"
        self._record.put(self._stamp(), digest(data))
        self._record.save()

    def preview(self) -> str | None:
        return None if self.is_right(self.nodes[0]) else f"WOULD WRITE {self.label} because {self.reason()}"

    def reason(self) -> str:
        """Why the ONNX is written. Raises EngineError."""
        if not self._engine.current:
            return "its engine would be built first"
        if not os.path.lexists(self.path):
            return "not written before"
        stamp, _ = self._record.get()
        return "its file was modified" if stamp == self._stamp() else "its engine changed"

    def _is_there(self, sha256: str) -> bool:
        try:
            return bool(self._files.digest_cache.sha256(self.path, follow=False) == sha256)
        except OSError:
            return False

    def _stamp(self) -> list[Any]:
        """What decides the bytes. Raises HandoffError."""
        made_of = self._exported()
        return [VERSION, made_of.path.name, made_of.sha256, made_of.key, made_of.onnx.name, self._beside]

    def _exported(self) -> ExportedEngine:
        from ..release.export.exported_engine import ExportedEngine

        engine, spec = self._engine, self._engine.known
        if spec is None or engine.sha256 is None:
            raise HandoffError(f"{engine.label} is not built")
        signature = spec.hardware.signature
        product, version = signature.product, signature.runtime_version
        onnx_sha256, profiles = spec.ingredients[input_name("onnx")], spec.recipe.profiles
        return ExportedEngine(
            engine.path, spec.onnx, engine.sha256, onnx_sha256, spec.key, product, version, profiles
        )


def declare(env: Any, session: Session, engines: Any, target: Any, embed: Any) -> Any:
    """The node of an ONNX for each engine. Raises EngineError."""
    if not isinstance(embed, bool):
        raise HandoffError(f"embed={embed!r}: write True or False")
    found = [engine for group in engines_of(engines).values() for engine in group]
    given = SCons.Util.flatten(target) if target is not None else []
    if given and len(given) != len(found):
        raise HandoffError(f"target: {len(given)} for {len(found)} engines; give one for each, or none")
    made = SCons.Util.NodeList()
    for at, engine in enumerate(found):
        path = Path(env.File(given[at]).get_abspath()) if given else engine.path.with_suffix(".onnx")
        made += _declare(env, session, path, engine, embed)
    return made


def _declare(env: Any, session: Session, path: Path, engine: EngineTarget, embed: bool) -> Any:
    label = session.state.relative(path)
    relative = None if embed else os.path.relpath(engine.path, path.parent)
    if relative is not None and relative.startswith(".."):
        raise HandoffError(
            f"{label}: its engine is not in its folder or below it, where ONNX Runtime looks for it; "
            "choose such a target, or embed the engine (embed=True)"
        )
    node = env.fs.File(str(path))
    if target_of(node) is not None:
        raise HandoffError(f"{label} is made by another call; choose another target")
    made = make_handoff_builder(f"scons-tensorrt EPContext, version {VERSION}")(env, [node], engine.nodes[1])
    EpContextTarget(session.files, path, engine, relative).connect(
        made, [session.value(env, GUARD, out_of_date)]
    )
    return made
