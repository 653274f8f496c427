"""The spec of an engine: its input files, and the cache key of all that it is made from.

`recipe/key_ingredients.py` has the ingredients of the key that are not files; `engine_spec` adds the sha256
of each file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.cache_key import make_key
from ..artifact.state_folder import StateFolder
from ..errors import RecipeError
from ..hardware.choose_hardware import Hardware
from ..hardware.signature import HardwareSignature
from ..recipe.conversion import faults, strongly_typed
from ..recipe.key_ingredients import input_name
from ..recipe.onnx.summary import OnnxSummary, check_data
from ..recipe.options import Recipe
from ..recipe.options_by_product import unsupported_options
from ..recipe.shapes import problems
from ..values import Value

TIMINGS = input_name("timing_cache")  # the ingredient; its filename does not matter


def _nothing() -> None:
    pass


if TYPE_CHECKING:  # creating a Protocol costs more than any other class
    from typing import Protocol

    class AccuracyCheck(Protocol):
        """The comparison of an engine with its original, on the GPU that it is for.

        key: of samples and bounds; why_not: a known reason not to run it; run: the figures of the engine,
        with that key as `by`, or the reason why it was not run. Raises EngineError; AccuracyError beyond a
        bound.
        """

        def key(self) -> str: ...

        def why_not(self) -> str | None: ...

        def run(self, spec: EngineSpec, engine: Path, sha256: str) -> dict[str, Any] | str: ...


class EngineSpec(Value):
    """The spec of an engine. engine: its path; ingredients: see key_ingredients.py; onnx, external: the input
    files; source: the label of the ONNX; told: further details for the receipt, which are not in the key;
    samples: of a calibrator, see worker/onnx/calibration_batches.py; check: if `accuracy=` is declared;
    absent: input files that were not downloaded, whose digests are known; bring: downloads or makes these.
    Raises EngineError."""

    engine: Path
    recipe: Recipe
    hardware: Hardware
    ingredients: Mapping[str, str]
    onnx: Path
    source: str
    external: Mapping[str, Path]
    told: Callable[[], Mapping[str, Any]] = dict
    samples: Path | None = None
    check: AccuracyCheck | None = None
    absent: Collection[Path] = ()
    bring: Callable[[], None] = _nothing

    @property
    def filename(self) -> str:
        return self.engine.name

    @property
    def key(self) -> str:
        return make_key(self.filename, self.ingredients)

    def inputs(self) -> dict[str, Path]:
        """Every input file by its ingredient name."""
        files = {"input onnx": self.onnx}
        files.update({f"input data {name}": path for name, path in self.external.items()})
        files.update({f"input plugin {path.name}": path for path in self.recipe.plugins})
        if self.samples:
            files[f"input samples {self.samples.name}"] = self.samples
        if self.recipe.timing_cache:
            files[TIMINGS] = self.recipe.timing_cache
        return files


def check_model(
    recipe: Recipe, signature: HardwareSignature, summary: OnnxSummary | None, label: str
) -> None:
    """Raise RecipeError with every problem of a recipe for a model and hardware. summary: None if the ONNX
    does not exist yet; label: of the ONNX, for the message."""
    found = unsupported_options(recipe, signature)
    if summary is not None:
        found += _input_problems(recipe, summary)
        strong = recipe.strongly_typed or strongly_typed(signature)
        found += faults(recipe.precision, recipe.conversion, strong, to_calibrate(recipe, summary))
    if found:
        raise RecipeError(f"{label}: {'; '.join(found)}")


def to_calibrate(recipe: Recipe, summary: OnnxSummary) -> OnnxSummary:
    """The summary that decides whether a calibration makes the Q/DQ nodes; see `preparation.to_convert`."""
    if not (recipe.conversion.calibration and summary.quantized):
        return summary
    from ..recipe.preparation import to_convert

    return to_convert(recipe.preparation, recipe.profiles, summary)


def _input_problems(recipe: Recipe, summary: OnnxSummary) -> list[str]:
    """Why shapes and frozen inputs do not fit the model."""
    if not recipe.preparation.freeze:
        return problems(recipe.profiles, summary.inputs)
    from ..recipe.preparation import problems_with_frozen

    return problems_with_frozen(recipe.preparation, recipe.profiles, summary.inputs)


class EngineInputs(Value):
    """The input files of an engine. external: by location, with the least size in bytes; samples: of a
    calibrator, with their label; exact: locations of data that must have exactly that size; timing_label: of
    the file of `timing_cache=`."""

    onnx: Path
    source: str
    external: Mapping[str, tuple[Path, int]]
    samples: tuple[Path, str] | None = None
    exact: Sequence[str] = ()
    timing_label: str = ""


def engine_spec(
    engine: Path,
    recipe: Recipe,
    hardware: Hardware,
    fields: Mapping[str, str],
    inputs: EngineInputs,
    digest: Callable[[Path, str], str],
    told: Callable[[], Mapping[str, Any]] = dict,
) -> EngineSpec:
    """The spec with the present input files. fields: the ingredients that are not files; digest: of a path
    and its label. Raises RecipeError, and EngineError as `digest` does."""
    ingredients = dict(fields)
    ingredients[input_name("onnx")] = digest(inputs.onnx, inputs.source)
    for location, (path, least) in inputs.external.items():
        label = f"external data {location!r} of {inputs.source}"
        ingredients[input_name("data", location)] = digest(path, label)
        check_data(path, label, least, location in inputs.exact)
    for path in recipe.plugins:
        ingredients[input_name("plugin", path.name)] = digest(path, f"plugin {path.name}")
    if recipe.timing_cache:
        ingredients[TIMINGS] = _timings(recipe.timing_cache, inputs.timing_label, digest)
    if inputs.samples:
        samples, label = inputs.samples
        ingredients[input_name("samples", samples.name)] = digest(samples, label)
    return EngineSpec(
        engine=engine,
        recipe=recipe,
        hardware=hardware,
        ingredients=ingredients,
        onnx=inputs.onnx,
        source=inputs.source,
        external={location: path for location, (path, _) in inputs.external.items()},
        told=told,
        samples=inputs.samples and inputs.samples[0],
    )


def _timings(path: Path, label: str, digest: Callable[[Path, str], str]) -> str:
    """The sha256 of a `timing_cache=`. Raises RecipeError if it is missing, and EngineError as `digest`."""
    from ..recipe.timing_cache_file import missing

    if not os.path.lexists(path):
        raise missing(label or path.name)
    return digest(path, f"timing_cache {label or path.name}")


def made_from(spec: EngineSpec, state: StateFolder) -> dict[str, Any]:
    """Details for the engine's receipt: its hardware, recipe and input files."""
    inputs = []
    for name, path in spec.inputs().items():
        label = state.relative(path)  # no absolute path in a receipt
        label = path.name if os.path.isabs(label) else label
        inputs.append({"role": name.split(" ")[1], "name": label, "sha256": spec.ingredients[name]})
    hardware = {"name": spec.hardware.name, "signature": spec.hardware.signature.to_json()}
    return {"hardware": hardware, "recipe": spec.recipe.to_json(), "inputs": inputs}
