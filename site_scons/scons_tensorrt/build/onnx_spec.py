"""The spec of an ONNX step's file, and the check whether the file is up to date.

Like an engine, it has a key, which contains the version of its kind, and a receipt. Reusing it needs neither
onnx nor the converter; their versions are in the receipt, not in the key.

A new kind of step goes into VERSIONS and VERBS here; into worker/onnx/main.py, which runs it; into
`next_step` in recipe/conversion.py, which says when it is needed; and into
scons_tool/declare_onnx_steps.py, which declares its files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..artifact.cache_key import make_key
from ..artifact.state_folder import DATA_SUFFIX, StateFolder
from ..errors import RecipeError
from ..files.digest_cache import DigestCache
from ..recipe.conversion import Step, next_step
from ..recipe.key_ingredients import differences, input_name
from ..recipe.onnx.summary import INTEGERS, OnnxSummary, check_data
from ..recipe.options import Recipe
from ..recipe.sample_options import Samples
from ..recipe.shapes import text
from ..values import Value
from .engine_spec import to_calibrate
from .up_to_date import NOT_DOWNLOADED, UpToDateResult

# By kind of step: increase when the same ingredients give other bytes.
VERSIONS: Mapping[str, str] = {
    "prepare": "2",
    "precision": "1",
    "quantize": "1",
    "accuracy": "2",
    "record": "1",
    "export": "1",
    "samples": "1",
}

# By kind of step, for messages: what it would do, has done, and is doing; "" is any other kind.
VERBS: Mapping[str, tuple[str, str, str]] = {
    "prepare": ("PREPARE", "PREPARED", "PREPARING"),
    "accuracy": ("CHECK", "CHECKED", "CHECKING"),
    "record": ("RECORD", "RECORDED", "RECORDING"),
    "": ("CONVERT", "CONVERTED", "CONVERTING"),
}


SAMPLES = "samples"  # the kind of step that prepares samples for a calibrator
SCRIPT = ""  # in `OnnxSpec.named`


def _nothing() -> None:
    pass


class Onnx(Value):
    """An ONNX of a step. label: for messages; external: its data files by location; summary: None if it was
    not read."""

    path: Path
    label: str
    external: Mapping[str, Path] = {}
    summary: OnnxSummary | None = None


class SampleFiles(Value):
    """A set of samples on disk. kind: "npz", "npy" (a folder) or "reader"; files: all its files; label: for
    messages; name: of its path in the SConstruct; named: the paths of a reader's files in the SConstruct."""

    kind: str
    path: Path
    label: str
    files: Sequence[Path]
    key_fields: Mapping[str, Any]
    name: str = ""
    named: Sequence[Path] = ()


class OnnxSpec(Value):
    """The spec of a file. onnx: by role, "onnx" (the source), "reference" or "converted"; script, files: of
    an export, the files by the argument that gets their path, with its imports and the data of ONNX files;
    named: their paths in the SConstruct; bring: downloads or makes input files that were not downloaded.
    Raises EngineError."""

    target: Path
    kind: str
    options: Mapping[str, Any]
    onnx: Mapping[str, Onnx]
    samples: SampleFiles | None
    ingredients: Mapping[str, str]
    source: str
    script: Path | None = None
    files: Mapping[str, Path] = {}
    named: Mapping[str, Path] = {}
    bring: Callable[[], None] = _nothing

    @cached_property
    def key(self) -> str:
        return make_key(self.target.name, self.ingredients)

    @property
    def data(self) -> Path:
        return self.target.with_name(self.target.name + DATA_SUFFIX)

    def inputs(self) -> dict[str, Path]:
        """Its input files by ingredient name, without samples, which share one name."""
        files = {input_name(role): each.path for role, each in self.onnx.items()}
        for role, each in self.onnx.items():
            data = _data_role(role)
            files.update({input_name(data, location): path for location, path in each.external.items()})
        if self.script:
            files[input_name("script")] = self.script
        return {**files, **{input_name("file", name): path for name, path in self.files.items()}}


def _data_role(role: str) -> str:
    return "data" if role == "onnx" else f"{role} data"


def step_fields(kind: str, options: Mapping[str, Any], samples: Samples | None = None) -> dict[str, str]:
    """The ingredients of a step that are not files. Each becomes a Value node of the graph."""
    chosen = samples.key_fields() if samples else {}
    more = {f"samples {name}": value for name, value in chosen.items() if name != "at_least"}
    fields = {"recipe version": f"{kind} {VERSIONS[kind]}"}
    for name, value in {**options, **more}.items():
        if kind == "export":  # for the function, None, [] and "8" are different values
            fields[f"option {name}"] = _argument(value)
        elif name == "corners":
            fields["option corners"] = _corners(value)
        elif value is not None and value != []:
            fields[f"option {name}"] = value if isinstance(value, str) else json.dumps(value)
    return fields


def _corners(value: Mapping[str, Any]) -> str:
    """A unique text for the corners of an accuracy gate."""
    profiles = [
        " ".join(f"{name} {text(bounds)}" for name, bounds in each.items()) for each in value["profiles"]
    ]
    return f"{value['precision']} {'; '.join(profiles) or 'at the shape of the model'}"


def compile_step(
    recipe: Recipe, strong: bool, summary: OnnxSummary | None
) -> tuple[Step, Samples | None] | None:
    """The step before the compile, with its samples: the conversion of the ONNX, or the samples in the format
    of a calibrator. None if there is none. strong, summary: as of `next_step`."""
    calibration = recipe.conversion.calibration
    known = to_calibrate(recipe, summary) if summary else None
    step = next_step(recipe.precision, recipe.conversion, strong, known)
    if step is not None:
        return step, calibration.samples if calibration and step.kind == "quantize" else None
    if calibration and recipe.calibrator and not strong:
        return Step(SAMPLES), calibration.samples
    return None


