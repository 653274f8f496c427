"""The option `model_card`: its fields, and licences as SPDX writes them."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from scons_tensorrt.errors import RecipeError
from scons_tensorrt.recipe.key_ingredients import value_fields
from scons_tensorrt.recipe.model_card import Supplier, _listed, license_fault, parse_model_card
from scons_tensorrt.recipe.options import parse

EXPRESSIONS = {
    "MIT": None,
    "Apache-2.0 OR MIT": None,
    "(MIT AND BSD-3-Clause) OR LicenseRef-NVIDIA": None,
    "GPL-2.0-only WITH Classpath-exception-2.0": None,
    "GPL-2.0+": None,
    "DocumentRef-a:LicenseRef-b": None,
    "apache": "SPDX lists no 'apache'",
    "NVIDIA Proprietary": "SPDX lists no 'NVIDIA'",
    "MIT OR": "a licence is missing at the end",
    "(MIT": "a closing bracket is missing",
    "MIT WITH foo": "SPDX lists no exception 'foo'",
    "MIT, BSD-3-Clause": "',' has no meaning there",
    "MIT MIT": "'MIT' has no meaning there",
    "Classpath-exception-2.0": "SPDX lists no 'Classpath-exception-2.0'",
    "(" * 1001: "longer than 1000 characters",
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_licence_is_an_spdx_expression(text: str) -> None:
    assert license_fault(text) == EXPRESSIONS[text]


@pytest.mark.parametrize("text", [text for text in EXPRESSIONS if len(text) < 1000])
def test_another_parser_of_expressions_agrees(text: str) -> None:
    library = pytest.importorskip("license_expression")
    if "LicenseRef" in text:
        pytest.skip("license_expression knows no licences of one's own")
    try:
        library.get_spdx_licensing().parse(text, validate=True, strict=True)
        fault = False
    except library.ExpressionError:
        fault = True
    assert fault == (EXPRESSIONS[text] is not None)


def test_the_list_is_that_of_cyclonedx() -> None:
    pytest.importorskip("cyclonedx")
    schema = resources.files("cyclonedx.schema._res") / "spdx.SNAPSHOT.schema.json"
    assert set.union(*map(set, _listed())) >= set(json.loads(schema.read_text())["enum"])


WRONG = {
    "5": (5, "model_card=5: write a map such as {'license': 'Apache-2.0'}"),
    "a licence": (
        {"license": "x"},
        "model_card license='x': not an SPDX licence expression (SPDX lists no 'x'); write one, such as "
        "'Apache-2.0', or 'LicenseRef-NAME' for one that SPDX does not list",
    ),
    "a field": ({"licence": "MIT"}, "model_card 'licence': unknown; did you mean license?"),
    "a contact": (
        {"supplier": "a <b>"},
        "model_card supplier='a <b>': write a name, or with an e-mail address or URL as in 'Example Ltd "
        "<models@example.org>'",
    ),
    "a URL without a host": (
        {"url": "https://["},
        "model_card url='https://[': write a URL that begins with https://",
    ),
    "a URL": ({"url": "x"}, "model_card url='x': write a URL that begins with https://"),
    "a number": ({"version": 1}, "model_card version=1: write one line of text"),
    "two lines": ({"version": "a\nb"}, "model_card version='a\\nb': write one line of text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name: str) -> None:
    value, text = WRONG[name]
    with pytest.raises(RecipeError) as refused:
        parse("a", {"model_card": value})
    assert str(refused.value) == text


def test_a_supplier_has_a_contact() -> None:
    card = parse_model_card({"supplier": "Example Ltd <https://example.org>"})
    assert card is not None
    assert card.supplier == Supplier("Example Ltd", "https://example.org")


def test_a_card_is_in_no_key() -> None:
    from test_options_by_product import RTX

    with_card = parse("a", {"model_card": {"license": "MIT"}})
    assert value_fields(with_card, RTX) == value_fields(parse("a", {}), RTX)
    assert with_card.to_json() == parse("a", {}).to_json()
