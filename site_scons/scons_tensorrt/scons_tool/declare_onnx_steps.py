"""Declare the files that are made from an ONNX before the compile: nodes and dependencies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Node.FS

from ..artifact.filename import RECORDED_SUFFIX, check_model_name
from ..artifact.state_folder import DATA_SUFFIX
from ..errors import RecipeError
from ..recipe.conversion import CONVERTED, Step
from ..recipe.gate_options import Gate
from ..recipe.gate_plan import options_of, recorded_samples_of, samples_of
from ..recipe.option_checks import literal
from ..recipe.sample_options import Samples, split_reader
from .accuracy_check import EngineAccuracyCheck
from .builders import INTEGRITY, bytes_changed
from .engine_target import EngineTarget
from .nodes import EngineFile, PreparedFile, as_list, file_node, set_class
from .onnx_target import OnnxTarget, SampleNodes
from .session import Session
from .settings import option


def _path(session: Session, owner: EngineTarget, end: str) -> Path:
    """The path of a file that is made for the owner's precision."""
    prepared = owner.prepared
    apart = prepared.apart if prepared and prepared.always else ""
    return session.state.onnx / f"{owner.name}.{owner.recipe.precision}{apart}{end}"


def declare_search(env: Any, session: Session, owner: EngineTarget, step: Step) -> OnnxTarget:
    """The conversion of the owner's ONNX with `keep_nodes="auto"`, which depends on the accuracy gate too.
    Raises UserError."""
    gate = owner.recipe.accuracy
    assert gate is not None
    chosen = samples_of(owner.recipe)
    samples = sample_nodes(env, session, chosen, "accuracy inputs") if chosen else None
    reference = {"reference": file_node(env, gate.reference, "reference")} if gate.reference else {}
    searched = step._replace(options={**step.options, **options_of(gate, owner.recipe, chosen)})
    return declare_step(env, session, owner, searched, samples, reference)


def declare_step(
    env: Any,
    session: Session,
    owner: EngineTarget,
    step: Step,
    samples: Any,
    more: Mapping[str, Any] = {},
) -> OnnxTarget:
    """The conversion of the owner's ONNX. more: further ONNX nodes by role. Raises UserError."""
    path, onnx = _path(session, owner, ".onnx"), {"onnx": owner.original, **more}
    target = OnnxTarget(
        session.files, owner, path, step.kind, step.options, onnx, samples, prepared=owner.prepared
    )
    return declare(env, target, session)


