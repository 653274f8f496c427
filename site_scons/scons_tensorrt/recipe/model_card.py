"""The option `model_card` of `env.Engine`: what a bill of materials says of a model and no file can tell.

It describes the model, not how its engine is made, so it is in no cache key.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..errors import RecipeError
from ..values import Value
from .option_checks import entry, hint, literal, setting

LIST_VERSION = "3.28.0"  # of the SPDX License List in spdx_licenses.txt
_LONGEST = 1000
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)")
_OWN = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_CONTACT = re.compile(r"(?P<name>[^<>]*[^<>\s])\s*<(?P<contact>[^<>\s]+)>")
_URL = re.compile(r"https?://[^\s<>\"/\[\]]+(?:/[^\s<>\"]*)?")
_MAIL = re.compile(r"[^\s<>@]+@[^\s<>@]+\.[^\s<>@]+")


class Supplier(Value):
    """contact: an e-mail address or URL; "" if not given."""

    name: str
    contact: str = ""


class ModelCard(Value):
    """license: an SPDX licence expression; url: where the model comes from; training_data: what it was
    trained on. Each "" (supplier: None) where it is not declared."""

    license: str = ""
    supplier: Supplier | None = None
    version: str = ""
    url: str = ""
    copyright: str = ""
    description: str = ""
    intended_use: str = ""
    training_data: str = ""


FIELDS = ModelCard._fields


def parse_model_card(value: Any) -> ModelCard | None:
    """The option `model_card`. Raises RecipeError."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        example = entry("license", literal("Apache-2.0"))
        raise RecipeError(f"{setting('model_card', value)}: write a map such as {example}")
    for name, given in value.items():
        if name not in FIELDS:
            raise RecipeError(f"model_card {literal(name)}: unknown; {hint(str(name), FIELDS)}")
        if not isinstance(given, str) or not given.strip() or not given.isprintable():
            raise RecipeError(f"{setting(f'model_card {name}', given)}: write one line of text")
    texts = {str(name): given.strip() for name, given in value.items()}
    if "license" in texts:
        _check_license(texts["license"])
    if "url" in texts and not _URL.fullmatch(texts["url"]):
        wrong = setting("model_card url", texts["url"])
        raise RecipeError(f"{wrong}: write a URL that begins with https://")
    supplier = _supplier(texts.pop("supplier")) if "supplier" in texts else None
    return ModelCard(supplier=supplier, **texts)


def _supplier(text: str) -> Supplier:
    found = _CONTACT.fullmatch(text)
    contact = found["contact"] if found else ""
    if ("<" in text or ">" in text) and not (_URL.fullmatch(contact) or _MAIL.fullmatch(contact)):
        example = literal("Example Ltd <models@example.org>")
        raise RecipeError(
            f"{setting('model_card supplier', text)}: write a name, or with an e-mail address or URL as in "
            f"{example}"
        )
    return Supplier(found["name"], contact) if found else Supplier(text)


def _check_license(text: str) -> None:
    """Raise RecipeError unless it is an SPDX licence expression, as in annex B of SPDX 3.0.1."""
    why = license_fault(text)
    if why:
        own = f"{literal('LicenseRef-NAME')} for one that SPDX does not list"
        raise RecipeError(
            f"{setting('model_card license', text)}: not an SPDX licence expression ({why}); write one, "
            f"such as {literal('Apache-2.0')}, or {own}"
        )


def license_fault(text: str) -> str | None:
    """Why a text is not an SPDX licence expression; None if it is one."""
    if len(text) > _LONGEST:
        return f"longer than {_LONGEST} characters"
    tokens, at = [], 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if not found:
            return f"{literal(text[at:].strip()[:1])} has no meaning there"
        tokens.append(found[1])
        at = found.end()
    try:
        rest = _any_of(tokens)
    except ValueError as error:
        return str(error)
    return f"{literal(rest[0])} has no meaning there" if rest else None


def _any_of(tokens: list[str]) -> list[str]:
    """Read terms joined by AND and OR; returns the tokens after them. Raises ValueError."""
    rest = _term(tokens)
    while rest and rest[0].upper() in ("AND", "OR"):
        rest = _term(rest[1:])
    return rest


def _term(tokens: list[str]) -> list[str]:
    if not tokens:
        raise ValueError("a licence is missing at the end")
    first, rest = tokens[0], tokens[1:]
    if first == "(":
        rest = _any_of(rest)
        if rest[:1] != [")"]:
            raise ValueError("a closing bracket is missing")
        return rest[1:]
    licenses, exceptions = _listed()
    if not (first.removesuffix("+") in licenses or first in licenses or _OWN.fullmatch(first)):
        raise ValueError(f"SPDX lists no {literal(first)}")
    if rest[:1] and rest[0].upper() == "WITH":
        if not rest[1:] or rest[1] not in exceptions:
            raise ValueError(f"SPDX lists no exception {literal(rest[1] if rest[1:] else '')}")
        return rest[2:]
    return rest


@cache
def _listed() -> tuple[frozenset[str], frozenset[str]]:
    """The identifiers of licences and of exceptions."""
    lines = (pkgutil.get_data(__name__, "spdx_licenses.txt") or b"").decode("ascii").splitlines()
    exceptions = {line.removeprefix("with ") for line in lines if line.startswith("with ")}
    return frozenset(line for line in lines if not line.startswith("with ")), frozenset(exceptions)
