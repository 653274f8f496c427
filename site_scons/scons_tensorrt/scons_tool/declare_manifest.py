"""`env.EngineManifest`: declare a manifest, and what lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Util

from ..errors import HandoffError
from ..release import BOM_VERSION, MANIFEST_VERSION
from . import settings
from .bom_target import BomTarget
from .builders import make_handoff_builder, out_of_date
from .manifest_target import ManifestTarget, engines_of, place_of
from .nodes import target_of
from .session import Session

if TYPE_CHECKING:
    from .model_signature_target import ModelSignatureTarget

GUARD = "what the manifest says of its engines"


def declare(env: Any, session: Session, file: Any, engines: Any, bom: Any = True) -> Any:
    """The nodes of a manifest, one after the other of those of several kinds of hardware. bom: whether it has
    bills of materials. Raises EngineError or UserError."""
    groups = engines_of(engines)
    targets = SCons.Util.flatten(file)
    if not targets or not targets[0]:
        raise HandoffError("no target; name a file, such as dist/manifest.json")
    if not isinstance(bom, bool):
        raise HandoffError(f"bom={bom!r}: write True or False")
    path = Path(env.File(targets[0]).get_abspath())
    builder, key = settings.value_of(env, "TRT_BUILDER_ID"), settings.signing_key(env, session.top)
    made = SCons.Util.NodeList()
    for kind, found in groups.items():
        where = place_of(path.parent, kind, len(groups)) / path.name
        listed = ManifestTarget(session.files, where, found, builder, key)
        made += _declare(env, session, listed)
        if bom:
            target = BomTarget(session.files, listed)
            made += _declare_beside(env, session, target, f"bill of materials, version {BOM_VERSION}")
        if key:
            made += _declare_signature(env, session, listed, key)
    return made


def _declare_signature(env: Any, session: Session, listed: ManifestTarget, key: str) -> list[Any]:
    """The node of the model signature, which only an ECDSA key makes."""
    from ..files.signing_keys import is_ecdsa
    from .model_signature_target import ModelSignatureTarget

    if not is_ecdsa(key):
        return []
    signature = ModelSignatureTarget(session.files, listed)
    return list(_declare_beside(env, session, signature, "model signature, version 1"))


def _declare(env: Any, session: Session, listed: ManifestTarget) -> Any:
    places = [listed.path, listed.sidecar, listed.sums, *([listed.envelope] if listed.signed else [])]
    nodes = [env.fs.File(str(place)) for place in places]
    for each in nodes:
        if isinstance(target_of(each), ManifestTarget):
            raise HandoffError(f"{session.state.relative(each.get_abspath())} belongs to another manifest")
    builder = make_handoff_builder(f"scons-tensorrt manifest, version {MANIFEST_VERSION}")
    made = builder(env, nodes, _sources(listed))
    listed.connect(made, [session.value(env, GUARD, out_of_date)])
    return made


def _sources(listed: ManifestTarget) -> list[Any]:
    recorded = [engine.recorded.target for engine in listed.engines if engine.recorded]
    return [*(engine.nodes[1] for engine in listed.engines), *recorded]


def _declare_beside(env: Any, session: Session, target: BomTarget | ModelSignatureTarget, text: str) -> Any:
    """text: the signature of its action."""
    listed = target.listed
    nodes = [env.fs.File(str(listed.path.with_name(name))) for name in target.names]
    made = make_handoff_builder(f"scons-tensorrt {text}")(env, nodes, _sources(listed))
    target.connect(made, [session.value(env, GUARD, out_of_date)])
    listed.beside.append(target)
    return made
