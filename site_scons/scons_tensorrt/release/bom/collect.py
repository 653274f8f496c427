"""Collect what a bill of materials contains, from a manifest and the receipts of its engines.

Nothing here depends on time, path or machine: the same receipts give the same bill.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...artifact.filename import RECORDED_SUFFIX
from ...artifact.receipt import Receipt, ReceiptFolder
from ...artifact.state_folder import DATA_SUFFIX
from ...errors import HandoffError
from ...files.reading import blocks, open_file
from ...recipe.model_card import ModelCard
from ...values import Value
from ..manifest import Manifest, ManifestEntry, digest
from .bill import DATA, ENGINE, FILE, MODEL, ONNX, PLUGIN, RECORDED, SAMPLES, Bom, Made, Part, Tool

PRODUCTS = {"tensorrt_rtx": "TensorRT for RTX", "tensorrt": "TensorRT"}
_KINDS = {"onnx": ONNX, "data": DATA, "plugin": PLUGIN, "samples": SAMPLES}
_BESIDE = ("accuracy", "record")  # steps that make nothing an engine is compiled from


class Description(Value):
    """What is known of the engines besides the manifest. cards: by the engine's name; steps: the present
    recipe digests by the filename that a step makes; sha512: by sha256; created: seconds since the epoch,
    None to leave it out; version: of this package."""

    receipts: ReceiptFolder
    cards: Mapping[str, ModelCard]
    steps: Mapping[str, str]
    sha512: Mapping[str, str]
    created: int | None
    version: str


def collect(name: str, manifest: Manifest, known: Description) -> Bom:
    """The bill of a manifest called `name`. Raises HandoffError, if a receipt is missing or does not say what
    its engine was made from, and ReceiptError."""
    found = _Collected(known)
    for entry in (manifest.engines[each] for each in sorted(manifest.engines)):
        found.engine(entry)
    data = manifest.dump()
    return Bom(
        name=name,
        sha256=digest(data),
        sha512=hashlib.sha512(data).hexdigest(),
        hardware=manifest.hardware or "",
        parts=dict(sorted(found.parts.items())),
        steps=tuple(found.steps.values()),
        needs={ref: tuple(sorted(set(needed))) for ref, needed in sorted(found.needs.items())},
        runtimes=found.runtimes,
        created=known.created,
        writer=Tool("scons-tensorrt", known.version),
    )


class _Collected:
    def __init__(self, known: Description) -> None:
        self._known = known
        self.parts: dict[str, Part] = {}
        self.steps: dict[str, Made] = {}  # by recipe digest and output
        self.needs: dict[str, list[str]] = {}
        self.runtimes: dict[str, Tool] = {}

    def engine(self, entry: ManifestEntry) -> None:
        receipt = self._known.receipts.find_by_bytes(entry.name, entry.key, entry.sha256)
        if receipt is None:
            raise HandoffError(f"{entry.name}: its receipt is missing; run `scons engines`")
        card, details = self._known.cards.get(entry.name), receipt.details
        inputs = self._inputs(entry, receipt, card)
        product = entry.recipe.get("hardware product", "")
        runtime = Tool(PRODUCTS.get(product, product), entry.recipe.get("hardware runtime_version", ""))
        part = Part(
            ref=f"engine:{entry.name}",
            kind=ENGINE,
            name=entry.name,
            sha256=entry.sha256,
            sha512=self._known.sha512.get(entry.sha256),
            size=entry.size,
            card=card,
            version=card.version if card and card.version else entry.sha256[:12],
            facts=_facts(entry, details),
            metrics=tuple(_metrics(details.get("accuracy"))),
        )
        if part.sha512 is None:
            raise HandoffError(f"{entry.name}: changed while the bill of materials was written; run again")
        self._add(part, inputs)
        self.runtimes[part.ref] = runtime
        self._step("compile", receipt, inputs, (part.ref,), (runtime, *_tools(details)))
        if entry.recorded:
            supplied = ModelCard(supplier=card.supplier) if card else None  # it is data, of another licence
            name, (sha256, size) = entry.name + RECORDED_SUFFIX, entry.recorded
            self._add(self._part(RECORDED, name, sha256, size, card=supplied))

    def _inputs(self, entry: ManifestEntry, receipt: Receipt, card: ModelCard | None) -> tuple[str, ...]:
        """The refs of what an engine was compiled from, after those of what that was made from."""
        given = _maps(receipt.details.get("inputs"))
        labels = {str(each.get("sha256")): str(each.get("name")) for each in given}
        if not {sha256 for name, sha256 in entry.recipe.items() if name.startswith("input ")} <= {*labels}:
            raise HandoffError(
                f"{entry.name}: its receipt does not name its input files; remove the engine and run "
                "`scons engines`"
            )
        made_by = [each for each in _maps(receipt.details.get("made_by")) if each.get("kind") not in _BESIDE]
        of = _Source(made_by, labels, card)
        return tuple(self._files(entry.name, entry.recipe, of))

    def _files(self, owner: str, ingredients: Mapping[str, str], of: _Source) -> Iterator[str]:
        """Add the input files among the ingredients of an engine or a step; yields their refs."""
        for ingredient in sorted(ingredients):
            group, _, rest = ingredient.partition(" ")
            if group != "input":
                continue
            role, _, name = rest.partition(" ")
            sha256 = ingredients[ingredient]
            kind = _KINDS.get(role, FILE if role in ("file", "script") else ONNX)
            kind = DATA if role.endswith("data") else kind
            label = of.labels.get(sha256) or name or of.source
            made = self._made(owner, sha256, of) if kind in (ONNX, SAMPLES) else None
            if made:
                yield made
                continue
            kind = MODEL if kind == ONNX else kind
            part = self._part(kind, label, sha256, None, kind == SAMPLES, of.card if kind == MODEL else None)
            self._add(part)
            yield part.ref

    def _made(self, owner: str, sha256: str, of: _Source) -> str | None:
        """Add the step that made the file with this sha256; returns the file's ref. None if no step made it.
        Raises HandoffError if its receipt is missing."""
        for made in of.made_by:
            name = os.path.basename(str(made.get("file", "")))
            receipt = self._receipt(name, sha256)
            if receipt is None and os.path.basename(of.labels.get(sha256, "")) == name:
                raise HandoffError(f"{owner}: the receipt of {name} is missing; run `scons engines`")
            if receipt is None:
                continue
            left = [each for each in of.made_by if each is not made]
            source = _Source(left, {}, of.card, str(made.get("source", "")))
            inputs = tuple(self._files(name, receipt.ingredients, source))
            kind = SAMPLES if made.get("kind") == "samples" else ONNX
            part = self._part(kind, name, sha256, receipt.size, card=of.card if kind == ONNX else None)
            outputs = [part.ref]
            self._add(part, inputs)
            data = receipt.details.get("data_sha256")
            if isinstance(data, str):
                beside = self._part(DATA, name + DATA_SUFFIX, data)
                self._add(beside)
                self.needs[part.ref].append(beside.ref)
                outputs.append(beside.ref)
            tools = _tools(receipt.details, receipt.details.get("facts") or made.get("facts"))
            self._step(str(made.get("kind", "convert")), receipt, inputs, tuple(outputs), tools)
            return part.ref
        return None

    def _receipt(self, name: str, sha256: str) -> Receipt | None:
        """The receipt of a file that a step made: of its present recipe where there is one. Others may have
        given the same bytes before."""
        receipts = self._known.receipts
        present = receipts.find_by_bytes(name, self._known.steps.get(name, ""), sha256)
        return present or next((each for each in receipts.of_file(name) if each.sha256 == sha256), None)

    def _part(
        self,
        kind: str,
        name: str,
        sha256: str,
        size: int | None = None,
        listed: bool = False,
        card: ModelCard | None = None,
    ) -> Part:
        sha512 = None if listed else self._known.sha512.get(sha256)
        version = card.version if card and card.version else sha256[:12]
        return Part(f"{kind}:{sha256}", kind, name, sha256, sha512, size, listed, card, version)

    def _add(self, part: Part, needed: Iterable[str] = ()) -> None:
        """Add a part, once; with the model card of whichever engine declares one. Raises HandoffError for two
        different ones."""
        there = self.parts.setdefault(part.ref, part)
        if there.card is None:
            self.parts[part.ref] = there._replace(card=part.card, version=part.version)
        elif part.card is not None and part.card != there.card:
            raise HandoffError(f"{there.name}: two engines declare different model_card for it; write one")
        # What a step read besides, such as samples, is no part of what it made.
        parts = (ref for ref in needed if self.parts[ref].kind not in (SAMPLES, FILE))
        self.needs.setdefault(part.ref, []).extend(parts)

    def _step(
        self,
        kind: str,
        receipt: Receipt,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        tools: Iterable[Tool],
    ) -> None:
        parameters = {n: t for n, t in sorted(receipt.ingredients.items()) if not n.startswith("input ")}
        made = Made(kind, receipt.key, inputs, outputs, tuple(dict.fromkeys(tools)), parameters)
        self.steps[f"{receipt.key} {outputs[0]}"] = made


class _Source:
    """Where the inputs of one engine or step come from. made_by: its steps, from the receipt of the engine;
    labels: of files by sha256; source: the label of what has no other."""

    def __init__(
        self,
        made_by: list[Mapping[str, Any]],
        labels: Mapping[str, str],
        card: ModelCard | None,
        source: str = "model.onnx",
    ) -> None:
        self.made_by, self.labels, self.card, self.source = made_by, labels, card, source


def _facts(entry: ManifestEntry, details: Mapping[str, Any]) -> dict[str, str]:
    facts = {"recipe_digest": entry.key, "precision": entry.recipe.get("option precision", "")}
    if isinstance(details.get("reproducible"), bool):
        facts["reproducible"] = str(details["reproducible"]).lower()
    return {**facts, **{n: t for n, t in sorted(entry.recipe.items()) if n.startswith("hardware ")}}


def _tools(details: Mapping[str, Any], facts: Any = None) -> Iterator[Tool]:
    """The programs that a receipt names. facts: of a step, with its converters."""
    converters = facts.get("converter") if isinstance(facts, Mapping) else None
    for versions in (details.get("builder"), converters):
        for name, version in sorted(versions.items()) if isinstance(versions, Mapping) else ():
            yield Tool(str(name).replace("_", "-"), str(version))


def _metrics(accuracy: Any) -> Iterator[tuple[str, str]]:
    """The figures of the comparisons with the original, as (type, value): of the compiled ONNX, and of the
    engine where it ran."""
    for of in ("onnx", "engine"):
        given = accuracy.get(of) if isinstance(accuracy, Mapping) else None
        facts = given if isinstance(given, Mapping) else {}
        outputs = facts.get("outputs")
        for output, figures in sorted(outputs.items()) if isinstance(outputs, Mapping) else ():
            for name in ("error", "bound", "cosine", "max_abs", "mean_abs"):
                value = figures.get(name) if isinstance(figures, Mapping) else None
                if isinstance(value, (int, float)):
                    metric = f"{facts.get('metric')} {name}" if name in ("error", "bound") else name
                    yield f"{of} {output} {metric}", f"{value:.6g}"


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def both_digests(paths: Iterable[Path]) -> dict[str, str]:
    """The sha512 of files by their sha256, each read once; without those that cannot be read."""
    found = {}
    for path in paths:
        first, second = hashlib.sha256(), hashlib.sha512()
        with contextlib.suppress(OSError), open_file(path) as source:
            for block in blocks(source):
                first.update(block)
                second.update(block)
            found[first.hexdigest()] = second.hexdigest()
    return found
