"""The bill of materials as SPDX 3.0.1 in JSON-LD, with the profiles Core, Software, SimpleLicensing, AI and
Build."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ...recipe.model_card import Supplier
from .bill import DATA, ENGINE, FILE, MODEL, ONNX, PLUGIN, RECORDED, SAMPLES, Bom, Made, Part, Tool

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
SPEC = "3.0.1"
BUILD_TYPE = "urn:scons-tensorrt:step:"
_CREATION = "_:creation"
_PURPOSES = {
    **dict.fromkeys((ENGINE, MODEL, ONNX), "model"),
    **dict.fromkeys((DATA, SAMPLES, RECORDED), "data"),
    PLUGIN: "library",
}
_ALGORITHMS = ("sha256", "sha512")


def dump(bom: Bom) -> bytes:
    """The bytes of the file: the same for the same bill."""
    graph = _Graph(f"urn:scons-tensorrt:{bom.sha256[:32]}:")
    _fill(graph, bom)
    data = {"@context": CONTEXT, "@graph": graph.elements}
    return (json.dumps(data, sort_keys=True, indent=1) + "\n").encode("ascii")


class _Graph:
    """The elements of a document. IDs are relative to `base`."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.elements: list[dict[str, Any]] = []
        self._there: set[str] = set()

    def id_of(self, ref: str) -> str:
        safe = "".join(each if each.isalnum() or each in "-._" else "_" for each in ref)
        return self._base + safe

    def add(self, kind: str, ref: str, **fields: Any) -> str:
        """Add an element, once; returns its ID. Empty fields are left out."""
        spdx_id = self.id_of(ref)
        if spdx_id not in self._there:
            self._there.add(spdx_id)
            filled = {name: value for name, value in fields.items() if value not in ("", [], {}, None)}
            element = {"type": kind, "spdxId": spdx_id, "creationInfo": _CREATION, **filled}
            self.elements.append(element)
        return spdx_id

    def relate(self, kind: str, source: str, targets: Iterable[str], **fields: Any) -> None:
        to = sorted(set(targets))
        if to:
            ref = f"{kind}:{source.removeprefix(self._base)}"
            self.add("Relationship", ref, **{"from": source}, to=to, relationshipType=kind, **fields)

    def all_ids(self) -> list[str]:
        return [each["spdxId"] for each in self.elements if "spdxId" in each]


def _fill(graph: _Graph, bom: Bom) -> None:
    agents = {card.supplier for part in bom.parts.values() if (card := part.card) and card.supplier}
    author = next(iter(agents)) if len(agents) == 1 else Supplier("scons-tensorrt")
    _creation(graph, bom, author)
    runtimes = {ref: _runtime(graph, tool) for ref, tool in bom.runtimes.items()}
    packages = {ref: _part(graph, part) for ref, part in bom.parts.items()}
    delivered = [packages[r] for r, part in bom.parts.items() if part.kind in (ENGINE, RECORDED)]
    top = _top(graph, bom, author)
    graph.relate("contains", top, delivered, completeness="complete")
    for ref, spdx_id in packages.items():
        needed = [packages[each] for each in bom.needs.get(ref, ())]
        graph.relate("dependsOn", spdx_id, needed, completeness="complete")
        graph.relate("hasPrerequisite", spdx_id, [runtimes[ref]] if ref in runtimes else [])
    for step in bom.steps:
        _step(graph, step, packages)
    ids = graph.all_ids()
    sbom = graph.add("software_Sbom", "sbom", rootElement=[top], element=ids, software_sbomType=["build"])
    profiles = ["ai", "build", "core", "simpleLicensing", "software"]
    graph.add(
        "SpdxDocument",
        "document",
        name=bom.name,
        rootElement=[sbom],
        element=[*ids, sbom],
        profileConformance=profiles,
    )