def declare_export(
    env: Any, session: Session, name: str, script: Any, options: Any, files: Any, imports: Any
) -> Any:
    """The node of the ONNX that a user's function writes. Raises RecipeError or UserError."""
    if not isinstance(options or {}, Mapping):
        raise RecipeError(f"options={options!r}: write a map of arguments")
    if not isinstance(files or {}, Mapping):
        raise RecipeError(f"files={files!r}: write a map from an argument to a path")
    for key in files or {}:  # those names are of `_imports` and of external data
        if not isinstance(key, str) or key.startswith(("import ", "data ")):
            raise RecipeError(f"files={{{key!r}: …}}: not an argument name; rename it")
    found = split_reader(script)
    if not found:
        raise RecipeError(f"{script!r}: write 'script.py:function'")
    check_model_name(name)
    files = {key: file_node(env, value, f"file {key}") for key, value in (files or {}).items()}
    files.update(_imports([file_node(env, each, "import") for each in as_list(imports)]))
    try:
        given = json.loads(json.dumps(options or {}, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"options={options!r}: {error}; files go into files=") from None
    if "function" in given or "target" in given or not isinstance(given, dict):
        raise RecipeError(f"options={options!r}: write a map of arguments, without target or function")
    path = session.state.onnx / f"{name}.onnx"
    given = {"function": found[1], **given}
    node = file_node(env, found[0], "script")
    target = OnnxTarget(session.files, None, path, "export", given, {}, None, node, files)
    return declare(env, target, session).target


def _imports(nodes: list[Any]) -> dict[str, Any]:
    """Modules that a script imports, by the names of their ingredients. Where two have one basename, as
    each `__init__.py` has, all are named by their path from the folder that they share."""
    nodes = list(dict.fromkeys(nodes))
    if len({node.name for node in nodes}) == len(nodes):
        return {f"import {node.name}": node for node in nodes}
    shared = os.path.commonpath([os.path.dirname(node.get_abspath()) for node in nodes])
    return {f"import {os.path.relpath(node.get_abspath(), shared)}": node for node in nodes}


def declare_samples(env: Any, session: Session, owner: EngineTarget, samples: Any) -> OnnxTarget:
    """The node of the samples in the format of a calibrator, for the owner's ONNX."""
    path, onnx = _path(session, owner, ".samples"), {"onnx": owner.original}
    derived = OnnxTarget(session.files, owner, path, "samples", {}, onnx, samples, prepared=owner.prepared)
    return declare(env, derived, session)


def declare_gate(env: Any, session: Session, owner: EngineTarget, gate: Gate, reference: Any) -> None:
    """Let the owner's ONNX be compared with `reference` before the compile, and its engine after it, where
    there is the GPU for it. If the ONNX is the reference, only its corners are run before the compile. Raises
    RecipeError."""
    chosen = samples_of(owner.recipe)
    samples = sample_nodes(env, session, chosen, "accuracy inputs") if chosen else None
    options = options_of(gate, owner.recipe, chosen)
    path = _gate_path(session, owner, options)
    compiled = owner.converted.target if owner.converted else owner.original

    def target(onnx: Mapping[str, Any], samples: SampleNodes | None) -> OnnxTarget:
        return OnnxTarget(
            session.files, owner, path, "accuracy", options, onnx, samples, prepared=owner.prepared
        )

    derived = target({"reference": reference, "converted": compiled}, samples)
    if reference is not compiled:
        owner.gate = derived = declare(env, derived, session)
    else:
        if "corners" in options:
            owner.gate = declare(env, target({"reference": reference}, None), session)
        if owner.hardware and owner.hardware.signature.product == "tensorrt":
            values = [session.value(env, f"{name}={text}") for name, text in sorted(derived.fields.items())]
            owner.compared_by = [*values, *(samples.nodes if samples else ())]
    owner.proof = EngineAccuracyCheck(
        *(derived, owner.python, session.hardware, session.messages),
        lambda: session.making.onnx_context(env),
    )


def _gate_path(session: Session, owner: EngineTarget, options: Mapping[str, Any]) -> Path:
    """The path of a gate's figures, with a digest where engines of one name have several shapes."""
    # Another kind of hardware may compile a converted one.
    unconverted = owner.converted is None and owner.recipe.precision in CONVERTED
    suffix = f"{'.unconverted' * unconverted}.accuracy.json"
    path, corners = _path(session, owner, suffix), options.get("corners")
    other = session.derived.get(path)
    if other is None or other.options.get("corners") == corners:
        return path
    digest = hashlib.sha256(json.dumps(corners, sort_keys=True).encode()).hexdigest()
    return _path(session, owner, f".{digest[:8]}{suffix}")


def declare_recorded(env: Any, session: Session, owner: EngineTarget, reference: Any) -> None:
    """Let samples and the outputs of `reference` be recorded beside the engine, if `accuracy=` asks for it.
    Raises RecipeError."""
    recipe = owner.recipe
    chosen, settings = recorded_samples_of(recipe), dict(recipe.settings)
    if chosen is None or recipe.accuracy is None:
        return
    loading = {"dla_core": settings.get("dla_core")}
    if "VERSION_COMPATIBLE" in recipe.flags:
        loading["host_code"] = 1
    options = {**recipe.accuracy.key_fields(), **{n: v for n, v in loading.items() if v is not None}}
    compiled = owner.converted.target if owner.converted else owner.original
    path, onnx = Path(f"{owner.path}{RECORDED_SUFFIX}"), {"reference": reference, "converted": compiled}
    samples = sample_nodes(env, session, chosen, "accuracy inputs")
    target = OnnxTarget(session.files, owner, path, "record", options, onnx, samples, prepared=owner.prepared)
    owner.recorded = declare(env, target, session)


def declare(env: Any, derived: OnnxTarget, session: Session) -> OnnxTarget:
    """Connect a target; engines that need the same file share it."""
    other = session.derived.get(derived.path)
    if other is not None and not other.same_as(derived):
        raise SCons.Errors.UserError(
            f"{derived.name!r}: {derived.label} is declared twice with different settings (from "
            f"{other.source} and {derived.source}); rename one"
        )
    if other is not None:
        other.owners += derived.owners
        return other
    if session.files.is_folder(str(derived.path.parent), derived.path.name):
        raise SCons.Errors.UserError(
            f"{derived.name!r}: {derived.label} is a folder, but must be a file; remove it"
        )
    session.derived[derived.path] = derived
    sources = derived.sources()
    for each in sources:
        set_class(each)
        if each in sources[: len(derived.onnx)] or each.name.endswith(".onnx"):
            each.attributes.trt_onnx = True
    made = env.TRT_Onnx(env.fs.File(str(derived.path)), sources)
    values = [session.value(env, f"{name}={text}") for name, text in sorted(derived.fields.items())]
    kind = PreparedFile if derived.kind == "prepare" else EngineFile
    derived.connect(made, [*values, session.value(env, INTEGRITY, bytes_changed)], kind)
    if option("clean"):
        from .requested_targets import named_for_cleaning

        if named_for_cleaning(env, made):
            env.Clean(made, env.fs.File(f"{derived.path}{DATA_SUFFIX}"))
        else:
            env.NoClean(made)
    return derived


def sample_nodes(env: Any, session: Session, samples: Samples, what: str) -> SampleNodes:
    """The files of a set of samples. Raises RecipeError."""
    where = samples.where
    if samples.function:
        reader = file_node(env, where, f"{what} reader")
        more = [file_node(env, each, f"{what} file") for each in samples.files]
        nodes, kind = [reader, *more], "reader"
    elif _is_folder(env, where):
        folder = env.fs.Dir(str(where)) if not isinstance(where, SCons.Node.FS.Dir) else where
        found = [n for pattern in ("*.npy", "*/*.npy") for n in folder.glob(pattern)]
        place = folder.get_abspath()
        return SampleNodes("npy", place, session.state.relative(place) + "/", _sorted(found), samples)
    else:
        nodes, kind = [file_node(env, where, what)], "npz"
        if not nodes[0].name.endswith(".npz"):
            raise RecipeError(
                f"{what} {nodes[0]}: give a .npz, a folder of .npy, or {literal('reader.py:function')}"
            )
    place = nodes[0].get_abspath()
    return SampleNodes(kind, place, session.state.relative(place), nodes, samples)


def _is_folder(env: Any, where: Any) -> bool:
    if isinstance(where, SCons.Node.FS.Dir):
        return True
    if not isinstance(where, (str, os.PathLike)):
        return False
    place = env.fs.Entry(str(where))
    if isinstance(place, SCons.Node.FS.Dir) or Path(place.get_abspath()).is_dir():
        return True
    source = Path(place.dir.srcnode().get_abspath(), place.name)  # of a VariantDir
    return source.is_dir()


def _sorted(nodes: list[Any]) -> list[Any]:
    return sorted(as_list(nodes), key=lambda node: str(node.get_abspath()))
