"""Measures what each layer of a converted ONNX costs, on the files that the last run declared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import AccuracyError, EngineBuildError, EngineError, RecipeError
from ..recipe.gate_options import Gate
from .child_process import run_program
from .child_programs import CONVERTER
from .declared_engines import DeclaredEngine
from .declared_onnx import DeclaredOnnx
from .onnx_spec import Onnx, OnnxSpec, SampleFiles, onnx_spec_of
from .run_onnx_step import PRIVATE
from .step_inputs import named_as_given, snapshot

CONVERSIONS = ("precision", "quantize")


def spec_of(engine: DeclaredEngine, most: int) -> OnnxSpec | None:
    """What to run for an engine: the ONNX and samples of its accuracy gate; without a gate, the
    conversion's, or drawn inputs. None if no step converts its ONNX. most: samples to use.

    Raises EngineError, also if the converted ONNX is not up to date.
    """
    steps = list(engine.steps())
    gate = next((step for step in steps if step.kind == "accuracy" and "converted" in step.roles), None)
    conversion = next((step for step in steps if step.kind in CONVERSIONS), None)
    if gate is None and conversion is None:
        return None
    for step in steps:
        found = step.up_to_date() if step.kind != "accuracy" else None
        if found and not found.current:
            raise EngineError(f"{step.label} is not up to date ({found.reason}); run `scons engines` first")
    if gate is not None:
        onnx, samples = gate.inputs()
        options = {name: gate.options[name] for name in ("rtol", "atol", "metric")}
        corners = gate.options.get("corners")
    else:
        assert conversion is not None
        onnx, samples, options, corners = *_of_conversion(conversion), Gate(None).key_fields(), None
    chosen = {**options, "most": most, "corners": corners or _corners(engine)}
    return onnx_spec_of(
        target=onnx["converted"].path,
        kind="sensitivity",
        options=chosen,
        fields={},
        onnx=onnx,
        samples=samples,
        source=onnx["converted"].label,
        script=None,
        files={},
        digest=engine.declaration.inputs.digest,
    )


def _of_conversion(step: DeclaredOnnx) -> tuple[dict[str, Onnx], SampleFiles | None]:
    onnx, samples = step.inputs()
    original = onnx.get("reference", onnx["onnx"])
    return {"reference": original, "converted": step.made()}, samples


def _corners(engine: DeclaredEngine) -> dict[str, Any]:
    """The profiles at whose optimum inputs are drawn; see recipe/gate_plan.py."""
    recipe = engine.item.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}
    return {"profiles": recipe.get("profiles") or [], "precision": recipe.get("precision") or "fp32"}


def measure(
    spec: OnnxSpec,
    top: Path,
    python: str,
    stopping: Callable[[], bool],
    progress: Callable[[Mapping[str, Any]], None] = lambda event: None,
) -> dict[str, Any]:
    """The figures of worker/onnx/layer_sensitivity.py. top: of the tree; python: the interpreter that has
    onnx; progress: called with an event for each layer that was run. Raises EngineError."""
    environment = {name: text for name, text in os.environ.items() if name not in PRIVATE}
    with tempfile.TemporaryDirectory(prefix="scons-tensorrt-") as name:
        folder = Path(os.path.realpath(name))
        places, samples = snapshot(spec, folder / "inputs", top)
        job = {
            "kind": spec.kind,
            "options": dict(spec.options),
            "onnx": places,
            "files": {},
            "target": "",
            "samples": samples,
            "temporary": name,
        }
        try:
            done, _ = run_program(CONVERTER, python, job, folder / "log", stopping, environment, progress)
        except (RecipeError, AccuracyError, EngineBuildError) as error:
            text = named_as_given(str(error), spec, folder / "inputs")
            raise type(error)(f"{spec.source}: {text}") from None
    return dict(done["facts"])
