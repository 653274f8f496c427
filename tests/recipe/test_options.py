"""The options of env.Engine: checked when they are read, and told apart by what they change."""

import math
from pathlib import Path

import pytest

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.options import BUILDABLE, DEFAULTS, Recipe, parse


def test_no_options_are_the_defaults():
    assert parse("a", {}) == Recipe("a")


def test_a_default_written_out_is_the_same_recipe():
    assert parse("a", dict(DEFAULTS)) == parse("a", {})


def test_the_defaults_of_recipe_and_options_are_the_same():
    assert parse("a", {}).workspace_mb == DEFAULTS["workspace_mb"]
    assert parse("a", {}).precision == DEFAULTS["precision"]


@pytest.mark.parametrize("precision", BUILDABLE)
def test_a_precision_that_can_be_made_is_taken(precision):
    assert parse("a", {"precision": precision}).precision == precision


def test_flags_are_sorted_upper_case_and_once():
    recipe = parse("a", {"flags": ["strict_nans", "DEBUG", "DEBUG"]})
    assert recipe.flags == ("DEBUG", "STRICT_NANS")


def test_a_timeout_is_taken_in_seconds():
    assert parse("a", {"timeout_s": 90}).timeout_s == 90.0


BAD = [
    ({"precison": "fp16"}, "unknown option precison='fp16'; did you mean precision?"),  # a typo
    ({"zzz": 1}, "unknown option zzz=1; known: precision, shapes"),  # near nothing
    ({"precision": "FP16"}, "precision='FP16'"),  # upper case
    ({"precision": "half"}, "write one of fp32, tf32, fp16"),  # another name
    ({"precision": None}, "precision=None"),  # nothing
    ({"precision": ["fp16"]}, "precision"),  # a list
    ({"precision": "int4"}, "not supported by this version"),  # not yet
    ({"precision": "fp4"}, "not supported by this version"),  # not yet
    ({"workspace_mb": 0}, "workspace_mb=0"),  # none
    ({"workspace_mb": -1}, "workspace_mb=-1"),  # negative
    ({"workspace_mb": 1.5}, "workspace_mb=1.5"),  # a fraction
    ({"workspace_mb": "4096"}, "workspace_mb='4096'"),  # text
    ({"workspace_mb": True}, "workspace_mb=True"),  # a bool is an int to Python
    ({"workspace_mb": 1 << 44}, "workspace_mb"),  # more bytes than 64 bits count
    ({"flags": "STRICT_NANS"}, "write a list"),  # text would be read letter by letter
    ({"flags": b"REFIT"}, "flag"),  # bytes would be read number by number
    ({"flags": 5}, "write a list"),  # a number
    ({"flags": None}, "write a list"),  # nothing
    ({"flags": ["STRICT_NAN"]}, "did you mean STRICT_NANS?"),  # a typo
    ({"flags": ["QQ"]}, "flag QQ: unknown; known: DEBUG"),  # near nothing
    ({"flags": [1]}, "flags=[1]: write a list of names"),  # a number
    ({"flags": ["FP16"]}, "flag FP16: write precision='fp16' instead"),  # a precision
    ({"flags": ["tf32"]}, "write precision='tf32' instead"),  # a precision, lower case
    ({"timeout_s": 0}, "timeout_s=0"),  # at once
    ({"timeout_s": -5}, "timeout_s=-5"),  # before it began
    ({"timeout_s": "60"}, "timeout_s='60'"),  # text
    ({"timeout_s": True}, "timeout_s=True"),  # a bool is an int to Python
    ({"timeout_s": math.nan}, "timeout_s=nan"),  # not a number
    ({"timeout_s": 10**400}, "timeout_s is too large"),  # no float holds it
    ({"shapes": {"x": -1}}, "input `x`"),  # shapes are checked by their own rules
]


