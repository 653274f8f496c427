"""What a run will ask the shared cache for, so that it is downloaded while SCons gets there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..errors import EngineError
from .engine_target import EngineTarget
from .onnx_target import OnnxTarget
from .session import Session
from .target import ReceiptTarget

if TYPE_CHECKING:
    from ..cache.read_ahead import Wanted


def fetch_ahead(session: Session) -> None:
    """Called when the first action of a build begins: download ahead what the requested engines need and is
    known by now; of what may stay in the shared cache (FETCH=), the entry alone. What is made from files that
    this build still has to make is not: its key is unknown."""
    elsewhere = session.making.elsewhere
    if not elsewhere.store.url:
        return
    wanted = list(_wanted(session))
    shared = elsewhere.open().shared if len(wanted) > 1 else None  # one is asked for right now
    if shared is not None:
        shared.ahead.add(wanted, session.state.root)


def _wanted(session: Session) -> Iterator[Wanted]:
    seen: set[ReceiptTarget] = set()
    for engine in session.asked_of(session.engines):
        for target in [] if engine.current else [*engine.declared_steps(), engine]:
            if target not in seen:
                seen.add(target)
                checked = target.checked  # SCons checks again when it gets there
                with contextlib.suppress(EngineError, OSError):  # reported by its action
                    if isinstance(target, EngineTarget):
                        yield from _of_engine(target, session)
                    elif isinstance(target, OnnxTarget):
                        yield from _of_step(target, session)
                target.checked = checked


def _of_engine(engine: EngineTarget, session: Session) -> Iterator[Wanted]:
    """The lookup that the action of an engine will make, if it is known now. Raises EngineError, OSError."""
    samples = [engine.samples.target] if engine.samples else []
    nodes = [engine.onnx, *session.files.data_nodes(engine.onnx), *engine.given, *samples]
    if not all(map(_is_there, nodes)):
        return
    found, spec = engine.up_to_date(), engine.known
    if spec and not found.reusable and session.making.reusable(spec, found.code) is None:
        from ..cache.entry import ENGINE  # not needed where all is up to date
        from ..cache.read_ahead import Wanted

        yield Wanted(ENGINE, spec.key, spec.filename, not session.making.downloads.may_leave(engine))


def _of_step(step: OnnxTarget, session: Session) -> Iterator[Wanted]:
    """As `_of_engine`, for an ONNX step."""
    if step.is_needed() and all(map(_is_there, step.needs())) and not step.up_to_date().current:
        from ..cache.entry import STEP
        from ..cache.read_ahead import Wanted

        yield Wanted(STEP, step.key, step.path.name, not session.making.downloads.may_leave(step))


def _is_there(node: Any) -> bool:
    """Whether an input has its final bytes."""
    return not node.has_builder() or node.get_state() in (SCons.Node.up_to_date, SCons.Node.executed)
