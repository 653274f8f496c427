"""The ingredients of an engine, and how two sets of them differ, in words."""

import pytest
from boards import JETSON
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.hardware.signature import HardwareSignature
from scons_tensorrt.recipe.key_ingredients import VERSION, differences, input_name, value_fields
from scons_tensorrt.recipe.options import parse

ORIN = {
    **JETSON,
    "sm_count": 8,
    "jetpack": "6.2",
}


def fields(options=(), **hardware):
    signature = HardwareSignature.from_json({**ORIN, **hardware}, "orin")
    return value_fields(parse("a", dict(options)), signature)


def changed(one, other):
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def test_the_ingredients_are_recipe_version_hardware_and_options():
    assert fields() == {
        "recipe version": VERSION,
        "hardware product": "tensorrt",
        "hardware runtime_version": "10.3.0.30",
        "hardware os": "linux",
        "hardware machine": "aarch64",
        "hardware compute_capability": "8.7",
        "hardware sm_count": "8",
        "option precision": "fp32",
    }


def test_one_hardware_field_is_one_ingredient():
    assert changed(fields(), fields(sm_count=16)) == {"hardware sm_count"}


def test_one_option_is_one_ingredient():
    assert changed(fields(), fields({"workspace_mb": 1}.items())) == {"option workspace_mb"}


def test_what_is_only_recorded_is_no_ingredient():
    assert fields(recorded={"driver": "540.4.0"}) == fields()


def test_every_ingredient_is_text():
    assert all(isinstance(value, str) for value in fields({"shapes": {"x": (1,)}}.items()).values())


@pytest.mark.parametrize(
    ("role", "name", "ingredient"),
    [
        ("onnx", "", "input onnx"),
        ("data", "weights.bin", "input data weights.bin"),
        ("plugin", "lib.so", "input plugin lib.so"),
    ],
)
def test_the_ingredient_of_a_file(role, name, ingredient):
    assert input_name(role, name) == ingredient


OLD, NEW = "a" * 64, "b" * 64
SHOWN = ("a" * 12, "b" * 12)

WORDS = [
    ({"input onnx": OLD}, {"input onnx": NEW}, "models/m.onnx changed: %s → %s" % SHOWN),
    (
        {"input data w.bin": OLD},
        {"input data w.bin": NEW},
        "external data w.bin changed: %s → %s" % SHOWN,
    ),
    (
        {"input data my weights.bin": OLD},
        {"input data my weights.bin": NEW},
        "external data my weights.bin changed: %s → %s" % SHOWN,
    ),
    ({}, {"input plugin l.so": NEW}, "plugin l.so changed: none → bbbbbbbbbbbb"),
    ({"input plugin l.so": OLD}, {}, "plugin l.so changed: aaaaaaaaaaaa → none"),
    ({"option precision": "fp32"}, {"option precision": "fp16"}, "precision changed: fp32 → fp16"),
    ({}, {"option workspace_mb": "64"}, "workspace_mb changed: 4096 → 64"),  # from its default
    ({"option workspace_mb": "64"}, {}, "workspace_mb changed: 64 → 4096"),  # and back
    ({}, {"option flags": "REFIT"}, "flags changed: unset → REFIT"),
    ({}, {"option tactic_sources": ""}, "tactic_sources changed: unset → []"),
    ({"option tactic_sources": ""}, {}, "tactic_sources changed: [] → unset"),
    ({"option shapes x": "1x3"}, {"option shapes x": "2x3"}, "shapes x changed: 1x3 → 2x3"),
    ({"hardware sm_count": "8"}, {"hardware sm_count": "16"}, "hardware sm_count changed: 8 → 16"),
    ({}, {"hardware l2_bytes": "4"}, "hardware l2_bytes changed: unknown → 4"),
    ({"recipe version": "1"}, {"recipe version": "2"}, "recipe version changed: 1 → 2"),
    ({"colour": "red"}, {"colour": "blue"}, "colour changed: red → blue"),  # of a later version
]


@pytest.mark.parametrize(("old", "new", "words"), WORDS, ids=[words for _, _, words in WORDS])
def test_a_difference_is_told_in_words_old_then_new(old, new, words):
    assert differences(old, new, "models/m.onnx") == [words]


def test_files_are_told_before_options_before_hardware_before_the_recipe():
    new = {"recipe version": "1", "hardware os": "x", "option flags": "x", "input onnx": NEW}
    told = differences({}, new, "m.onnx")
    assert [line.split()[0] for line in told] == ["m.onnx", "flags", "hardware", "recipe"]


ingredients = st.dictionaries(
    st.sampled_from(["input onnx", "input data w", "option flags", "hardware os", "recipe version", "z"]),
    st.text(min_size=1, max_size=5),
)


@given(ingredients, ingredients)
def test_each_ingredient_that_differs_is_told_once_and_no_other(old, new):
    assert len(differences(old, new, "m.onnx")) == len(changed(old, new))


@given(ingredients)
def test_the_same_ingredients_do_not_differ(one):
    assert differences(one, dict(one), "m.onnx") == []


@pytest.mark.parametrize(
    ("field", "absent"),
    [("precision", "fp32"), ("workspace_mb", "4096"), ("flags", "unset"), ("shapes x", "unset")],
)
def test_an_absent_option_is_reported_by_its_default(field, absent):
    assert differences({}, {f"option {field}": "new"}, "a.onnx") == [f"{field} changed: {absent} → new"]
