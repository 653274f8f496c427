"""The alias `engines`, which settles what is current before SCons walks through it.

The judgement of a pair covers what SCons would look at, signature by signature: sources, recipe,
hardware, bytes. Where nothing else has a say, SCons needs no task to find the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import SCons.Node
import SCons.Node.Alias
import SCons.Script

from . import settings
from .engine_target import EngineTarget
from .nodes import ALIAS

if TYPE_CHECKING:
    from .onnx_target import OnnxTarget
    from .session import Session

_UNSEEN, _CURRENT = SCons.Node.no_state, SCons.Node.up_to_date


class EnginesAlias(SCons.Node.Alias.Alias):  # type: ignore[misc]  # SCons has no types
    """`engines` itself, once the first engine joined it."""

    def children(self, scan: int = 1) -> Any:
        """As SCons asks for them, first when the graph is read and its walk comes here."""
        found, session = super().children(scan), self.attributes.trt_session
        if session and not SCons.Script.sconscript_reading:
            self.attributes.trt_session = None
            if not self.prerequisites and _may_settle(found):
                settle(session, found)
        return found

    def make_ready(self) -> None:
        """Its signature, for which SCons reads every sidecar, waits until something that depends on it
        asks for it."""
        self.get_ninfo()

    def visited(self) -> None:
        """Nothing of an alias is recorded."""


def _may_settle(found: list[Any]) -> bool:
    """Whether nothing that the user put into the alias is still to be made, which may make what engines
    are made from. Whole trees are printed, and an interactive session builds again."""
    others = (node for node in found if not isinstance(_owner(node), EngineTarget))
    return not (
        any(settings.option(name) for name in ("clean", "interactive", "tree_printers"))
        or any(node.has_builder() and node.get_state() < _CURRENT for node in others)
    )


def _owner(node: Any) -> Any:
    return getattr(node.attributes, "trt_engine", None)


def join(env: Any, session: Session, sidecar: Any) -> None:
    """Let `scons engines` mean this one too.

    All but the first as dependencies, because SCons searches an alias's sources from the start
    for each one added.
    """
    if session.alias is None:
        session.alias = alias = env.Alias(ALIAS, sidecar)[0]
        alias.__class__ = EnginesAlias
        alias.attributes.trt_session = session
    else:
        session.alias.add_dependency([sidecar])


def settle(session: Session, sidecars: list[Any]) -> None:
    """Take every pair that is as wanted out of SCons's walk, and what was made for it."""
    settling = _Settling(session)
    for node in sidecars:
        if isinstance(_owner(node), EngineTarget):
            settling.settle(_owner(node))


class _Settling:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._plain: dict[Any, bool] = {}
        self._known: dict[EngineTarget | OnnxTarget, bool] = {}

    def settle(self, spec: EngineTarget | OnnxTarget) -> bool:
        """Whether it is current and needs no task. What is not is judged again when its turn comes."""
        if spec not in self._known:
            self._known[spec] = False  # also for what is made from itself
            try:
                self._known[spec] = self._settle(spec)
            except Exception:
                spec.forget()  # what is wrong is said in its turn
        return self._known[spec]

    def _settle(self, spec: EngineTarget | OnnxTarget) -> bool:
        nodes, sources = spec.places(), set(spec.sources())
        states = {node.get_state() for node in nodes}
        if states == {_CURRENT}:
            return True
        if states != {_UNSEEN} or not all(_as_declared(n, spec.depends, sources) for n in nodes):
            return False
        if not all(map(self._settled, spec.needs())):
            return False
        if not spec.stands() or not all(map(self._settled, spec.needs())):  # its data are known now
            spec.forget()
            return False
        for node in nodes:
            info = node.get_ninfo()  # as after its task: a Command may look at times
            info.timestamp, info.size = node.get_timestamp(), node.get_size()
        spec.mark_requested()
        self._session.tidy(spec)
        for node in nodes:
            node.set_state(_CURRENT)
        return True

    def _settled(self, node: Any) -> bool:
        """Whether an input is there as it is: nobody makes it, or what does so has no need to."""
        if node not in self._plain:
            owner = _owner(node)
            if hasattr(owner, "stands"):
                return self.settle(owner)
            plain = node.get_state() == _CURRENT or (not node.has_builder() and _as_declared(node, 0))
            self._plain[node] = plain
        return self._plain[node]


def _as_declared(node: Any, depends: int, sources: set[Any] | None = None) -> bool:
    """Whether a file is in the tree itself, and the user's SConstruct gave it nothing more to wait for
    or to do."""
    executor = node.executor if sources else None
    return not (
        len(node.depends) != depends
        or (sources and set(node.sources) != sources)
        or (node.prerequisites or node.ignore or node.always_build or node.pseudo)
        or (node.side_effects or node.side_effect)
        or (executor and (executor.pre_actions or executor.post_actions))
        or (executor and node.builder.target_scanner)
        or node.dir.srcdir_list()
        or node.dir.get_all_rdirs() != [node.dir]
    )
