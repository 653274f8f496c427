"""What the accuracy gate of a recipe runs: samples, and inputs drawn at the corners of its profiles."""

from __future__ import annotations

from typing import Any

from ..errors import RecipeError
from .gate_options import Gate
from .option_checks import option, setting
from .options import Recipe
from .sample_options import Samples

QUANTIZED = ("int8", "fp8")
MOST_CALIBRATION = 16  # samples of a calibration that judge a gate without samples of its own


def samples_of(recipe: Recipe) -> Samples | None:
    """The samples of the gate: given, or for int8 and fp8 the first of its calibration, because drawn inputs
    say nothing of the error of a quantized network."""
    gate, calibration = recipe.accuracy, recipe.conversion.calibration
    if gate is None or gate.samples or recipe.precision not in QUANTIZED or calibration is None:
        return gate.samples if gate else None
    most = min(calibration.samples.most or MOST_CALIBRATION, MOST_CALIBRATION)
    return calibration.samples._replace(most=most, at_least=1)


def recorded_samples_of(recipe: Recipe) -> Samples | None:
    """The samples to record for `scons-tensorrt check`, which are the first of the gate's; None without
    `record`. Raises RecipeError if the gate has no samples."""
    gate, samples = recipe.accuracy, samples_of(recipe)
    if gate is None or not gate.record:
        return None
    if samples is None:
        asked = setting("accuracy record", gate.record)
        raise RecipeError(f"{asked}: there are no samples to record; add {option('inputs')}")
    return samples._replace(most=min(gate.record, samples.most or gate.record), at_least=1)


def options_of(gate: Gate, recipe: Recipe, samples: Samples | None) -> dict[str, Any]:
    """The options of the gate's job, which are in its key. With corners: the profiles, and the precision that
    is compiled."""
    options = gate.key_fields()
    if gate.corners or (gate.corners is None and (samples is None or _dynamic(recipe))):
        profiles = [{name: [*map(list, bounds)] for name, bounds in each.items()} for each in recipe.profiles]
        options["corners"] = {"profiles": profiles, "precision": recipe.precision}
    return options


def _dynamic(recipe: Recipe) -> bool:
    """Whether a profile has a range."""
    return any(len({*bounds}) > 1 for profile in recipe.profiles for bounds in profile.values())
