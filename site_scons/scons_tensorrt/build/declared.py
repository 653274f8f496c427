"""The engines of a tree as its last run declared them, wanted anew from what their files are now.

`declared.json` is how a run tells those who come without SCons: the command line, a report. The
judgement is the graph's own, `judge` and `check_onnx_up_to_date`; only where the files are is read from the
declaration. Several trees may share one state folder, each with a declaration of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..artifact.filename import EngineFilename
from ..artifact.state import StateFolder
from ..errors import EngineError, RecipeError
from ..files.digest_cache import DigestCache
from ..files.reading import read_small
from ..hardware.resolve import Hardware
from ..hardware.signature import HardwareSignature
from ..recipe.backends import effective
from ..recipe.options import Recipe
from .inputs import Inputs
from .onnx_spec import Onnx, OnnxSpec, SampleFiles, check_onnx_up_to_date, data_name, onnx_spec_of
from .spec import EngineSpec, LastBuild, UpToDateResult, check_up_to_date, engine_spec

LARGEST = 64 << 20  # bytes of declared.json
AWAITS = "input_stale"  # reason code: what it is made of would be made first
_ODD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Declaration:
    """What the last run of one tree declared. full: believe no stat. Nothing is written."""

    def __init__(
        self,
        state: StateFolder,
        data: Mapping[str, Any],
        full: bool = False,
        digest_cache: DigestCache | None = None,
    ) -> None:
        self.state = state
        self._data = data
        near = state.top if state.inside else Path("/")
        self.digest_cache = digest_cache or DigestCache(state.digests, near, full)
        self.inputs = Inputs(self.digest_cache)

    @cached_property
    def engines(self) -> list[DeclaredEngine]:
        """Every engine that it tells of in a form of this version."""
        items = self._data.get("engines")
        found = items if isinstance(items, list) else []
        return [DeclaredEngine(self, item) for item in found if _sound(item, "engine")]

    @cached_property
    def _by_label(self) -> dict[str, DeclaredEngine]:
        return {engine.label: engine for engine in self.engines}

    @cached_property
    def steps(self) -> Mapping[str, DeclaredOnnx]:
        """Every file that is made for engines, by its path."""
        items = self._data.get("steps")
        found = items if isinstance(items, list) else []
        steps = [DeclaredOnnx(self, item) for item in found if _sound(item, "step")]
        return {str(self.place(step.label)): step for step in steps}

    @property
    def folders(self) -> list[Path]:
        """Where its engines are, named hardware in folders of their own below."""
        told = self._data.get("folders")
        if isinstance(told, list):
            return [self.place(name) for name in told if isinstance(name, str)]
        return sorted({engine.path.parent for engine in self.engines})

    def outdated(self) -> str | None:
        """Which files were changed since the run that declared its engines, in a line; None for none."""
        told = self._data.get("read")
        read = told.items() if isinstance(told, dict) else ()
        changed = [name for name, sha256 in read if not self._is(name, sha256)]
        if not changed:
            return None
        when, files = self._data.get("declared_at"), ", ".join(sorted(changed))
        return (
            f"declared by the run of {when}, and {files} changed since; `scons -n engines` tells what "
            "is wanted now"
        )

    def _is(self, name: str, sha256: Any) -> bool:
        try:
            return bool(self.digest_cache.sha256(self.place(name)) == sha256)
        except (OSError, ValueError):
            return False

    def engine(self, path: Path) -> DeclaredEngine | None:
        """What it declares of the engine at `path`."""
        return self._by_label.get(self.state.relative(path))

    def place(self, told: str) -> Path:
        """The path of a file as it is told, from the top."""
        return Path(os.path.normpath(self.state.top / told))

    def signature(self, index: Any) -> HardwareSignature:
        """A signature of the declaration. Raises LookupError, TypeError or HardwareError."""
        return HardwareSignature.from_json(self._data["signatures"][index], "declared.json")


class DeclaredOnnx:
    """A file that is made of an ONNX before a compile, as it was declared."""

    def __init__(self, declaration: Declaration, item: Mapping[str, Any]) -> None:
        self._declaration = declaration
        self._item = item
        self.label = str(item["step"])

    @property
    def made_of(self) -> list[str]:
        """The paths of steps that it is made of."""
        onnx, files = self._item.get("onnx"), self._item.get("files")
        told = [*_values(onnx), *_values(files)]
        return _known(self._declaration, [e.get("path") if isinstance(e, dict) else e for e in told])

    def up_to_date(self) -> UpToDateResult:
        """Whether the file is what is wanted now. Raises EngineError."""
        try:
            spec = self._spec()
        except _ODD as error:
            raise _other_version(self.label, error) from None
        return check_onnx_up_to_date(spec, self._declaration.state, self._declaration.digest_cache)

    def _spec(self) -> OnnxSpec:
        item, place, inputs = self._item, self._declaration.place, self._declaration.inputs
        onnx = {}
        for role, told in item["onnx"].items():
            path, label = place(told["path"]), str(told["label"])
            summary = inputs.summary_of(path, label)
            onnx[role] = Onnx(path, label, {loc: path.parent / loc for loc in summary.external}, summary)
        files = self._with_data({name: place(path) for name, path in item["files"].items()})
        script = place(item["script"]) if item["script"] else None
        return onnx_spec_of(
            *(place(self.label), str(item["kind"]), item["options"], item["ingredients"], onnx),
            *(self._samples(), str(item["source"]), script, files, inputs.digest),
        )

    def _with_data(self, files: Mapping[str, Path]) -> dict[str, Path]:
        """The files of an export, and the data of ONNX files that were not there when it was told."""
        found = dict(files)
        for name, path in files.items():
            for location, data in self._data_of(path).items():
                if data not in found.values():
                    found.setdefault(data_name(location, name), data)
        return found

    def _data_of(self, path: Path) -> dict[str, Path]:
        """The external data of a file that a function reads, as the graph has it."""
        if not path.name.endswith(".onnx"):
            return {}
        try:
            summary = self._declaration.inputs.summary(str(path))
        except (RecipeError, OSError, ValueError):
            return {}
        return {location: path.parent / location for location in summary.external}

    def _samples(self) -> SampleFiles | None:
        told, place = self._item["samples"], self._declaration.place
        if not told:
            return None
        where, kind, files = place(told["place"]), str(told["kind"]), [*map(place, told["files"])]
        name, where = where.name, place(told.get("at", told["place"]))
        if kind == "npy":  # a folder: what is in it now
            files = sorted([*where.glob("*.npy"), *where.glob("*/*.npy")], key=str)
        if kind == "reader":
            files += [data for path in files for data in self._data_of(path).values() if data not in files]
        return SampleFiles(kind, where, str(told["label"]), files, {}, name)


class DeclaredEngine:
    """An engine as it was declared. name: as the user called it; source: what people call its ONNX."""

    def __init__(self, declaration: Declaration, item: Mapping[str, Any]) -> None:
        self.declaration = declaration
        self._item = item
        self.label = str(item["engine"])
        self.name = str(item.get("name"))
        self.source = str(item.get("source"))
        self.path = declaration.place(self.label)

    @property
    def hardware(self) -> str | None:
        """The name of its hardware, None for the default host."""
        name = self._item.get("hardware")
        return None if name is None else str(name)

    def spec(self) -> EngineSpec:
        """The engine as its files are now. Raises EngineError, naming the file at fault."""
        if self._item.get("problem"):
            raise EngineError(str(self._item["problem"]))
        try:
            return self._spec()
        except _ODD as error:
            if isinstance(error, EngineError):
                raise
            raise _other_version(self.label, error) from None

    def _spec(self) -> EngineSpec:
        item, declaration = self._item, self.declaration
        place = declaration.place
        signature = declaration.signature(item["signature"])
        plugins = [place(path) for path in item["plugins"]]
        recipe = effective(Recipe.from_json(self.name, item["recipe"], plugins), signature.product)
        onnx, told = place(item["onnx"]), item.get("data", {})
        summary = declaration.inputs.summary_of(onnx, self.source)
        external = {
            loc: (place(told[loc]) if loc in told else onnx.parent / loc, least)
            for loc, least in summary.external.items()
        }
        samples = (place(item["samples"]), str(item["samples"])) if item.get("samples") else None
        return engine_spec(
            self.path,
            recipe,
            Hardware(self.hardware, signature, "the last run declared it"),
            item["ingredients"],
            LastBuild(onnx, self.source, external, samples, summary.exact),
            declaration.inputs.digest,
        )

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
        """The judgement that the graph would come to. What is wrong with the engine's own bytes comes
        first, then what would be made before it. Raises EngineError."""
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

    def _awaits(self) -> str | None:
        """What would be made before it, and why. Raises EngineError."""
        paths = [self._item.get(name) for name in ("onnx", "samples", "gate")]
        for step in _in_order(self.declaration, _known(self.declaration, paths)):
            up_to_date = step.up_to_date()
            if not up_to_date.current:
                return f"{step.label} would be made first: {up_to_date.reason}"
        return None


def declarations(root: Path, full: bool = False) -> Iterator[Declaration]:
    """Of each tree that has the state folder `root`; a damaged one is passed over."""
    for file in (root / "declared.json", *sorted((root / "declared").glob("*.json"))):
        data = _read(file)
        if data is None:
            continue
        state = StateFolder(root, Path(os.path.normpath(root / data.get("top", ".."))))
        if state.declared == file:
            yield Declaration(state, data, full)


def last_declaration(state: StateFolder, digest_cache: DigestCache) -> Declaration | None:
    """What the last run of the tree declared. memo: of the run that asks."""
    data = _read(state.declared)
    return Declaration(state, data, digest_cache=digest_cache) if data else None


def declared_engines(engine: Path, state: StateFolder) -> DeclaredEngine | None:
    """What the last run of the tree declared of an engine; None where it did not."""
    data = _read(state.declared)
    return Declaration(state, data).engine(engine) if data else None


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        data = json.loads(read_small(file, LARGEST))
        top = data.get("top", "..")
        return data if isinstance(top, str) and "\0" not in top else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _sound(item: Any, what: str) -> bool:
    """Whether an entry names itself, and its ingredients are texts."""
    if not isinstance(item, dict) or not isinstance(item.get(what), str):
        return False
    fields = item.get("ingredients")
    return isinstance(fields, dict) and all(isinstance(text, str) for text in fields.values())


def _values(told: Any) -> list[Any]:
    return list(told.values()) if isinstance(told, dict) else []


def _known(declaration: Declaration, told: list[Any]) -> list[str]:
    """Those of several files that steps make, by their paths."""
    paths = [str(declaration.place(path)) for path in told if isinstance(path, str)]
    return [path for path in paths if path in declaration.steps]


def _in_order(declaration: Declaration, paths: list[str]) -> Iterator[DeclaredOnnx]:
    """Steps, each after those that it is made of."""
    seen: set[str] = set()

    def visit(path: str) -> Iterator[DeclaredOnnx]:
        if path not in seen:
            seen.add(path)
            step = declaration.steps[path]
            for before in step.made_of:
                yield from visit(before)
            yield step

    for path in paths:
        yield from visit(path)


def _other_version(label: str, error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    return RecipeError(
        f"{label} was declared by another version ({type(error).__name__}); run scons once more"
    )
