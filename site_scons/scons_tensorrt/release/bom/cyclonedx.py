"""The bill of materials as CycloneDX 1.6 in JSON (ECMA-424), with model cards and a formulation."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from ...recipe.model_card import ModelCard
from .bill import DATA, ENGINE, FILE, MODEL, ONNX, PLUGIN, RECORDED, SAMPLES, Bom, Made, Part, Tool

SPEC = "1.6"
_TYPES = {
    **dict.fromkeys((ENGINE, MODEL, ONNX), "machine-learning-model"),
    **dict.fromkeys((DATA, SAMPLES, RECORDED), "data"),
    PLUGIN: "library",
    FILE: "file",
}
OURS = "scons-tensorrt:"  # of property names
_NAMESPACE = uuid.UUID("6f0b7a8e-53b5-5c0e-9a7d-0d6c1b0f7a11")


def dump(bom: Bom) -> bytes:
    """The bytes of the file: the same for the same bill."""
    root = f"manifest:{bom.name}"
    data = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": _metadata(bom, root),
        "components": [*(_component(each) for each in bom.parts.values()), *map(_runtime, _runtimes(bom))],
        "dependencies": list(_dependencies(bom, root)),
        "formulation": [_formula(bom)],
    }
    text = json.dumps(data, sort_keys=True)
    data["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, text)}"  # the same for the same contents
    return (json.dumps(data, sort_keys=True, indent=1) + "\n").encode("ascii")


def _metadata(bom: Bom, root: str) -> dict[str, Any]:
    tool = {"type": "application", "name": bom.writer.name, "version": bom.writer.version}
    component = {
        "type": "application",
        "bom-ref": root,
        "name": bom.name,
        "version": bom.version,
        "hashes": [
            {"alg": "SHA-256", "content": bom.sha256},
            {"alg": "SHA-512", "content": bom.sha512},
        ],
        "properties": _properties({"hardware": bom.hardware} if bom.hardware else {}),
    }
    found: dict[str, Any] = {
        "lifecycles": [{"phase": "build"}],
        "tools": {"components": [tool]},
        "component": _filled(component),
    }
    suppliers = [part.card.supplier for part in bom.parts.values() if part.card and part.card.supplier]
    if suppliers and all(each == suppliers[0] for each in suppliers):
        found["supplier"] = _organization(suppliers[0].name, suppliers[0].contact)
    if bom.created is not None:
        found["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(bom.created))
    return found


def _component(part: Part) -> dict[str, Any]:
    hashes = [] if part.listed else [{"alg": "SHA-256", "content": part.sha256}]
    hashes += [{"alg": "SHA-512", "content": part.sha512}] if part.sha512 else []
    card = part.card
    found: dict[str, Any] = {
        "type": _TYPES[part.kind],
        "bom-ref": part.ref,
        "name": part.name,
        "version": part.version,
        "description": card.description if card else "",
        "hashes": hashes,
        "copyright": card.copyright if card else "",
        "licenses": [{"expression": card.license}] if card and card.license else [],
        "externalReferences": [{"type": "distribution", "url": card.url}] if card and card.url else [],
        "properties": _properties(_facts(part)) + _bsi(part),
        "modelCard": _model_card(part, card) if _TYPES[part.kind] == "machine-learning-model" else {},
    }
    if card and card.supplier:
        found["supplier"] = found["manufacturer"] = _organization(card.supplier.name, card.supplier.contact)
    return _filled(found)


def _facts(part: Part) -> dict[str, str]:
    facts = dict(part.facts)
    if part.size is not None:
        facts["size"] = str(part.size)
    if part.listed:
        facts["sha256_of_file_list"] = part.sha256
    return {"kind": part.kind, **facts}


def _bsi(part: Part) -> list[dict[str, str]]:
    """The properties of BSI TR-03183-2 that CycloneDX has no field for, in BSI's names."""
    executable = "executable" if part.kind in (ENGINE, PLUGIN) else "non-executable"
    named = {"filename": part.name.rpartition("/")[2], "executable": executable}
    named.update({"archive": "no archive", "structured": "structured"})
    return [{"name": f"bsi:component:{name}", "value": value} for name, value in named.items()]


def _model_card(part: Part, card: ModelCard | None) -> dict[str, Any]:
    metrics = [{"type": kind, "value": value} for kind, value in part.metrics]
    data = [{"type": "dataset", "name": card.training_data}] if card and card.training_data else []
    uses = [card.intended_use] if card and card.intended_use else []
    return _filled(
        {
            "modelParameters": _filled({"datasets": data}),
            "quantitativeAnalysis": _filled({"performanceMetrics": metrics}),
            "considerations": _filled({"useCases": uses}),
        }
    )


def _runtimes(bom: Bom) -> list[Tool]:
    return sorted(set(bom.runtimes.values()), key=lambda tool: tool.ref)


def _runtime(tool: Tool) -> dict[str, Any]:
    """What an engine needs to run, and its manifest does not deliver."""
    return {
        "type": "library",
        "bom-ref": tool.ref,
        "name": tool.name,
        "version": tool.version,
        "supplier": {"name": "NVIDIA"},
        "scope": "required",
        "properties": _properties({"kind": "runtime", "delivered": "false"}),
    }


def _dependencies(bom: Bom, root: str) -> Iterator[dict[str, Any]]:
    delivered = [ref for ref, part in bom.parts.items() if part.kind in (ENGINE, RECORDED)]
    yield {"ref": root, "dependsOn": sorted(delivered)}
    for ref in bom.parts:
        needed = {*bom.needs.get(ref, ())} | ({bom.runtimes[ref].ref} if ref in bom.runtimes else set())
        yield _filled({"ref": ref, "dependsOn": sorted(needed)})
    yield from ({"ref": tool.ref} for tool in _runtimes(bom))


def _formula(bom: Bom) -> dict[str, Any]:
    """How the engines were made: one workflow, a task for each step."""
    tools = sorted({tool for step in bom.steps for tool in step.tools}, key=lambda tool: tool.ref)
    components = [
        {"type": "application", "bom-ref": f"made-with:{t.ref}", "name": t.name, "version": t.version}
        for t in tools
    ]
    return {
        "bom-ref": "formula:engines",
        "components": components,
        "workflows": [
            {
                "bom-ref": "workflow:engines",
                "uid": bom.sha256,
                "name": "engines",
                "taskTypes": ["build"],
                "tasks": [_task(step) for step in bom.steps],
            }
        ],
    }


def _task(step: Made) -> dict[str, Any]:
    ref = f"step:{step.key}:{step.outputs[0]}"
    tools = [f"made-with:{tool.ref}" for tool in step.tools]
    return {
        "bom-ref": ref,
        "uid": step.key,
        "name": step.kind,
        "taskTypes": ["build"],
        "inputs": [{"resource": {"ref": each}} for each in step.inputs],
        "outputs": [{"type": "artifact", "resource": {"ref": each}} for each in step.outputs],
        "resourceReferences": [{"ref": each} for each in tools],
        "properties": _properties({"recipe_digest": step.key, **step.parameters}),
    }


def _organization(name: str, contact: str) -> dict[str, Any]:
    more: dict[str, Any] = {"contact": [{"email": contact}]} if "@" in contact else {}
    return {"name": name, **more, **({"url": [contact]} if contact.startswith("http") else {})}


def _properties(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"{OURS}{name}", "value": text} for name, text in texts.items()]


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty."""
    return {name: value for name, value in fields.items() if value not in ("", [], {}, None)}
