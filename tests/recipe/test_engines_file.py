"""What an engines.toml means, and the line that is named where it means nothing."""

import re

import pytest

from scons_tensorrt.cli.build import OTHERS
from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.engines_file import (
    EngineEntry,
    dump_engines,
    format_shape,
    model_name,
    parse_shape,
    propose_shapes,
    read_engines,
)
from scons_tensorrt.recipe.onnx.summary import OnnxInput
from scons_tensorrt.recipe.options import DEFAULTS


def read(text, path="engines.toml"):
    return read_engines(path, text.encode())


def test_a_table_is_an_engine_and_defaults_are_for_all():
    text = """
[defaults]
precision = "fp16"
workspace_mb = 2048

[engine.a]
onnx = "models/a.onnx"

[engine.b]
onnx = "models/b.onnx"
precision = ["fp32", "int8"]
hardware = ["orin_nx", "rtx_portable"]
calibration = "b.npz"
"""
    assert [entry._replace(keys={}) for entry in read(text)] == [
        EngineEntry("engines.toml:6", "a", "models/a.onnx", {"precision": "fp16", "workspace_mb": 2048}),
        *(
            EngineEntry(
                "engines.toml:9",
                "b",
                "models/b.onnx",
                {"precision": precision, "workspace_mb": 2048, "calibration": "b.npz"},
                ["orin_nx", "rtx_portable"],
            )
            for precision in ("fp32", "int8")
        ),
    ]


def test_two_tables_may_be_of_one_model():
    text = '[engine.a]\nonnx = "a.onnx"\n[engine.a_small]\nname = "a"\nonnx = "a.onnx"\nprecision = "fp16"'
    assert [(entry.name, entry.options["precision"]) for entry in read(text)] == [
        ("a", "fp32"),
        ("a", "fp16"),
    ]


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ('"1x3x8x8"', ((1, 3, 8, 8),) * 3),
        ('"1x3x8x8:2x3x8x8:4x3x8x8"', ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))),
        ("[1, 3, 8, 8]", [1, 3, 8, 8]),
        ("[[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]", [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]),
    ],
)
def test_a_shape_is_a_text_or_a_list(text, shapes):
    [entry] = read(f'[engine.a]\nonnx = "a.onnx"\nshapes = {{ x = {text} }}')
    assert entry.options["shapes"] == {"x": shapes}
    assert entry.problem() is None


def test_several_profiles_are_a_list_of_tables():
    [entry] = read('[engine.a]\nonnx = "a.onnx"\nshapes = [{ x = "1x3" }, { x = "4x3" }]')
    assert entry.options["shapes"] == [{"x": ((1, 3),) * 3}, {"x": ((4, 3),) * 3}]
    assert entry.problem() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[engine.a]\nonnx = "a', r"engines\.toml:2: "),
        ('\n[engines.a]\nonnx = "a.onnx"', r"engines\.toml:2: \[engines\]: write \[defaults\] or"),
        ('[default]\nprecision = "fp16"', r"\[default\]: write"),
        ("[engine.a]\n", r'engines\.toml:1: no onnx; write onnx = "models/a\.onnx"'),
        ("[engine.a]\nonnx = 1", r"engines\.toml:2: no onnx"),
        (
            '[engine.b]\nonnx="b.onnx"\n[engine.a]\nonnx = "a.onnx"\nprecison = 1',
            r"toml:5: .*did you mean precision",
        ),
        ("[defaults]\nonnx = 'a.onnx'", r"engines\.toml:2: unknown option onnx"),
        ('\n[engine.a]\nonnx = "a.onnx"\nshapes = { x = "1x" }', r'engines\.toml:4: shape "1x"'),
        ('[engine.a]\nonnx = "a.onnx"\nshapes = { x = "1:2" }', r"write 1x3x224x224, or MIN:OPT:MAX"),
        ("engine = 1", "engine is not a table"),
        ("", r"engines\.toml: no engines; write \[engine\.NAME\]"),
        ('[engine.a]\nonnx = "a.onnx"\nprecision = []', r"engines\.toml:3: precision = \[\]: write one"),
        ('[engine.a]\nonnx = "a.onnx"\nprecision = ["fp16", "fp16"]', "a list of different ones"),
        ("a = " + "9" * 10_000, r"engines\.toml:1: "),
        ("[engine]\na = 1", r"engine\.a is not a table"),
        ("x" * 3000 + "[" * 3000, r"engines\.toml:1: "),
        ("a = " + "[" * 3000, r"engines\.toml:1: "),
    ],
)
def test_what_means_nothing_is_named_with_its_line(text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_skipped():
    [entry] = read_engines("engines.toml", b'\xef\xbb\xbf[engine.a]\nonnx = "a.onnx"')
    assert entry.name == "a"


def test_bytes_that_are_no_text_are_named():
    with pytest.raises(RecipeError, match=r"engines\.toml: not UTF-8 text"):
        read_engines("engines.toml", b"\xff")


def test_an_option_that_no_model_can_have_is_named_with_its_line():
    [entry] = read('\n[engine.a]\nonnx = "a.onnx"\nworkspace_mb = "much"')
    place, problem = entry.problem()
    assert place == "engines.toml:4"
    assert problem.startswith('workspace_mb = "much": write')


@pytest.mark.parametrize("text", ["1x3x224x224", "1x3:2x3:8x3", "scalar", "-1x5", "1"])
def test_a_shape_reads_back(text):
    assert format_shape(parse_shape(text)) == text


@pytest.mark.parametrize("text", ["", "x", "1x", "1,3", "1x3:2x3", "1x3:2x3:3x3:4x3", "1.5", "1x3 "])
def test_a_text_that_is_no_shape_is_refused(text):
    with pytest.raises(RecipeError, match=re.escape(repr(text))):
        parse_shape(text)


def test_proposed_shapes_are_for_dynamic_inputs():
    inputs = [
        OnnxInput("image", (-1, 3, -1, -1)),
        OnnxInput("tokens", (-1, -1)),
        OnnxInput("fixed", (1, 3)),
        OnnxInput("unranked", None),
        OnnxInput("audio", (1, -1)),
    ]
    assert propose_shapes(inputs) == {
        "image": ((1, 3, 224, 224), (1, 3, 224, 224), (8, 3, 224, 224)),
        "tokens": ((1, 128), (1, 128), (8, 128)),
        "audio": ((1, 128),) * 3,
    }


def test_what_init_writes_reads_back():
    shapes = {'a "quoted" name': ((1, 3), (1, 3), (8, 3)), "b\\ä": ((1,),) * 3}
    text = dump_engines({"a": {"onnx": 'odd "name".onnx', "shapes": shapes}, "b": {"onnx": "b.onnx"}})
    first, second = read(text)
    assert (first.name, first.onnx, first.options) == (
        "a",
        'odd "name".onnx',
        {"precision": "fp32", "shapes": shapes},
    )
    assert (second.name, second.options) == ("b", {"precision": "fp32"})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/PP-OCRv6_det.onnx", "pp_ocrv6_det"),
        ("yolo11n.onnx", "yolo11n"),
        ("__x__y.onnx", "x_y"),
        ("模型.onnx", "model"),
        ("a" * 80 + ".onnx", "a" * 64),
    ],
)
def test_a_file_gives_its_model_a_name(path, name):
    assert model_name(path) == name


def test_the_command_knows_every_option_of_an_engine():
    assert {*OTHERS, "precision", "shapes"} == {*DEFAULTS}
