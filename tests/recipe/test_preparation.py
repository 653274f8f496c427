"""The options `prepare` and `freeze`: what may be written and fits a model, and which models are prepared."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.conversion import Preparation, Step
from scons_tensorrt.recipe.onnx.read_onnx import read_onnx
from scons_tensorrt.recipe.onnx.summary import OnnxInput, OnnxSummary
from scons_tensorrt.recipe.options import parse
from scons_tensorrt.recipe.preparation import find_reasons, prepare_step, problems_with_frozen

AUDIO, RATE = OnnxInput("audio", (-1, -1), 1), OnnxInput("sr", (), 7)
SHAPES = {"audio": ((1, 5), (1, 8), (2, 8))}


def test_values_are_kept_as_json_has_them() -> None:
    given = {"sr": np.int64(16000), "gain": np.array([[0.5, 2]]), "on": True}
    found = parse("a", {"freeze": given}).preparation
    assert found == Preparation("auto", {"gain": [[0.5, 2.0]], "on": True, "sr": 16000})
    assert parse("a", {"prepare": "auto"}) == parse("a", {"freeze": None}) == parse("a", {})
    step = prepare_step(found, parse("a", {"shapes": SHAPES}).profiles)
    assert step == Step(
        "prepare",
        {
            "shapes": [{"audio": [[1, 5], [1, 8], [2, 8]]}],
            "freeze": {"gain": [[0.5, 2.0]], "on": True, "sr": 16000},
        },
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prepare": "never"}, "prepare='never': write one of auto, none"),
        ({"freeze": ["sr"]}, "freeze=['sr']: write a map from input name to value"),
        ({"freeze": {"sr": "16k"}}, "freeze sr='16k': write a number, or a list of numbers"),
        ({"freeze": {"sr": [1, None]}}, "freeze sr=None: write a number"),
        ({"freeze": {"sr": float("nan")}}, "freeze sr=nan: write a number"),
        ({"prepare": "none", "freeze": {"sr": 1}}, "freeze has no effect with prepare='none'"),
    ],
)
def test_a_wrong_option_is_refused_with_what_to_write(options: dict, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse("a", options)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("freeze", "shapes", "said"),
    [
        ({"sr": 1}, SHAPES, []),
        ({"rate": 1}, SHAPES, ["freeze: the model has no input `rate`; inputs: `audio` [-1, -1], `sr` []"]),
        ({"sr": 1}, {**SHAPES, "sr": (1,)}, ["shapes: input `sr` is frozen; leave out its shape"]),
        ({"sr": 1}, {"audio": (1, 2, 3)}, ["shape of `audio` [-1, -1] is 1x2x3: write 2 sizes, like (?, ?)"]),
        ({"audio": [[1]]}, None, []),
    ],
)
def test_frozen_inputs_are_checked_against_the_model(freeze: dict, shapes: object, said: list[str]) -> None:
    recipe = parse("a", {"freeze": freeze, "shapes": shapes})
    assert problems_with_frozen(recipe.preparation, recipe.profiles, [AUDIO, RATE]) == said


def test_a_model_is_prepared_for_what_is_refused_or_frozen() -> None:
    shared = {"?": (("audio", 0), ("audio", 1))}
    summary, profiles = OnnxSummary((AUDIO, RATE), {}, shared=shared), parse("a", {"shapes": SHAPES}).profiles
    trouble = "dimensions named `?` that differ in size"
    assert find_reasons(Preparation(), profiles, summary) == (trouble,)
    assert find_reasons(Preparation("none"), profiles, summary) == ()
    assert find_reasons(Preparation(), (), OnnxSummary((AUDIO,), {})) == ()
    both = find_reasons(Preparation(freeze={"sr": 1}), profiles, summary)
    assert both == (trouble, "input `sr` to freeze")


def test_freezing_is_in_no_key() -> None:
    """It is in the key through the ONNX that it makes."""
    assert parse("a", {"freeze": {"sr": 1}}).key_fields() == parse("a", {}).key_fields()


@pytest.mark.parametrize(
    ("package", "path", "shapes"),
    [
        (
            "rapidocr",
            "models/PP-OCRv6_det_small.onnx",
            {"x": ((1, 3, 32, 32), (1, 3, 736, 736), (1, 3, 1280, 1280))},
        ),
        (
            "rapidocr",
            "models/PP-OCRv6_rec_small.onnx",
            {"x": ((1, 3, 48, 32), (6, 3, 48, 320), (8, 3, 48, 1280))},
        ),
        ("magika", "models/standard_v3_3/model.onnx", {"bytes": ((1, 2048), (16, 2048), (64, 2048))}),
        ("swift_f0", "model.onnx", {"audio": ((1, 256), (1, 16000), (1, 160000))}),
    ],
)
def test_no_network_of_this_repo_is_prepared(package: str, path: str, shapes: dict) -> None:
    """TensorRT compiled them before there was this step: their engines stay up to date."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    summary = read_onnx(Path(spec.submodule_search_locations[0], path))
    assert find_reasons(Preparation(), parse("a", {"shapes": shapes}).profiles, summary) == ()