@pytest.mark.parametrize(("options", "reason"), BAD, ids=[str(o) for o, _ in BAD])
def test_a_bad_option_is_refused_with_what_to_write(options, reason):
    with pytest.raises(RecipeError) as caught:
        parse("a", options)
    assert reason in str(caught.value)


@pytest.mark.parametrize("model", ["Dino", "a-b", "", "../a", "a__b", "_a", "a" * 65, "a.b", None])
def test_a_bad_model_name_is_refused_by_name(model):
    with pytest.raises(RecipeError, match="model name") as caught:
        parse(model, {})
    assert repr(model) in str(caught.value)


def test_two_plugins_of_one_name_are_refused():
    with pytest.raises(RecipeError, match="two libraries have the same name"):
        parse("a", {}, [Path("x/lib.so"), Path("y/lib.so")])


def test_plugins_stay_in_the_order_in_which_they_are_loaded():
    paths = [Path("b.so"), Path("a.so")]
    assert parse("a", {}, paths).plugins == tuple(paths)


def key(options, model="a", plugins=()):
    return parse(model, options, plugins).key_fields()


def test_an_option_at_its_default_is_no_ingredient():
    assert key({}) == {"precision": "fp32"}


CHANGES = [
    ({"precision": "fp16"}, "precision"),
    ({"workspace_mb": 1024}, "workspace_mb"),
    ({"flags": ["STRICT_NANS"]}, "flags"),
    ({"shapes": {"x": (1, 3)}}, "shapes x"),
    ({"shapes": [{"x": (1, 3)}, {"x": (2, 3)}]}, "shapes[0] x"),
]


@pytest.mark.parametrize(("options", "name"), CHANGES, ids=[n for _, n in CHANGES])
def test_an_option_that_changes_bytes_is_an_ingredient_of_its_name(options, name):
    assert key(options).get(name) != key({}).get(name)


def test_a_timeout_changes_no_bytes():
    assert key({"timeout_s": 5}) == key({})


def test_the_order_of_flags_changes_no_bytes():
    assert key({"flags": ["DEBUG", "REFIT"]}) == key({"flags": ["refit", "debug"]})


def test_the_order_of_shapes_changes_no_bytes():
    assert key({"shapes": {"a": (1,), "b": (2,)}}) == key({"shapes": {"b": (2,), "a": (1,)}})


def test_the_order_of_profiles_is_an_ingredient():
    one, two = {"x": (1,)}, {"x": (2,)}
    assert key({"shapes": [one, two]}) != key({"shapes": [two, one]})


# An added empty profile changes an engine's bytes (FACTS 22).
PROFILES = [
    (None, [{}]),
    ([{"x": (1,)}], [{"x": (1,)}, {}]),
    ([{"x": (1,)}, {}], [{"x": (1,)}, {}, {}]),
]


@pytest.mark.parametrize(("one", "other"), PROFILES, ids=str)
def test_recipes_with_another_number_of_profiles_have_other_ingredients(one, other):
    try:
        first, second = parse("a", {"shapes": one}), parse("a", {"shapes": other})
    except RecipeError:
        return  # an empty profile may as well be refused
    assert len(first.profiles) == len(second.profiles) or first.key_fields() != second.key_fields()


def test_plugins_count_by_their_bytes_not_by_their_paths():
    assert key({}, plugins=[Path("x/lib.so")]) == key({}, plugins=[Path("/elsewhere/lib.so")])


def test_the_worker_is_told_all_that_changes_bytes():
    options = {
        "precision": "fp16",
        "shapes": {"x": ((1,), (2,), (3,))},
        "workspace_mb": 64,
        "flags": ["REFIT"],
    }
    assert parse("a", options, [Path("/opt/lib.so")]).to_json() == {
        "precision": "fp16",
        "profiles": [{"x": [(1,), (2,), (3,)]}],
        "workspace_mb": 64,
        "flags": ["REFIT"],
        "plugins": ["lib.so"],
    }
