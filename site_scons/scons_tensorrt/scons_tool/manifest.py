"""`env.EngineManifest`: the manifest of engines as targets.

Its sources are the sidecars, which are small; what engines are is known of them by then. A manifest is
a function of its engines, so it needs no receipt: it is right when its bytes are those that would
be written now, and that is asked, as of an engine, by a Value whose Decider judges the target.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import SCons.Builder
import SCons.Errors
import SCons.Node
import SCons.Node.FS
import SCons.Util

from ..errors import EngineError, HandoffError, plural
from ..files.writing import cause, write_atomic
from ..release import VERSION
from . import settings
from .engine_target import EngineTarget
from .manifest_target import ManifestTarget
from .pinned_action import PinnedAction
from .session import Session, session_of

GUARD = "what the manifest says of its engines"


def engines_of(engines: Any) -> dict[str | None, list[EngineTarget]]:
    """The engines that nodes are of, by their names, for each kind of hardware. Raises
    HandoffError."""
    found: dict[str | None, dict[str, EngineTarget]] = {}
    for node in SCons.Util.flatten(engines):
        declared = getattr(getattr(node, "attributes", None), "trt_engine", None)
        if not isinstance(declared, EngineTarget):
            raise HandoffError(f"{node!s}: no engine; give what env.Engine returned")
        other = found.setdefault(_kind(declared), {}).setdefault(declared.path.name, declared)
        if other is not declared:
            raise HandoffError(f"{other.label} and {declared.label} have one name; hand on one of them")
    if not found:
        raise HandoffError("no engines; give what env.Engine returned")
    return {kind: [group[name] for name in sorted(group)] for kind, group in found.items()}


def _kind(engine: EngineTarget) -> str | None:
    """The name of an engine's hardware, also if unresolved; None for the default host."""
    if engine.hardware is not None:
        return engine.hardware.name
    return os.path.basename(engine.asked_for).removesuffix(".json") or None


def place_of(folder: Path, kind: str | None, kinds: int) -> Path:
    """The folder of one hardware: if there are several, each named one has its own."""
    return folder / kind if kind and kinds > 1 else folder


def declare(env: Any, session: Session, target: Any, engines: Any) -> Any:
    """The nodes of a manifest, one after the other of those of several kinds of hardware. Raises
    EngineError or UserError."""
    groups = engines_of(engines)
    targets = SCons.Util.flatten(target)
    if not targets or not targets[0]:
        raise HandoffError("no target; name a file, such as dist/manifest.json")
    path = Path(env.File(targets[0]).get_abspath())
    builder, key = settings.builder_id(env), settings.signing_key(env, session.top)
    if "TRT_Manifest" not in env["BUILDERS"]:
        env["BUILDERS"]["TRT_Manifest"] = make_builder()
    made = SCons.Util.NodeList()
    for kind, found in groups.items():
        where = place_of(path.parent, kind, len(groups)) / path.name
        made += _declare(env, session, ManifestTarget(session, where, found, builder, key))
    return made


def _declare(env: Any, session: Session, listed: ManifestTarget) -> Any:
    places = [listed.path, listed.sidecar, listed.sums, *([listed.envelope] if listed.signed else [])]
    nodes = [env.fs.File(str(place)) for place in places]
    for each in nodes:
        if getattr(each.attributes, "trt_manifest", None):
            raise HandoffError(f"{session.state.relative(each.get_abspath())} is another manifest's, too")
    made = env.TRT_Manifest(nodes, [engine.pair[1] for engine in listed.engines])
    guard = session.value(env, GUARD, stale)
    for each in made:
        each.attributes.trt_manifest = listed
        each.add_dependency([guard])
        each.set_precious(True)
        each.set_nocache(True)
    return made


def stale(dependency: Any, target: Any, prev_ni: Any, repo_node: Any = None) -> bool:
    """The Decider: whether a file of a manifest is out of date. SCons calls it again after a build."""
    if target.get_state() > SCons.Node.executing:
        return False
    listed: ManifestTarget = target.attributes.trt_manifest
    if target.get_state() < SCons.Node.executing:
        listed.on_visit(target)
    if not listed.ready():
        return True
    try:
        if listed.right(target.name):
            return False
    except (EngineError, OSError):
        return True  # the action reports it
    if settings.writes():
        session_of(target.get_build_env()).make_folder(listed.path)
    return True


def write(target: Any, source: Any, env: Any) -> None:
    """The action. Raises BuildError."""
    listed: ManifestTarget = target[0].attributes.trt_manifest
    session = session_of(env)
    try:
        why = listed.reason()
        wrong = [name for name in listed.contents() if not listed.right(name)]
        for name in reversed(wrong):  # the manifest last: it lists the others
            write_atomic(listed.path.with_name(name), listed.contents()[name])
        if wrong:
            count = plural(len(listed.engines), "engine")
            session.report.console.line(f"WROTE {listed.label} ({count}) because {why}")
        foreign = None if listed.signed else listed.foreign_envelope()
        if foreign:
            session.report.console.line(f"engines: {foreign}")
    except (EngineError, OSError) as error:
        fail(session, target, listed.label, error)


def fail(session: Session, target: Any, label: str, error: EngineError | OSError) -> NoReturn:
    """Report a failure in one line. Raises BuildError."""
    if isinstance(error, OSError):
        where, why = error.filename or label, cause(error, "make room or make it writable")
        error = HandoffError(f"{where}: {why}")
    text = f"FAILED {label}: {type(error).__name__}: {error}"
    session.report.console.line(text, failure=True)
    raise SCons.Errors.BuildError(node=target, errstr="failed", status=2, exitstatus=2) from None


def describe(target: Any, source: Any, env: Any) -> str:
    """The text that SCons prints before the action: none; under -n, print what would be done."""
    listed: ManifestTarget = target[0].attributes.trt_manifest
    if settings.option("no_exec"):
        session = session_of(env)
        try:
            wrong = not listed.ready() or not all(map(listed.right, listed.contents()))
            if wrong:
                session.report.console.line(f"WOULD WRITE {listed.label} because {listed.reason()}")
        except (EngineError, OSError) as error:
            session.report.would_fail(listed.label, error)
    return ""


def make_builder() -> Any:
    """The builder behind `env.EngineManifest`."""
    text = f"scons-tensorrt manifest, version {VERSION}"
    return SCons.Builder.Builder(action=PinnedAction(write, describe, text))
