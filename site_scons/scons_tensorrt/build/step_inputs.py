"""Private copies of the inputs of an ONNX step, so that the step reads the bytes that were hashed.

ONNX Runtime, numpy and the user's functions read files by name, so the inputs are copied, and hashed while
they are copied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..recipe.key_ingredients import input_name
from .inputs_held_open import changed, copy_hashed
from .onnx_spec import Onnx, OnnxSpec, SampleFiles, file_fields
from .script_copies import copy_reader

CODE = "code"  # the folder for the files of a user's function


def sample_spec(samples: SampleFiles) -> dict[str, Any]:
    """The fields of a sample set for a job, see worker/onnx/open_samples.py."""
    return {"kind": samples.kind, "path": str(samples.path), **samples.key_fields}


def snapshot(onnx_spec: OnnxSpec, folder: Path, top: Path) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Copy the ONNX files and samples of a step to `folder`: paths of the ONNX files by role, and the samples
    for a job. External data is copied beside its ONNX. top: of the tree.

    Raises EngineBuildError if a file changed since it was hashed, PublishError and OSError.
    """
    digests: dict[Path, str] = {}
    places = {role: _copied(each, folder / role, digests) for role, each in onnx_spec.onnx.items()}
    samples = onnx_spec.samples
    spec = samples and sample_spec(samples)
    if samples and samples.kind == "reader":
        fields, copied = copy_reader(samples, folder / CODE, top)
        spec = {**(spec or {}), **fields}
        digests.update(copied)
    elif samples:
        base = samples.path if samples.kind == "npy" else samples.path.parent
        for path in samples.files:
            copy_hashed(path, folder / "samples" / path.relative_to(base), digests, "converted")
        spec = {**(spec or {}), "path": str(folder / "samples" / samples.path.relative_to(base))}
    _check_copied(onnx_spec, digests)
    return places, spec


def named_as_given(text: str, onnx_spec: OnnxSpec, folder: Path) -> str:
    """A message of the converter with the paths of the originals in place of those of the copies in `folder`,
    which are removed."""
    originals: dict[str, Path] = {}
    for role, each in onnx_spec.onnx.items():
        originals[_place(each, folder / role)] = each.path
        originals.update((str(folder / role / name), path) for name, path in each.external.items())
    if onnx_spec.samples:
        base = folder / "samples"
        copy = base if onnx_spec.samples.kind == "npy" else base / onnx_spec.samples.path.name
        originals[str(copy)] = onnx_spec.samples.path
    originals[os.path.realpath(folder / CODE) + "/"] = Path("/")
    for copied in sorted(originals, key=len, reverse=True):
        text = text.replace(copied, str(originals[copied]))
    return text


def _place(onnx: Onnx, folder: Path) -> str:
    """The path of an ONNX's copy: under its own name, unless its data has that name."""
    name = onnx.path.name
    while name in {PurePosixPath(location).parts[0] for location in onnx.external}:
        name = f"_{name}"
    return str(folder / name)


def _copied(onnx: Onnx, folder: Path, digests: dict[Path, str]) -> str:
    place = _place(onnx, folder)
    copy_hashed(onnx.path, Path(place), digests, "converted")
    for location, path in onnx.external.items():
        copy_hashed(path, folder / location, digests, "converted")
    return place


def _check_copied(onnx_spec: OnnxSpec, digests: Mapping[Path, str]) -> None:
    """Raise EngineBuildError unless the copies match the ingredients of the step."""
    for name, sha256 in file_fields(
        onnx_spec.onnx, onnx_spec.samples, lambda path, label: digests[path]
    ).items():
        if onnx_spec.ingredients[name] != sha256:
            path = next(
                (each.path for role, each in onnx_spec.onnx.items() if name == input_name(role)), None
            )
            raise changed(path or Path(name.rpartition(" ")[2]), "converted")
