"""What a run will ask the shared cache for, so that it is downloaded before SCons gets there. Of a file that
FETCH= leaves in the cache (fetch_option.py), only the entry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..artifact.cache_key import make_key
from ..artifact.state_folder import DATA_SUFFIX
from ..errors import EngineError
from ..recipe.key_ingredients import input_name
from .engine_target import EngineTarget
from .nodes import target_of
from .onnx_target import OnnxTarget
from .session import Session
from .target import ReceiptTarget

if TYPE_CHECKING:
    from ..cache.early_downloads import Wanted
    from ..cache.entry import CacheEntry

    _Lookup = Callable[[CacheEntry], list[Wanted]]


def download_early(session: Session) -> None:
    """Called when the first action of a build begins: download ahead what the requested engines need and is
    known by now. Of a file that may stay in the shared cache (FETCH=), only the entry.

    The key of what is made from a file that this build still has to make is unknown. But if that is an ONNX
    which is downloaded ahead, its entry tells the key of the engine."""
    elsewhere = session.making.elsewhere
    if not elsewhere.store.url:
        return
    with contextlib.suppress(Exception):  # also an unexpected one: each action asks again, and reports it
        wanted = _wanted(session)
        shared = elsewhere.open().shared if len(wanted) > 1 else None  # one is asked for right now
        if shared is not None:
            shared.ahead.add(wanted, session.state.root)


def _wanted(session: Session) -> list[Wanted]:
    found: dict[ReceiptTarget, Wanted | None] = {}
    engines: dict[ReceiptTarget, list[_Lookup]] = {}  # by the step that makes their ONNX
    for engine in session.asked_of(session.engines):
        for target in [] if engine.current else [*engine.declared_steps(), engine]:
            if target in found:
                continue
            checked, found[target] = target.checked, None  # SCons checks again when it gets there
            with contextlib.suppress(EngineError, OSError):  # reported by its action
                if isinstance(target, OnnxTarget):
                    found[target] = _of_step(target, session)
                elif found.get(step := target_of(engine.onnx)):
                    engines.setdefault(step, []).extend(_after(step, engine, session))
                else:
                    found[target] = _of_engine(engine, session)
            target.checked = checked
    return [
        wanted._replace(then=partial(_all, engines[target])) if target in engines else wanted
        for target, wanted in found.items()
        if wanted
    ]


def _all(lookups: list[_Lookup], entry: CacheEntry) -> list[Wanted]:
    return [wanted for lookup in lookups for wanted in lookup(entry)]


def _after(step: OnnxTarget, engine: EngineTarget, session: Session) -> Iterator[_Lookup]:
    """The lookup of an engine that is made from the file of a step and from no other file, as a function of
    the step's entry. Not of one that may be here already. Raises EngineError, OSError."""
    from ..cache.early_downloads import Wanted
    from ..cache.entry import ENGINE

    name, receipts, fields = engine.path.name, session.state.receipts, engine.fields
    if engine.given or engine.samples or os.path.lexists(engine.path) or any(receipts.of_file(name)):
        return
    engine.check()
    data, leave = step.path.name + DATA_SUFFIX, session.making.downloads.may_stay_in_cache(engine)

    def lookup(entry: CacheEntry) -> list[Wanted]:
        files = {input_name("onnx"): entry.sha256}
        if entry.data:
            files[input_name("data", data)] = entry.data[0]
        ingredients = {**fields, **files}
        with contextlib.suppress(EngineError, OSError):
            if not receipts.same_inputs(name, ingredients):  # else it is copied
                return [Wanted(ENGINE, make_key(name, ingredients), name, not leave)]
        return []

    yield lookup


def _of_engine(engine: EngineTarget, session: Session) -> Wanted | None:
    """The lookup that the action of an engine will make, if it is known now. Raises EngineError, OSError."""
    samples = [engine.samples.target] if engine.samples else []
    nodes = [engine.onnx, *session.files.data_nodes(engine.onnx), *engine.given, *samples]
    if not all(map(_is_there, nodes)):
        return None
    found, spec = engine.up_to_date(), engine.known
    if spec and not found.reusable and session.making.reusable(spec, found.code) is None:
        from ..cache.early_downloads import Wanted
        from ..cache.entry import ENGINE  # not needed where all is up to date

        return Wanted(ENGINE, spec.key, spec.filename, not session.making.downloads.may_stay_in_cache(engine))
    return None


def _of_step(step: OnnxTarget, session: Session) -> Wanted | None:
    """As `_of_engine`, for an ONNX step."""
    if step.is_needed() and all(map(_is_there, step.needs())) and not step.up_to_date().current:
        from ..cache.early_downloads import Wanted
        from ..cache.entry import STEP

        return Wanted(STEP, step.key, step.path.name, not session.making.downloads.may_stay_in_cache(step))
    return None


def _is_there(node: Any) -> bool:
    """Whether an input has its final bytes."""
    return not node.has_builder() or node.get_state() in (SCons.Node.up_to_date, SCons.Node.executed)