def _argument(value: Any) -> str:
    """A unique text for an argument: a text that is not JSON unchanged, all else as JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def file_fields(
    onnx: Mapping[str, Onnx], samples: SampleFiles | None, digest: Callable[[Path, str], str]
) -> dict[str, str]:
    """The ingredients of a step that are files. digest: of a path and its label. Raises EngineError as
    `digest` does."""
    fields = {}
    for role, each in onnx.items():
        fields[input_name(role)] = digest(each.path, each.label)
        for location, path in each.external.items():
            label = f"external data {location!r} of {each.label}"
            fields[input_name(_data_role(role), location)] = digest(path, label)
            if each.summary:
                needed = each.summary.external[location]
                check_data(path, label, needed, location in each.summary.exact)
    if samples:
        base = samples.path if samples.kind == "npy" else samples.path.parent
        names = [os.path.relpath(path, base) for path in samples.files]
        if any("\n" in name for name in names):
            raise RecipeError(f"{samples.label}: a file's name has a line break in it; rename it")
        lines = [f"{digest(path, samples.label)} {name}" for path, name in zip(samples.files, names)]
        fields[input_name("samples", samples.name or samples.path.name)] = make_key(
            "samples", {"files": "\n".join(lines)}
        )
    return fields


def data_name(location: str, of: str) -> str:
    """The name of an ONNX's external data among the files of an export. of: name of the ONNX."""
    return f"data {location} of {of}"


def onnx_spec_of(
    target: Path,
    kind: str,
    options: Mapping[str, Any],
    fields: Mapping[str, str],
    onnx: Mapping[str, Onnx],
    samples: SampleFiles | None,
    source: str,
    script: Path | None,
    files: Mapping[str, Path],
    digest: Callable[[Path, str], str],
    named: Mapping[str, Path] = {},
) -> OnnxSpec:
    """The spec with the present input files. fields: from `step_fields`; digest: of a path and its label.
    Raises RecipeError, and EngineError as `digest` does."""
    if samples and not samples.files:
        raise RecipeError(f"{samples.label}: no .npy in this folder; put samples there")
    ingredients = {**fields, **file_fields(onnx, samples, digest)}
    ingredients.update(_of_later_rules(kind, onnx))
    if script:
        ingredients[input_name("script")] = digest(script, source)
    for name, path in files.items():
        ingredients[input_name("file", name)] = digest(path, f"{name} of {source}")
    return OnnxSpec(target, kind, options, onnx, samples, ingredients, source, script, files, named)


def _of_later_rules(kind: str, onnx: Mapping[str, Onnx]) -> dict[str, str]:
    """Ingredients of models for which version 1 of a kind has changed: files of other models stay up to
    date."""
    summary = onnx["onnx"].summary if "onnx" in onnx else None
    if summary and kind == "quantize" and summary.functions:
        return {"local functions": "inlined"}
    if summary and kind == "prepare" and any(INTEGERS in pattern for pattern in summary.refused):
        return {"uint8 with zero point 0": "float32"}
    if summary and kind == "precision" and summary.quantized:
        return {"scales of Q/DQ nodes": "16 bit"}
    return {}


def check_onnx_up_to_date(spec: OnnxSpec, state: StateFolder, digest_cache: DigestCache) -> UpToDateResult:
    """Whether the file is up to date, and if not, why."""
    name, key, there = spec.target.name, spec.key, _of_ours(spec.target, state, digest_cache)
    verified = state.receipts.find_verified(name, key, there, digest_cache) if there else None
    if verified and verified.data in (None, _digest(spec.data, digest_cache)):
        return UpToDateResult("current", "", there)
    receipts = state.receipts.of_key(name, key)
    known = list(state.receipts.of_file(name)) if there != "" else []
    receipt_of_bytes = next((r for r in known if r.sha256 == there), None)
    # Without receipts of this key: else it was restored after another build.
    if not receipts or (receipt_of_bytes and receipt_of_bytes.key != key):
        receipt_of_bytes = receipt_of_bytes or (known[0] if known else None)
        if receipt_of_bytes is None or there is None:
            return UpToDateResult("new", "not built before")
        changes = differences(receipt_of_bytes.ingredients, spec.ingredients, spec.source)
        return UpToDateResult("changed", "; ".join(changes))
    if there is None and not receipts[0].downloaded:
        return UpToDateResult(NOT_DOWNLOADED, "not downloaded before", receipt=receipts[0])
    if there is None:
        return UpToDateResult("missing", f"{name} is missing")
    receipt = next((r for r in receipts if r.sha256 == there), None)
    if receipt is None:
        return UpToDateResult("tampered", f"{name} was modified after it was built")
    stated = receipt.details.get("data_sha256")
    if stated is not None and _digest(spec.data, digest_cache) != stated:
        return UpToDateResult("tampered", f"{spec.data.name} was modified after it was built")
    return UpToDateResult("current", "", there)


def _of_ours(target: Path, state: StateFolder, digest_cache: DigestCache) -> str | None:
    """The sha256 of the file; "" if no receipt has its size: then it is not read, since it may be endless.
    None if there is no file."""
    try:
        if digest_cache.stamp(target) is None:
            size = target.lstat().st_size
            if all(receipt.size != size for receipt in state.receipts.of_file(target.name)):
                return ""
    except OSError:
        return None
    return _digest(target, digest_cache)


def _digest(path: Path, digest_cache: DigestCache) -> str | None:
    try:
        return digest_cache.sha256(path, follow=False)
    except OSError:
        return None
