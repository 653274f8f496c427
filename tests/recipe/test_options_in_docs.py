"""docs/recipes.md and docs/builder.md against the code: each option is on one of the pages and no other, with
its default, and what has no effect or is refused is said as the code has it."""

import ast
import re
from pathlib import Path

import pytest
from test_options_by_product import RTX

from scons_tensorrt.recipe.builder_settings import (
    DEFAULT_NUMBERS,
    FORMATS,
    LISTS,
    NUMBERS,
    POOLS,
    TYPES,
    WORDS,
)
from scons_tensorrt.recipe.conversion import METHODS, WAYS, parse_calibration
from scons_tensorrt.recipe.gate_options import METRICS, parse_gate
from scons_tensorrt.recipe.options import BUILDER_SETTINGS, DEFAULTS, FLAGS, parse
from scons_tensorrt.recipe.options_by_product import WITHOUT_EFFECT, unsupported_options

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "recipes.md").read_text(encoding="utf-8")
BUILDER = (DOCS / "builder.md").read_text(encoding="utf-8")
HEAD = ["option", "default", "unit", "TensorRT 8, 10", "TensorRT 11", "RTX", "meaning"]
BUILDER_HEAD = ["option", "default", "value", "TensorRT", "RTX", "meaning"]


def rows(page, head):
    """{option: its row by column}."""
    lines = page.splitlines()
    start = lines.index(f"| {' | '.join(head)} |") + 2
    found = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        assert len(cells) == len(head), line
        for name in re.findall(r"`(\w+)`", cells[0]):
            assert name not in found
            found[name] = dict(zip(head, cells))
    return found


ROWS = {**rows(PAGE, HEAD), **rows(BUILDER, BUILDER_HEAD)}


def test_every_option_is_on_the_page_and_no_other():
    assert set(ROWS) == set(DEFAULTS)
    assert set(rows(BUILDER, BUILDER_HEAD)) <= set(BUILDER_SETTINGS)


@pytest.mark.parametrize("option", DEFAULTS)
def test_the_default_is_the_codes(option):
    said = ROWS[option]["default"].strip("`")
    actual = DEFAULTS[option]
    if option in NUMBERS or option in WORDS:
        actual = WORDS[option][0] if option in WORDS else DEFAULT_NUMBERS.get(option)
    if actual is None:
        assert said in ("none", "TensorRT's choice")
    else:
        value = ast.literal_eval(said)
        assert (tuple(value) if isinstance(value, list) else value) == actual


@pytest.mark.parametrize("option", DEFAULTS)
def test_every_option_has_a_meaning_and_says_who_takes_it(option):
    assert all(text for column, text in ROWS[option].items() if column != "unit")


def test_what_has_no_effect_on_rtx_is_said_so():
    idle = WITHOUT_EFFECT["tensorrt_rtx"]
    assert {name for name, row in ROWS.items() if row["RTX"] == "no effect"} == {
        name for name in idle if not name.startswith("flag ")
    }
    said = PAGE[PAGE.index("The same holds for the flags") :].partition(".\n")[0]
    flags = {name.removeprefix("flag ") for name in idle if name.startswith("flag ")}
    assert set(re.findall(r"`(\w+)`", said)) == flags


@pytest.mark.parametrize("option", [name for name, row in ROWS.items() if row["RTX"] == "refused"])
def test_what_rtx_refuses_is_refused(option):
    values = {
        "hardware_compatibility": "ampere_plus",
        "dla_core": 0,
        "timing_cache": "a.cache",
        "build_route": "-a=b",
    }
    values |= {"layer_devices": {"conv": "gpu"}, "engine_capability": "safety"}
    value = values[option]
    assert any(said.startswith(option) for said in unsupported_options(parse("a", {option: value}), RTX))


TAKEN = [*POOLS, *FORMATS, *TYPES, *(word for words in LISTS.values() for word in words)]
TAKEN += [word for words in WORDS.values() for word in words[1:]]


@pytest.mark.parametrize("name", TAKEN)
def test_every_word_that_an_option_takes_is_on_a_page(name):
    assert re.search(rf'`"?{name}"?`', PAGE + BUILDER)


@pytest.mark.parametrize("names", [METHODS, METRICS, WAYS], ids=["methods", "metrics", "ways"])
def test_every_way_to_calibrate_and_compare_is_on_the_page(names):
    assert all(re.search(rf'[`"]{name}[`"]', PAGE) for name in names if name != "qdq")


def test_flags_on_the_page_are_flags():
    part = PAGE[PAGE.index("## Flags") : PAGE.index("## Precision")]
    assert set(re.findall(r"`([A-Z_]+)`", part)) <= FLAGS


def test_the_example_of_the_accuracy_section_has_the_codes_defaults():
    gate = parse_gate({"inputs": "x.npz"})
    text = f'rtol={gate.rtol}, atol={gate.atol}, metric="{gate.metric}", reference={gate.reference}, '
    text += f"corners={gate.corners}, record={gate.record})`"
    assert text in PAGE
    made = parse_calibration({"data": "x.npz"})
    assert f"percentile={made.percentile}, per_channel={made.per_channel}" in PAGE
