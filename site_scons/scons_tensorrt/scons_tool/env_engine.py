"""`env.Engine` and `env.OnnxExport`: declare targets and all their dependencies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import SCons.Errors
import SCons.Node.FS
import SCons.Util

from ..artifact.filename import SIDECAR_SUFFIX, SUFFIX, EngineFilename
from ..errors import EngineError, PublishError, RecipeError
from ..hardware.choose_hardware import BUILT_IN, Hardware
from ..recipe.conversion import CONVERTED
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.option_checks import literal
from ..recipe.options import Recipe, check_name, name_options, parse
from . import settings, skip_up_to_date
from .builders import INTEGRITY, bytes_changed
from .engine_target import EngineTarget
from .nodes import EngineFile, as_list, data_nodes, file_node, set_class
from .session import Session, session_of

ALL = "*"  # hardware of any name


def Engine(
    env: Any,
    name: Any = None,
    source: Any = None,
    *positional: Any,
    hardware: Any = None,
    **options: Any,
) -> Any:
    """Declare the engine `name` of the ONNX `source`; returns the nodes [engine, sidecar], for each
    hardware in turn.

    hardware: a name or a list of names, as for HARDWARE=, which wins. precision: fp32
    (TF32 off), tf32, fp16, bf16, int8, fp8 or mixed; on a strongly typed runtime
    fp16, bf16 and int8 first convert the ONNX, as separate targets. shapes: {input: (min,
    opt, max)} or {input: shape} for dynamic inputs, sizes in elements; a list of such maps for
    several profiles. workspace_mb: MiB. calibration, accuracy: sets of samples. Every option with
    its unit and default: docs/recipes.md.

    Raises RecipeError or UserError for an invalid call (see `user_call`). An error of the model or the
    hardware only fails the engine when it is built, so that unrelated targets still build.
    """
    session = session_of(env)
    session.bind_settings(env)
    kinds = settings.read(env, session.top, hardware)
    options = name_options(positional, options)
    plugins = [file_node(env, each, "plugin") for each in as_list(options.get("plugins"))]
    timings = _timing_nodes(env, session, options)
    recipe = _recipe(session.recipes, name, options, plugins)
    onnx = _one_source(env, source)
    pairs = [_declare(env, session, chosen, recipe, onnx, plugins, timings) for chosen in kinds]
    return pairs[0] if len(pairs) == 1 else SCons.Util.NodeList(n for pair in pairs for n in pair)


def _declare(
    env: Any,
    session: Session,
    chosen: settings.Settings,
    recipe: Recipe,
    onnx: Any,
    plugins: list[Any],
    timings: Mapping[str, Any],
) -> Any:
    """Declare the pair for one hardware. timings: see `_timing_nodes`. Raises RecipeError and UserError."""
    if chosen.engine_dir not in session.checked:
        _check_folder(session, chosen.engine_dir)
        session.checked.add(chosen.engine_dir)
    hardware, problem = _hardware(session, chosen)
    folder, filename = _place(chosen, recipe, hardware)
    fault = _fault_of_place(session, folder, filename)
    if fault:
        hardware, problem = None, fault
        folder, filename = _place(chosen, recipe, None)
    path = Path(folder, filename)
    node = timings.get(ALL) or timings.get((hardware and hardware.name) or "")
    given = {"timing_cache": [node] if node else [], "plugin": plugins}
    for option, nodes in given.items():
        if nodes and env.fs.File(str(path)) in nodes:
            raise RecipeError(
                f"{option} {session.state.relative(path)}: the engine itself; name another file"
            )
    if node or recipe.timing_cache is not None:
        recipe = recipe._replace(timing_cache=node and Path(node.name))
    engine = EngineTarget(session.files, path, recipe, chosen, hardware, problem, onnx, plugins, node)
    _refuse_second(session, engine, folder, filename)
    summary = _convert(env, session, engine) if hardware is not None else None
    _connect(env, session, engine, summary)
    return engine.nodes


def _connect(env: Any, session: Session, engine: EngineTarget, summary: OnnxSummary | None) -> None:
    """Create the nodes of the pair and add their dependencies: one Value for each ingredient, so that
    --debug=explain names it; sorted, because SCons compares dependencies by position. summary: of the
    original, if it is known."""
    source = engine.declared_source
    if summary is not None and source is engine.original:
        data = data_nodes(source, summary.external)
    else:
        data = session.files.data_nodes(source)
    for node in (source, *engine.given, *data):
        set_class(node)
    pair = env.TRT_Engine(env.fs.File(str(engine.path)), source)
    values = _values(env, session, engine.fields)
    guard = session.value(env, INTEGRITY, bytes_changed)
    engine.connect(
        pair, [*engine.made_beside(), *engine.compared_by, *values, *engine.given, guard], EngineFile
    )
    if settings.option("clean"):
        from .requested_targets import named_for_cleaning

        if not named_for_cleaning(env, engine.nodes):
            env.NoClean(pair)  # this host may be unable to rebuild it
            engine.kept = os.path.lexists(engine.path)
    session.engines.append(engine)
    session.alias = skip_up_to_date.join(
        *(env, session.alias, engine.in_aliases(), session.on_skip, session.messages.reused)
    )


def _values(env: Any, session: Session, fields: Mapping[str, str]) -> Sequence[Any]:
    """The Value nodes of ingredients, sorted: one list for all engines that share `fields`."""
    known = session.values.get(id(fields))
    if known is None:
        found = [session.value(env, f"{name}={text}") for name, text in sorted(fields.items())]
        known = session.values[id(fields)] = fields, found
    return known[1]


def OnnxExport(
    env: Any, name: Any, script: Any, options: Any = None, files: Any = None, imports: Any = None
) -> Any:
    """Declare an ONNX that a Python function writes; returns its node, a source for `env.Engine`.

    script: `script.py:function`; called as `function(target, **options, **files)` by
    TRT_ONNX_PYTHON; it may return a JSON object, which is stored in the receipts. options: JSON
    values; files: paths or nodes by argument, which become dependencies; imports: your own modules
    that the script imports, also dependencies. SCons does not know what else the script reads.
    Raises UserError.
    """
    from . import declare_onnx_steps

    session = session_of(env)
    session.bind_settings(env)
    return declare_onnx_steps.declare_export(env, session, name, script, options, files, imports)


def _convert(env: Any, session: Session, declared: EngineTarget) -> OnnxSummary | None:
    """Declare the preparation, conversions, samples and gate that the engine needs; returns the summary of
    the original, if it is known. Raises RecipeError."""
    recipe, original = declared.recipe, declared.original
    as_it_is = recipe.precision not in CONVERTED and recipe.accuracy is None
    summary = session.files.summary_if_there(original, read=not as_it_is)
    suspect = summary is None or summary.shared or summary.refused
    if recipe.preparation.freeze or (suspect and recipe.preparation.way != "none"):
        from .prepared_target import declare_prepared

        declared.prepared = declare_prepared(env, session, declared, summary)
    if as_it_is:
        return summary
    from ..build.onnx_spec import SAMPLES, compile_step
    from . import declare_onnx_steps

    found = compile_step(recipe, declared.strongly_typed, summary)
    if found:
        step, given = found
        samples = declare_onnx_steps.sample_nodes(env, session, given, "calibration") if given else None
        if step.kind == SAMPLES:
            declared.samples = declare_onnx_steps.declare_samples(env, session, declared, samples)
        elif step.kind == "precision" and recipe.conversion.auto:
            declared.converted = declare_onnx_steps.declare_search(env, session, declared, step)
        else:
            declared.converted = declare_onnx_steps.declare_step(env, session, declared, step, samples)
    gate = recipe.accuracy
    if gate is not None:
        reference = file_node(env, gate.reference, "reference") if gate.reference else original
        declare_onnx_steps.declare_gate(env, session, declared, gate, reference)
        declare_onnx_steps.declare_recorded(env, session, declared, reference)
    return summary


def _timing_nodes(env: Any, session: Session, options: dict[str, Any]) -> Mapping[str, Any]:
    """The nodes of `timing_cache=` by name of the hardware, or under ALL; in the options, they become labels.
    Raises RecipeError, also for hardware that there is not: its engine would not be pinned."""
    given = options.get("timing_cache")
    if given is None:
        return {}
    if settings.records_timings():
        from .timing_target import declare

        session.declare_timings = declare
    if not isinstance(given, Mapping):
        node = file_node(env, given, "timing_cache")
        options["timing_cache"] = session.files.label(node)
        return {ALL: node}
    for name in given:
        if name not in BUILT_IN and not (session.top / "hardware" / f"{name}.json").is_file():
            raise RecipeError(
                f"timing_cache {literal(name)}: no hardware/{name}.json; write a name as in HARDWARE="
            )
    nodes = {name: file_node(env, value, "timing_cache") for name, value in given.items()}
    options["timing_cache"] = {name: session.files.label(node) for name, node in nodes.items()}
    return nodes


def _recipe(known: dict[str, Recipe], name: Any, options: dict[str, Any], plugins: list[Any]) -> Recipe:
    """Parse the options of an engine. known: a cache for engines with equal options. Raises RecipeError."""
    if plugins or "calibration" in options or "accuracy" in options:
        return parse(name, options, [Path(node.name) for node in plugins])
    key = repr(options)
    if key not in known:
        known[key] = parse(name, options, [])
    if not isinstance(name, str) or known[key].model != name:
        check_name(name)
        return known[key]._replace(model=name)
    return known[key]


def _one_source(env: Any, source: Any) -> Any:
    sources = as_list(source)
    if len(sources) != 1:
        raise RecipeError(f"{len(sources)} sources: give the one ONNX")
    return file_node(env, sources[0], "source")


def _fault_of_place(session: Session, folder: str, filename: str) -> EngineError | None:
    """The error if a folder is at the path of an engine or sidecar."""
    for name in (filename, filename + SIDECAR_SUFFIX):
        if session.files.is_folder(folder, name):
            where = session.state.relative(os.path.join(folder, name))
            return PublishError(f"{where} is a folder, but the engine goes there; remove it")
    return None


def _check_folder(session: Session, folder: str) -> None:
    """Raise UserError if ENGINE_DIR is a file or inside one."""
    place = Path(folder)
    for above in (place, *place.parents):
        if above.is_file():
            where = session.state.relative(above)
            raise SCons.Errors.UserError(f"ENGINE_DIR: {where} is a file; name a folder")
        if above.is_dir():
            break


def _hardware(session: Session, chosen: settings.Settings) -> tuple[Hardware | None, EngineError | None]:
    """The hardware, or the error that the engine's action will raise. `-h` resolves neither."""
    if settings.option("help"):
        return None, None
    try:
        return session.hardware.of(chosen), None
    except EngineError as error:
        return None, error


def _place(chosen: settings.Settings, recipe: Recipe, hardware: Hardware | None) -> tuple[str, str]:
    """The folder and filename of an engine."""
    if hardware is None:
        return chosen.folder, f"{recipe.model}__unknown_{recipe.precision}{SUFFIX}"
    folder = chosen.engine_dir
    if hardware.name:
        folder = os.path.join(folder, hardware.name)
    name = EngineFilename.of(hardware.signature, recipe.model, recipe.precision, recipe.ampere_plus)
    return folder, name.build()


def _refuse_second(session: Session, declared: EngineTarget, folder: str, filename: str) -> None:
    other = session.places.setdefault((folder, filename), declared)
    if other is not declared:
        at = f" at {other.place.at()}" if other.place and other.place.line else ""
        raise SCons.Errors.UserError(
            f"Engine {declared.name!r} is declared twice for the same hardware and precision (of "
            f"{other.original}{at} and {declared.original}); give one another name"
        )
