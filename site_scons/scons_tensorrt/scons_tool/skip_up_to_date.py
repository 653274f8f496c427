"""Skip engines that are up to date before SCons walks the graph below the alias `engines`.

SCons runs one task for each node that it visits: it compares the signatures of all sources and
dependencies with those in `.sconsign`. For an engine that is up to date, the result is always
"do nothing". This module asks `check_up_to_date` first, and marks such a pair `up_to_date`, which
SCons then passes over without a task.

Why this never skips a pair that SCons would build:

* The check covers at least what the task would compare. The cache key of a pair is made from every
  input that `env.Engine` declares as a dependency: the ONNX and its external data, plugins,
  samples, recipe and hardware signature. The check also compares the bytes of the engine and its
  sidecar with the receipt of that key, which SCons itself never does for a target. With `accuracy=`,
  the receipt must also hold the result of the comparison.
* Nothing else may have a say. `_as_declared` rejects a node to which the SConstruct has added
  anything: dependencies, sources, prerequisites, Ignore, AlwaysBuild, Pseudo, side effects, pre- or
  post-actions, a target scanner. It also rejects nodes in a VariantDir or a tree with Repositories,
  where the path of a node is not the path of its bytes.
* No input may change later in the run. Each input must itself be a plain source file, or a target
  of this plugin that was skipped by the same rule, or a node that SCons has already found up to
  date. An input that another builder still has to make leaves the pair to SCons. If a target that
  the user added to the alias has yet to be built, nothing is skipped, because its builder may write
  what engines are made from.
* The walk is the usual one. With -c, --interactive or --tree nothing is skipped.
* When in doubt, SCons decides. A pair that is out of date, or whose check raises an error, is left
  untouched, and is checked again, with its message, when SCons reaches it. A cycle counts as out of
  date.

A skipped node gets what other code reads from a finished task: its state, and its time and size when
they are read. With 1,000 engines, skipping halves the CPU time of a null build.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import SCons.Node
import SCons.Node.Alias
import SCons.Script

from . import settings
from .engine_target import EngineTarget
from .nodes import ALIAS, target_of
from .target import ReceiptTarget

_UNSEEN, _CURRENT = SCons.Node.no_state, SCons.Node.up_to_date


class EnginesAlias(SCons.Node.Alias.Alias):  # type: ignore[misc]  # SCons has no types
    """The alias `engines`."""

    def children(self, scan: int = 1) -> Any:
        """SCons asks first when the graph has been read and its walk reaches the alias. The order is that in
        which it then visits them."""
        found, callbacks = super().children(scan), self.attributes.trt_callbacks
        if callbacks and not SCons.Script.sconscript_reading:
            self.attributes.trt_callbacks = None
            if not self.prerequisites and _may_skip(found):
                on_skip, report_reused = callbacks
                skipped = skip_up_to_date(found, on_skip)
                report_reused([engine for engine in skipped if not engine.reported])
                if len(skipped) < len(found) and settings.option("num_jobs") > 1:
                    return _in_order(found)
        return found

    def make_ready(self) -> None:
        """Do not compute the alias's signature, for which SCons reads every sidecar; a node that
        depends on the alias computes it on demand."""
        self.get_ninfo()

    def visited(self) -> None:
        """Record nothing in `.sconsign`."""


def _in_order(found: list[Any]) -> list[Any]:
    """First the engines that wait for ONNX steps: a step, its gate and the compile follow one another, and
    other compiles can run beside them. Last those with the inputs of one before: they wait until it is built,
    and would only hold a job."""
    first: list[Any] = []
    others: list[Any] = []
    equal: list[Any] = []
    seen: set[frozenset[tuple[str, str]]] = set()
    for node in found:
        target = target_of(node)
        if not isinstance(target, EngineTarget) or target.state() >= _CURRENT:
            others.append(node)
        elif _waits_for_steps(target):
            first.append(node)
        else:
            inputs = frozenset(target.known.ingredients.items()) if target.known else frozenset()
            (equal if inputs in seen else others).append(node)
            seen.update([inputs] if inputs else ())
    return first + others + equal


def _waits_for_steps(target: EngineTarget) -> bool:
    """Whether ONNX steps must run before the engine is compiled."""
    steps = (step for step in target.declared_steps() if step.is_needed())
    return any(node.get_state() < _CURRENT for step in steps for node in step.nodes)


def _may_skip(found: list[Any]) -> bool:
    """Whether the run is a plain walk, and every node that the user added to the alias is built."""
    others = (node for node in found if not isinstance(target_of(node), EngineTarget))
    return not (
        any(settings.option(name) for name in ("clean", "interactive", "tree_printers"))
        or any(node.has_builder() and node.get_state() < _CURRENT for node in others)
    )


def join(
    env: Any,
    alias: Any,
    nodes: list[Any],
    on_skip: Callable[[ReceiptTarget], None],
    report_reused: Callable[[list[EngineTarget]], None],
) -> Any:
    """The alias with one more engine. alias: the one so far, or None; nodes: of the engine; on_skip: called
    for each target before it is marked up to date; report_reused: called with all engines that were skipped.

    All but the first are added as dependencies: adding a source searches all sources of the alias.
    """
    if alias is None:
        alias = env.Alias(ALIAS, nodes)[0]
        alias.__class__ = EnginesAlias
        alias.attributes.trt_callbacks = on_skip, report_reused
    else:
        alias.add_dependency(nodes)
    return alias


def skip_up_to_date(sidecars: list[Any], on_skip: Callable[[ReceiptTarget], None]) -> list[EngineTarget]:
    """Mark every pair that is up to date, and the files made for it, so that SCons passes over them.
    Returns those engines. on_skip: called for each target before it is marked."""
    skipper = _Skipper(on_skip)
    engines = dict.fromkeys(map(target_of, sidecars))
    return [each for each in engines if isinstance(each, EngineTarget) and skipper.skip(each)]


class _Skipper:
    def __init__(self, on_skip: Callable[[ReceiptTarget], None]) -> None:
        self._on_skip = on_skip
        self._final: dict[Any, bool] = {}
        self._known: dict[ReceiptTarget, bool] = {}

    def skip(self, target: ReceiptTarget) -> bool:
        """Whether the target is up to date and now marked so."""
        if target not in self._known:
            self._known[target] = False  # the answer within a cycle
            try:
                self._known[target] = self._skip(target)
            except Exception:
                target.forget()  # SCons's own visit reports it
        return self._known[target]

    def _skip(self, target: ReceiptTarget) -> bool:
        nodes, sources = target.nodes, set(target.sources())
        states = {node.get_state() for node in nodes}
        if states == {_CURRENT}:
            return True
        if states != {_UNSEEN} or not all(_as_declared(n, target.depends, sources) for n in nodes):
            return False
        if not all(map(self._is_final, target.needs())):
            return False
        # The check reads the ONNX, so that `needs` may now list more external data.
        if not target.is_complete() or not all(map(self._is_final, target.needs())):
            target.forget()
            return False
        self._on_skip(target)
        for node in nodes:
            node.set_state(_CURRENT)
        return True

    def _is_final(self, node: Any) -> bool:
        """Whether an input is final: a plain source file, or a target that is up to date."""
        if node not in self._final:
            owner = target_of(node)
            if isinstance(owner, ReceiptTarget):
                return self.skip(owner)
            plain = node.get_state() == _CURRENT or (not node.has_builder() and _as_declared(node, 0))
            self._final[node] = plain
        return self._final[node]


def _as_declared(node: Any, depends: int, sources: set[Any] | None = None) -> bool:
    """Whether a file is in the tree itself and the SConstruct has added nothing to it: see above."""
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
