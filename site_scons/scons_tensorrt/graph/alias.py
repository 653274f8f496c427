"""The alias `engines`, which settles what is current before SCons walks through it.

The judgement of a pair covers all that SCons would look at, signature by signature: sources,
recipe, hardware, bytes. Where nothing else has a say, SCons needs no task to find the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import SCons.Node
import SCons.Node.Alias
import SCons.Script

from ..errors import EngineError
from . import settings
from .nodes import ALIAS

if TYPE_CHECKING:
    from .declared import Declared
    from .derived import Derived
    from .session import Session

_UNSEEN, _CURRENT = SCons.Node.no_state, SCons.Node.up_to_date


class EnginesAlias(SCons.Node.Alias.Alias):  # type: ignore[misc]  # SCons has no types
    """`engines` itself, once the first engine joined it."""

    def children(self, scan: int = 1) -> Any:
        """As SCons asks for them, first when the graph is read and its walk comes here."""
        session = self.attributes.trt_session
        if session and not SCons.Script.sconscript_reading:
            self.attributes.trt_session = None
            settle(session)
        return super().children(scan)

    def get_contents(self) -> str:
        """What is known of the engines, where SCons would read each sidecar."""
        return "".join(_signature(node) for node in self.children())


def _signature(node: Any) -> str:
    made = getattr(node.attributes, "trt_engine", None)
    return str((made and made.sha256) or node.get_csig())


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


def settle(session: Session) -> None:
    """Take every pair that is as wanted out of SCons's walk, and what was made for it."""
    if not any(settings.option(name) for name in ("clean", "interactive", "tree_printers")):
        settling = _Settling(session)
        for engine in session.engines:
            settling.settle(engine)


class _Settling:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._plain: dict[Any, bool] = {}

    def settle(self, wanted: Declared | Derived) -> bool:
        """Whether it is current and needs no task. What is not is judged again when its turn comes."""
        nodes = wanted.places()
        states = {node.get_state() for node in nodes}
        if states == {_CURRENT}:
            return True
        if states != {_UNSEEN} or not all(_as_declared(node, wanted.depends) for node in nodes):
            return False
        if not all(map(self._settled, wanted.needs())):
            return False
        try:
            stands = wanted.stands()
        except EngineError:
            stands = False
        if not stands or not all(map(self._settled, wanted.needs())):  # its data are known by now
            wanted.forget()
            return False
        wanted.consider()
        self._session.tidy(wanted)
        for node in nodes:
            node.set_state(_CURRENT)
            info = node.get_ninfo()  # as after its task: a Command may look at times
            info.timestamp, info.size = node.get_timestamp(), node.get_size()
        return True

    def _settled(self, node: Any) -> bool:
        """Whether an input is there as it is: nobody makes it, or what does so has no need to."""
        if node not in self._plain:
            made = getattr(node.attributes, "trt_engine", None)
            if made:
                return self.settle(made)
            plain = node.get_state() == _CURRENT or (not node.has_builder() and _as_declared(node, 0))
            self._plain[node] = plain
        return self._plain[node]


def _as_declared(node: Any, depends: int) -> bool:
    """Whether a file is in the tree itself, and the user's SConstruct gave it nothing more to wait for
    or to do."""
    executor = node.executor if node.has_builder() else None
    return not (
        len(node.depends) > depends
        or (node.prerequisites or node.ignore or node.always_build)
        or (node.side_effects or node.side_effect)
        or (executor and (executor.pre_actions or executor.post_actions))
        or node.dir.srcdir_list()
        or node.dir.get_all_rdirs() != [node.dir]
    )
