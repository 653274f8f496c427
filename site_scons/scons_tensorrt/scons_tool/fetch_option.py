"""Which files of the shared engine cache a run downloads, with `FETCH=none` and `FETCH=needed`.

A file is downloaded if another target of this run opens it. To know that, the graph below the requested
targets is walked once, before the first file would be downloaded: through sources, dependencies and
prerequisites. Manifests, bills of materials and signatures do not open an engine: its receipt has what they
list. With `needed`, a file that the run names is downloaded too: by its path, its folder, an alias of the
SConstruct or its model's name.

A dependency that only a scanner finds is known once SCons has scanned what depends on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import SCons.Environment
import SCons.Node.Alias
import SCons.Node.FS
import SCons.Script

from ..artifact.state_folder import DATA_SUFFIX
from ..build.entry_description import description_of
from ..build.input_digests import Inputs
from ..build.not_downloaded import AbsentFile
from ..build.onnx_context import OnnxContext
from ..build.run_onnx_step import OnnxOutcome, make_onnx
from ..errors import EngineBuildError
from .engine_target import EngineTarget
from .nodes import ALIAS, REPORT, target_of
from .requested_targets import paths_named
from .settings import option
from .store_settings import ALL, NEEDED
from .target import HandoffTarget, ReceiptTarget

if TYPE_CHECKING:
    from ..artifact.receipt import Receipt
    from .onnx_target import OnnxTarget


_NOT, _NAMED, _READ = 0, 1, 2  # what a run needs of a node: nothing; its bytes, as it is named or opened


class Downloads:
    """fetch: the value of FETCH=; top: of the tree. Used by several threads."""

    def __init__(self, fetch: str, top: str) -> None:
        self._fetch, self._top = fetch, top
        self._lock = threading.Lock()
        self._opened: tuple[list[Any], set[Any]] = [], set()  # of the targets of the run or session

    def may_stay_in_cache(self, target: ReceiptTarget) -> bool:
        """Whether the files of a target may stay in the shared cache. With a Repository, SCons might take an
        older file there for one that is not in the tree. A later build of an interactive session may open
        it, and SCons does not visit an engine again for that. A pre- or post-action may read the file."""
        folder, executor = target.target.dir, target.target.get_executor()
        if self._fetch == ALL or option("interactive") or folder.get_all_rdirs() != [folder]:
            return False
        if executor.pre_actions or executor.post_actions:
            return False
        with self._lock:
            targets = list(SCons.Script.BUILD_TARGETS) or [self._top]
            if self._opened[0] != targets:
                self._opened = (
                    targets,
                    _nodes_opened(_requested_nodes(targets, self._top), self._fetch == NEEDED),
                )
            opened = self._opened[1]
        waiting = [parent for node in target.nodes for parent in list(node.waiting_parents)]
        return opened.isdisjoint(target.nodes) and not any(map(_is_opened_by_its_action, waiting))


def _requested_nodes(targets: list[Any], top: str) -> list[Any]:
    """The nodes that the targets of this run may mean."""
    fs, found = SCons.Node.FS.get_default_fs(), []
    for each in targets:
        alias = SCons.Node.Alias.default_ans.lookup(each) if isinstance(each, str) else None
        if alias is not None:
            found.append(alias)
        elif isinstance(each, str):
            found += [fs.Entry(path).disambiguate() for path in paths_named([each], top)]
        else:
            found.append(each)
    return found


def _nodes_opened(requested: Iterable[Any], named: bool) -> set[Any]:
    """The nodes whose bytes are needed. named: also those that are requested by name."""
    waiting = [(node, _NAMED if named and not _stands_for_all(node) else _NOT) for node in requested]
    seen: dict[Any, int] = {}
    while waiting:
        node, need = waiting.pop()
        if seen.get(node, -1) >= need:
            continue
        seen[node] = need
        opens = _is_opened_by_its_action(node)
        if isinstance(node, SCons.Node.Alias.Alias) and not opens:
            waiting += [
                (child, _NOT if need == _NAMED and _stands_for_all(child) else need)
                for child in _children(node)
            ]
            continue
        if isinstance(node, SCons.Node.FS.Dir):
            inner = [entry for name, entry in node.entries.items() if name not in (".", "..")]
            waiting += [(entry, need) for entry in inner]
        waiting += [(child, _READ if opens or _reads(node, child) else _NOT) for child in _children(node)]
        waiting += [(other, _READ) for other in getattr(target_of(node), "opens_besides", list)()]
    return {node for node, need in seen.items() if need}


def _children(node: Any) -> list[Any]:
    return [*node.sources, *(node.depends or ()), *(node.prerequisites or ()), *(node.implicit or ())]


def _stands_for_all(node: Any) -> bool:
    """Whether a requested node is no name of a file: `scons engines` builds all, and `scons .` everything."""
    if isinstance(node, SCons.Node.Alias.Alias):
        return str(node) in (ALIAS, REPORT)
    return node is SCons.Node.FS.get_default_fs().Top


def _is_opened_by_its_action(node: Any) -> bool:
    """Whether the action of a node reads the bytes of its sources, or an action before or after it may.
    Steps and compiles bring theirs."""
    target, executor = target_of(node), getattr(node, "executor", None)
    if getattr(executor, "pre_actions", ()) or getattr(executor, "post_actions", ()):
        return True
    if target is not None:
        return isinstance(target, HandoffTarget) and target.opens
    if isinstance(node, SCons.Node.FS.Dir):
        return node.builder is not SCons.Node.FS.get_MkdirBuilder()  # that of every folder
    if not node.has_builder():
        return False
    return node.builder is not SCons.Environment.AliasBuilder  # that of an alias without an action


def _reads(node: Any, child: Any) -> bool:
    """Whether a step reads an engine, as a function of env.OnnxExport may: it brings ONNX files only."""
    if not isinstance(target_of(child), EngineTarget):
        return False
    return isinstance(target_of(node), ReceiptTarget) and child in node.sources


def leave(
    step: OnnxTarget,
    receipt: Receipt,
    inputs: Inputs,
    context: Callable[[], OnnxContext],
    converted: Callable[[OnnxTarget, OnnxOutcome, float], None],
) -> None:
    """Check engines against the file of a step that was found and not downloaded. context: to download
    or make it; converted: reports that."""
    known = description_of(step.path.name, receipt.details)
    alone = threading.Lock()

    def bring() -> None:
        with alone:
            if step.in_store is not None:
                began = time.monotonic()
                made = _bring(step, receipt, context())
                if made.how != "reused":
                    converted(step, made, time.monotonic() - began)

    inputs.leave(step.path, AbsentFile(receipt.sha256, known and known.summary, bring))
    data = receipt.details.get("data_sha256")
    if data:
        beside = step.path.with_name(step.path.name + DATA_SUFFIX)
        inputs.leave(beside, AbsentFile(str(data), None, bring))


def _bring(step: OnnxTarget, receipt: Receipt, context: OnnxContext) -> OnnxOutcome:
    """Download the file, or make it if the store no longer has it. Raises EngineError."""
    made = make_onnx(step.spec(), context)
    if made.receipt.sha256 != receipt.sha256:
        raise EngineBuildError(
            f"{step.label} was lost in the store after it was found there, and was made again with other "
            "bytes; run again"
        )
    step.in_store = None
    step.made(made.receipt)
    return made
