"""The engines and ONNX steps that the last run of a tree declared, checked against the present files.

A run writes `declared.json` for the command line and the report, which do not run SCons. They read from it
only where the files are; the checks are `check_up_to_date` and `check_onnx_up_to_date`, as in a build.
Several trees may share one state folder, each with its own declaration.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..artifact.filename import EngineFilename
from ..artifact.state_folder import StateFolder
from ..errors import EngineError
from ..files.digest_cache import DigestCache
from ..files.reading import read_small
from ..hardware.choose_hardware import Hardware
from ..hardware.signature import HardwareSignature
from ..recipe.options import Recipe
from ..recipe.options_by_product import effective
from .declared_onnx import ODD, DeclaredOnnx, other_version, place
from .engine_spec import EngineInputs, EngineSpec, engine_spec
from .input_digests import Inputs
from .up_to_date import NOT_DOWNLOADED, UpToDateResult, check_up_to_date

LARGEST = 64 << 20  # bytes of declared.json
AWAITS = "input_stale"  # reason code: an input would be made first


class Declaration:
    """What the last run of one tree declared. full: hash every file. Writes nothing."""

    def __init__(
        self,
        state: StateFolder,
        data: Mapping[str, Any],
        full: bool = False,
        digest_cache: DigestCache | None = None,
    ) -> None:
        self.state = state
        self.data = data
        near = state.top if state.inside else Path("/")
        self.digest_cache = digest_cache or DigestCache(state.digests, near, full)
        self.inputs = Inputs(self.digest_cache)
        self._signatures: dict[Any, HardwareSignature] = {}

    @cached_property
    def engines(self) -> list[DeclaredEngine]:
        """Every engine whose entry this version can read."""
        return [DeclaredEngine(self, item) for item in self._entries("engines", "engine")]

    @cached_property
    def _by_label(self) -> dict[str, DeclaredEngine]:
        return {engine.label: engine for engine in self.engines}

    @cached_property
    def steps(self) -> Mapping[str, DeclaredOnnx]:
        """Every ONNX step, by the path of its file."""
        entries = self._entries("steps", "step")
        steps = [DeclaredOnnx(each, self.state, self.digest_cache, self.inputs) for each in entries]
        return {str(self.place(step.label)): step for step in steps}

    def _entries(self, name: str, label: str) -> Iterator[Mapping[str, Any]]:
        """The entries of a list that have a label, and ingredients that are texts."""
        items = self.data.get(name)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and isinstance(item.get(label), str):
                fields = item.get("ingredients")
                if isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values()):
                    yield item

    @property
    def folders(self) -> list[Path]:
        """The folders of its engines; those of named hardware are subfolders."""
        folders = self.data.get("folders")
        if isinstance(folders, list):
            return [self.place(name) for name in folders if isinstance(name, str)]
        return sorted({engine.path.parent for engine in self.engines})

    def outdated(self) -> str | None:
        """A line about the files that changed since the run that declared its engines; None for no change."""
        digests = self.data.get("read")
        read = digests.items() if isinstance(digests, dict) else ()
        changed = [name for name, sha256 in read if not self._has_digest(name, sha256)]
        if not changed:
            return None
        when, files = self.data.get("declared_at"), ", ".join(sorted(changed))
        return (
            f"declared by the run of {when}, and {files} changed since; `scons -n engines` shows "
            "what would be built now"
        )

    def _has_digest(self, name: str, sha256: Any) -> bool:
        try:
            return bool(self.digest_cache.sha256(self.place(name)) == sha256)
        except (OSError, ValueError):
            return False

    def engine(self, path: Path) -> DeclaredEngine | None:
        """The declared engine at `path`."""
        return self._by_label.get(self.state.relative(path))

    def place(self, label: str) -> Path:
        """The path of a file from its label, which is relative to the top."""
        return place(self.state, label)

    def signature(self, index: Any) -> HardwareSignature:
        """A signature of the declaration. Raises LookupError, TypeError or HardwareError."""
        if index not in self._signatures:  # 10,000 engines have a few
            data = self.data["signatures"][index]
            self._signatures[index] = HardwareSignature.from_json(data, "declared.json")
        return self._signatures[index]

    def steps_of(self, labels: list[Any]) -> Iterator[DeclaredOnnx]:
        """The steps that make files of these labels, each after the steps that it needs."""
        seen: set[str] = set()

        def visit(label: Any) -> Iterator[DeclaredOnnx]:
            path = str(self.place(label)) if isinstance(label, str) else ""
            if path in self.steps and path not in seen:
                seen.add(path)
                for before in self.steps[path].made_of:
                    yield from visit(before)
                yield self.steps[path]

        for label in labels:
            yield from visit(label)


class DeclaredEngine:
    """A declared engine. name: from the call; source: the label of its ONNX."""

    def __init__(self, declaration: Declaration, item: Mapping[str, Any]) -> None:
        self.declaration = declaration
        self.item = item
        self.label = str(item["engine"])
        self.name = str(item.get("name"))
        self.source = str(item.get("source"))
        self.path = declaration.place(self.label)

    @property
    def original(self) -> Path:
        """The ONNX that the user named; `source` may be a conversion of it."""
        return self.declaration.place(str(self.item.get("original", self.item.get("onnx"))))

    @property
    def onnx(self) -> Path:
        """The ONNX that is compiled."""
        return self.declaration.place(str(self.item.get("onnx")))

    @property
    def hardware(self) -> str | None:
        """The name of its hardware, None for the default host."""
        name = self.item.get("hardware")
        return None if name is None else str(name)

    def spec(self) -> EngineSpec:
        """The spec with the present files. Raises EngineError with the name of the file at fault."""
        signature = self.signature()
        try:
            return self._spec(signature)
        except ODD as error:
            raise other_version(self.label, error) from None

    def recipe(self) -> Recipe:
        """The recipe with the options that have no effect on its product. Raises EngineError."""
        try:
            return self._recipe()
        except ODD as error:
            raise other_version(self.label, error) from None

    def signature(self) -> HardwareSignature:
        """The hardware that it is for. Raises EngineError."""
        if self.item.get("problem"):
            raise EngineError(str(self.item["problem"]))
        try:
            return self.declaration.signature(self.item["signature"])
        except ODD as error:
            raise other_version(self.label, error) from None

    def _recipe(self) -> Recipe:
        item, place = self.item, self.declaration.place
        plugins = [place(path) for path in item["plugins"]]
        timings = place(item["timing_cache"]) if "timing_cache" in item else None
        return Recipe.from_json(self.name, item["recipe"], plugins, timings)

    def _spec(self, signature: HardwareSignature) -> EngineSpec:
        item, declaration = self.item, self.declaration
        place = declaration.place
        recipe = effective(self._recipe(), signature.product)
        onnx, data = place(item["onnx"]), item.get("data", {})
        summary = declaration.inputs.summary_of(onnx, self.source)
        external = {
            loc: (place(data[loc]) if loc in data else onnx.parent / loc, least)
            for loc, least in summary.external.items()
        }
        samples = (place(item["samples"]), str(item["samples"])) if item.get("samples") else None
        return engine_spec(
            self.path,
            recipe,
            Hardware(self.hardware, signature, "the last run declared it"),
            item["ingredients"],
            EngineInputs(onnx, self.source, external, samples, summary.exact, item.get("timing_cache", "")),
            declaration.inputs.digest,
        )

    def files(self) -> Iterator[tuple[str, Path]]:
        """The files that it is compiled from, each with its role."""
        item, place = self.item, self.declaration.place
        with contextlib.suppress(*ODD):  # an entry of another version
            onnx = place(item["onnx"])
            yield "onnx", onnx
            yield from (("external data", place(path)) for path in item.get("data", {}).values())
            with contextlib.suppress(EngineError):
                external = self.declaration.inputs.summary_of(onnx, self.source).external
                yield from (("external data", onnx.parent / location) for location in external)
            yield from (("plugin", place(path)) for path in item["plugins"])
            roles = {"samples": "samples", "gate": "accuracy", "timing_cache": "timing cache"}
            yield from ((role, place(item[name])) for name, role in roles.items() if item.get(name))

    def wanted_on(self, hardware: Hardware) -> EngineSpec:
        """The same engine for other hardware. Raises EngineError."""
        spec, signature = self.spec(), hardware.signature
        fields = {n: t for n, t in spec.ingredients.items() if not n.startswith("hardware ")}
        fields.update({f"hardware {name}": text for name, text in signature.key_fields().items()})
        recipe = spec.recipe
        name = EngineFilename.of(signature, recipe.model, recipe.precision, recipe.ampere_plus).build()
        engine = spec.engine.with_name(name)
        return spec._replace(engine=engine, hardware=hardware, ingredients=fields)

    def up_to_date(self) -> UpToDateResult:
        """The result that a build would have. A fault of the engine itself comes before a step that would
        run first. Raises EngineError."""
        first = self._awaits()
        try:
            up_to_date = check_up_to_date(self.spec(), self.declaration.state, self.declaration.digest_cache)
        except EngineError:
            if first is None:
                raise
            return UpToDateResult(AWAITS, first)
        if first and up_to_date.code in ("current", "unfinished", "changed", "new"):
            return UpToDateResult(AWAITS, first)
        return up_to_date

    def steps(self) -> Iterator[DeclaredOnnx]:
        """The steps that make its inputs, each after the steps that it needs."""
        return self.declaration.steps_of([self.item.get(name) for name in ("onnx", "samples", "gate")])

    def _awaits(self) -> str | None:
        """The first step that would run, and why. Raises EngineError."""
        for step in self.steps():
            up_to_date = step.up_to_date()
            if up_to_date.code == NOT_DOWNLOADED and step.leave(up_to_date):
                continue
            if not up_to_date.current:
                return f"{step.label} would be made first: {up_to_date.reason}"
        return None


def declarations(root: Path, full: bool = False) -> Iterator[Declaration]:
    """The declaration of each tree with the state folder `root`; damaged ones are skipped."""
    for file in (root / "declared.json", *sorted((root / "declared").glob("*.json"))):
        data = _read(file)
        if data is None:
            continue
        state = StateFolder(root, Path(os.path.normpath(root / data.get("top", ".."))))
        if state.declared == file:
            yield Declaration(state, data, full)


def last_declaration(state: StateFolder, digest_cache: DigestCache) -> Declaration | None:
    """What the last run of the tree declared. digest_cache: of the present run."""
    data = _read(state.declared)
    return Declaration(state, data, digest_cache=digest_cache) if data else None


def find_declared_engine(engine: Path, state: StateFolder) -> DeclaredEngine | None:
    """The engine as the last run of the tree declared it; None if it did not."""
    data = _read(state.declared)
    return Declaration(state, data).engine(engine) if data else None


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        data = json.loads(read_small(file, LARGEST))
        top = data.get("top", "..")
        return data if isinstance(top, str) and "\0" not in top else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
