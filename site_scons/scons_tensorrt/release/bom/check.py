"""Compare the bills of materials beside a manifest with it, and name what they lack of the minimum elements
that docs/handoff.md lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import HandoffError
from ...files.reading import read_small
from ...recipe.model_card import license_fault
from ...values import Value
from .. import LARGEST_BOM, boms_of
from ..manifest import Manifest, digest
from ..verify_release import read_manifest
from .bill import ENGINE, MODEL, ONNX
from .cyclonedx import OURS

# The elements that only the user knows: their fields of `model_card`.
DECLARED = {
    "licence": "license",
    "supplier": "supplier",
    "contact of the supplier": "supplier",
    "version": "version",
    "URL": "url",
    "copyright": "copyright",
    "intended use": "intended_use",
    "training data": "training_data",
}


class Missing(Value):
    """An element, the components that lack it, and what to do."""

    element: str
    components: tuple[str, ...]
    step: str


class Listed(Value):
    """A component as a list shows it."""

    kind: str
    name: str
    version: str
    licences: tuple[str, ...]


class Bills(Value):
    """A manifest and its CycloneDX bill. path: of the bill."""

    path: str
    manifest: Manifest
    data: Mapping[str, Any]

    def listed(self) -> list[Listed]:
        """All components."""
        return [
            Listed(kind_of(each), _text(each["name"]), _text(each.get("version", "")), tuple(_licences(each)))
            for each in self.data["components"]
        ]

    def components(self) -> list[Mapping[str, Any]]:
        return [each for each in self.data["components"] if kind_of(each) in (ENGINE, MODEL, ONNX)]


def load(manifest: str) -> Bills:
    """The bills beside a manifest. Raises HandoffError for bills that are missing, damaged or of another
    manifest."""
    try:
        listed = read_manifest(manifest)
    except HandoffError as error:
        raise HandoffError(f"{manifest}: {error}") from None
    cdx, spdx = (Path(manifest).with_name(name) for name in boms_of(Path(manifest).name))
    data, graph = _read(cdx), _read(spdx)
    try:
        engines = {each["name"]: _hashes(each) for each in data["components"] if kind_of(each) == ENGINE}
        stated = _hashes(data["metadata"]["component"]).get("SHA-256")
        files = {e["name"]: _spdx_hashes(e) for e in graph["@graph"] if e["type"] == "software_File"}
        bills = Bills(str(cdx), listed.manifest, data)
        bills.listed(), list(missing(bills))  # read all that is used later
    except (KeyError, TypeError, AttributeError) as error:
        raise HandoffError(f"{cdx}: damaged ({type(error).__name__}); run `scons dist`") from None
    if stated != digest(listed.data) or files.get(Path(manifest).name, {}).get("sha256") != stated:
        raise HandoffError(f"{cdx}: of another manifest; write both again")
    for name, entry in listed.manifest.engines.items():
        for path, found in (
            (cdx, engines.get(name, {}).get("SHA-256")),
            (spdx, files.get(name, {}).get("sha256")),
        ):
            if found != entry.sha256:
                raise HandoffError(f"{path}: sha256 of {name} is {found}, in the manifest {entry.sha256}")
    return bills


def missing(bills: Bills) -> Iterator[Missing]:
    """What the bills lack."""
    if "timestamp" not in bills.data["metadata"]:
        yield Missing("time", (bills.path,), "set SOURCE_DATE_EPOCH when it is written")
    lacks: dict[tuple[str, str], list[str]] = {}
    for component in bills.components():
        stated, hashes = declared(component), _hashes(component)
        fault = license_fault(stated["licence"]) if stated["licence"] else None
        found = {element: stated[element] for element in DECLARED}
        found.update({"sha256": hashes.get("SHA-256", ""), "sha512": hashes.get("SHA-512", "")})
        absent = [element for element, text in found.items() if not text]
        absent += [f"licence ({fault})"] if fault else []
        for element in absent:
            field = DECLARED.get(element.partition(" (")[0])
            step = (
                f"write model_card=dict({field}=…) of env.Engine"
                if field
                else "remove it and run `scons dist`"
            )
            lacks.setdefault((element, step), []).append(str(component["name"]))
    for (element, step), names in lacks.items():
        yield Missing(element, tuple(names), step)


def declared(component: Mapping[str, Any]) -> dict[str, str]:
    """The elements that the user declared, by their names in DECLARED; "" for what is missing."""
    supplier, card = component.get("supplier", {}), component.get("modelCard", {})
    urls = [each.get("url", "") for each in component.get("externalReferences", [])]
    uses = card.get("considerations", {}).get("useCases", [])
    trained = card.get("modelParameters", {}).get("datasets", [])
    version, hashes = component.get("version", ""), _hashes(component)
    own = version == hashes.get("SHA-256", "")[:12]  # filled by itself
    found = {
        "licence": next(_licences(component), ""),
        "supplier": supplier.get("name", ""),
        "contact of the supplier": str(supplier.get("contact") or supplier.get("url") or ""),
        "version": "" if own else version,
        "URL": next(iter(urls), ""),
        "copyright": component.get("copyright", ""),
        "intended use": next(iter(uses), ""),
        "training data": next((each.get("name", "") for each in trained), ""),
    }
    return {element: _text(value) for element, value in found.items()}


def _licences(component: Mapping[str, Any]) -> Iterator[str]:
    return (_text(each.get("expression", "")) for each in component.get("licenses", []))


def _text(value: Any) -> str:
    """Raises TypeError, as for anything in a damaged bill."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def kind_of(component: Mapping[str, Any]) -> str:
    """What a component is, as in bill.py."""
    said = {each["name"]: each["value"] for each in component.get("properties", [])}
    return str(said.get(f"{OURS}kind", ""))


def _hashes(component: Mapping[str, Any]) -> dict[str, str]:
    return {each["alg"]: each["content"] for each in component.get("hashes", [])}


def _spdx_hashes(element: Mapping[str, Any]) -> dict[str, str]:
    return {each["algorithm"]: each["hashValue"] for each in element.get("verifiedUsing", [])}


def _read(path: Path) -> Any:
    try:
        return json.loads(read_small(path, LARGEST_BOM, follow=False))
    except OSError as error:
        raise HandoffError(f"{path}: {error.strerror}; env.EngineManifest writes it") from None
    except (ValueError, RecursionError) as error:
        raise HandoffError(f"{path}: damaged ({type(error).__name__}); run `scons dist`") from None