def _creation(graph: _Graph, bom: Bom, author: Supplier) -> None:
    """The creation of the document. SPDX requires a time: without SOURCE_DATE_EPOCH it is 1970, so that the
    bytes repeat."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(bom.created or 0))
    tool = graph.add("Tool", "writer", name=f"{bom.writer.name} {bom.writer.version}")
    creation = {"created": created, "createdBy": [_agent(graph, author)], "createdUsing": [tool]}
    graph.elements.insert(0, {"type": "CreationInfo", "@id": _CREATION, "specVersion": SPEC, **creation})


def _agent(graph: _Graph, supplier: Supplier) -> str:
    kind = "email" if "@" in supplier.contact else "urlScheme"
    known = {"type": "ExternalIdentifier", "externalIdentifierType": kind, "identifier": supplier.contact}
    ref = f"agent:{supplier.name} {supplier.contact}"
    return graph.add(
        "Organization", ref, name=supplier.name, externalIdentifier=[known] if supplier.contact else []
    )


def _top(graph: _Graph, bom: Bom, author: Supplier) -> str:
    hashes = [_hash(algorithm, text) for algorithm, text in zip(_ALGORITHMS, (bom.sha256, bom.sha512))]
    file = graph.add(
        "software_File",
        "manifest-file",
        name=bom.name,
        verifiedUsing=hashes,
        software_primaryPurpose="manifest",
        software_additionalPurpose=["container"],
    )
    agent = _agent(graph, author)
    top = graph.add(
        "software_Package",
        "manifest",
        name=f"engines of {bom.name}",
        software_packageVersion=bom.version,
        software_primaryPurpose="manifest",
        suppliedBy=agent,
        originatedBy=[agent],
        comment=f"hardware: {bom.hardware}" if bom.hardware else "",
    )
    graph.relate("hasDistributionArtifact", top, [file])
    licenses = {part.card.license for part in bom.parts.values() if part.kind == ENGINE and part.card}
    engines = [part for part in bom.parts.values() if part.kind == ENGINE]
    if engines and all(part.card and part.card.license for part in engines):
        _license(graph, top, " AND ".join(f"({each})" if " " in each else each for each in sorted(licenses)))
    return top


def _runtime(graph: _Graph, tool: Tool) -> str:
    """What an engine needs to run, and its manifest does not deliver."""
    nvidia = _agent(graph, Supplier("NVIDIA", "https://www.nvidia.com"))
    return graph.add(
        "software_Package",
        f"runtime:{tool.name} {tool.version}",
        name=tool.name,
        software_packageVersion=tool.version,
        software_primaryPurpose="library",
        suppliedBy=nvidia,
        originatedBy=[nvidia],
        comment="not delivered with the engines",
    )


def _part(graph: _Graph, part: Part) -> str:
    """Add the package of a part and its file; returns the ID of the package. What steps read besides has
    only a file."""
    purpose, card = _PURPOSES.get(part.kind, "file"), part.card
    if part.kind in (SAMPLES, FILE):
        return _file(graph, part, purpose)
    agent = _agent(graph, card.supplier) if card and card.supplier else None
    is_model = purpose == "model"
    fields: dict[str, Any] = {
        "name": part.name,
        "software_packageVersion": part.version,
        "software_primaryPurpose": purpose,
        "software_additionalPurpose": _bsi(part),
        "suppliedBy": agent,
        "originatedBy": [agent] if agent else [],
        "description": card.description if card else "",
        "software_copyrightText": card.copyright if card else "",
        "software_downloadLocation": card.url if card else "",
        "comment": _comment(part),
    }
    if is_model:
        fields["ai_metric"] = _entries(dict(part.metrics))
        fields["ai_hyperparameter"] = _entries(part.facts)
        fields["ai_informationAboutApplication"] = card.intended_use if card else ""
        fields["ai_informationAboutTraining"] = card.training_data if card else ""
    package = graph.add("ai_AIPackage" if is_model else "software_Package", part.ref, **fields)
    graph.relate("hasDistributionArtifact", package, [_file(graph, part, purpose)])
    if card and card.license:
        _license(graph, package, card.license)
    return package


def _file(graph: _Graph, part: Part, purpose: str) -> str:
    sums = () if part.listed else zip(_ALGORITHMS, (part.sha256, part.sha512))
    return graph.add(
        "software_File",
        f"file:{part.ref}",
        name=part.name.rpartition("/")[2],
        verifiedUsing=[_hash(algorithm, text) for algorithm, text in sums if text],
        software_primaryPurpose=purpose,
        software_additionalPurpose=_bsi(part),
        comment=_comment(part),
    )


def _bsi(part: Part) -> list[str]:
    """BSI TR-03183-2: `container` means structured, `executable` is left out where it is not."""
    return ["container", *(["executable"] if part.kind in (ENGINE, PLUGIN) else [])]


def _comment(part: Part) -> str:
    listed = (
        f"; sha256 of the list of its files with the sha256 of each: {part.sha256}" if part.listed else ""
    )
    size = f"; {part.size} bytes" if part.size is not None else ""
    return f"{part.kind}{size}{listed}"


def _license(graph: _Graph, package: str, expression: str) -> None:
    """As declared; concluded too, as nothing else is known."""
    given = graph.add(
        "simplelicensing_LicenseExpression",
        f"license:{expression}",
        simplelicensing_licenseExpression=expression,
    )
    graph.relate("hasDeclaredLicense", package, [given])
    graph.relate("hasConcludedLicense", package, [given])


def _step(graph: _Graph, step: Made, packages: Mapping[str, str]) -> None:
    ref = f"step:{step.key}:{step.outputs[0]}"
    build = graph.add(
        "build_Build",
        ref,
        name=step.kind,
        build_buildType=f"{BUILD_TYPE}{step.kind}",
        build_buildId=step.key,
        build_parameter=_entries({"recipe_digest": step.key, **step.parameters}),
    )
    graph.relate("hasInput", build, [packages[each] for each in step.inputs])
    graph.relate("hasOutput", build, [packages[each] for each in step.outputs])
    tools = [graph.add("Tool", f"made-with:{t.ref}", name=f"{t.name} {t.version}") for t in step.tools]
    graph.relate("usesTool", build, tools)


def _entries(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"type": "DictionaryEntry", "key": key, "value": text} for key, text in texts.items()]


def _hash(algorithm: str, text: str) -> dict[str, str]:
    return {"type": "Hash", "algorithm": algorithm, "hashValue": text}
