"""What an accuracy gate runs: samples, or the corners of the profiles, or both."""

import pytest

from scons_tensorrt.build.onnx_spec import step_fields
from scons_tensorrt.recipe.gate_plan import options_of, samples_of
from scons_tensorrt.recipe.options import Recipe, parse

DYNAMIC = {"x": ((1, 8), (2, 8), (4, 8))}
PROFILES = [{"x": [[1, 8], [2, 8], [4, 8]]}]


def corners(accuracy: object, **options: object) -> object:
    recipe = parse("a", {"accuracy": accuracy, **options})
    assert recipe.accuracy
    return options_of(recipe.accuracy, recipe, samples_of(recipe)).get("corners")


@pytest.mark.parametrize("accuracy", [{}, {"reference": "b.onnx"}, {"inputs": "a.npz"}, "a.npz"])
def test_dynamic_shapes_are_run_at_their_corners(accuracy: object) -> None:
    assert corners(accuracy, shapes=DYNAMIC) == {"profiles": PROFILES, "precision": "fp32"}


@pytest.mark.parametrize("shapes", [None, {"x": (1, 8)}])
def test_static_shapes_are_run_without_samples_alone(shapes: object) -> None:
    """So the key of an older gate of samples is what it was."""
    assert corners({"inputs": "a.npz"}, shapes=shapes) is None
    assert corners({"inputs": "a.npz", "corners": True}, shapes=shapes)
    assert corners({}, shapes=shapes)


def test_corners_can_be_switched_off() -> None:
    assert corners({"inputs": "a.npz", "corners": False}, shapes=DYNAMIC) is None


def test_none_is_off_and_an_empty_map_is_on() -> None:
    assert parse("a", {"accuracy": None}).accuracy is None
    assert parse("a", {"accuracy": {}}).accuracy


def test_a_quantized_network_is_judged_by_its_calibration() -> None:
    calibration = {"data": "c.npz", "at_least": 8}

    def chosen(**options: object) -> object:
        recipe: Recipe = parse("a", {"calibration": calibration, "precision": "int8", **options})
        samples = samples_of(recipe)
        return samples and (samples.where, samples.most, samples.at_least)

    assert chosen(accuracy={}) == ("c.npz", 16, 1)
    assert chosen(accuracy={}, calibration={**calibration, "most": 9}) == ("c.npz", 9, 1)
    assert chosen(accuracy="own.npz") == ("own.npz", None, 1)
    assert chosen(accuracy=None) is None


def test_the_reason_of_a_repeated_gate_is_short() -> None:
    recipe = parse("a", {"accuracy": {}, "shapes": DYNAMIC})
    assert recipe.accuracy
    fields = step_fields("accuracy", options_of(recipe.accuracy, recipe, None))
    assert fields["option corners"] == "fp32 x 1x8..2x8..4x8"
