"""Private copies of a user's function, and of the files that it is declared to import and read.

They are in one folder, under their paths in the SConstruct. So a file in a Repository or at the source of a
VariantDir is beside the files it is used with, and undeclared files are missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..recipe.key_ingredients import input_name
from .inputs_held_open import changed, copy_hashed
from .onnx_spec import SCRIPT, OnnxSpec, SampleFiles


class CodeCopies:
    """Copies in `folder`. top: of the tree, for messages; option: the option that declares another file."""

    def __init__(self, folder: Path, top: Path, option: str) -> None:
        # The function may resolve its `__file__`.
        self._folder, self._top, self._option = Path(os.path.realpath(folder)), top, option
        self._beside: dict[str, list[str]] = {}
        self.digests: dict[Path, str] = {}

    def add(self, path: Path, named: Path) -> Path:
        """Copy a file; returns the path of the copy. named: its path in the SConstruct. Raises
        EngineBuildError, PublishError and OSError."""
        place = self._folder / str(named).lstrip("/")
        for folder in (path.parent, Path(os.path.realpath(path)).parent):
            found = self._beside.setdefault(str(place.parent), [])
            if folder != named.parent and str(folder) not in found:
                found.append(str(folder))
        if not place.exists():
            copy_hashed(path, place, self.digests, "converted")
        return place

    def to_json(self) -> dict[str, Any]:
        """The fields for a job, see worker/onnx/import_user_code.py."""
        return {
            "root": str(self._folder),
            "beside": self._beside,
            "top": str(self._top),
            "option": self._option,
        }


def copy_export(onnx_spec: OnnxSpec, folder: Path, top: Path) -> dict[str, Any]:
    """Copy the files of an export; returns the fields for its job. Raises EngineBuildError if a file changed
    since it was hashed, PublishError and OSError."""
    if onnx_spec.script is None:
        return {"script": None, "files": {}, "code": None}
    copies = CodeCopies(folder, top, "imports=")
    named = onnx_spec.named
    script = copies.add(onnx_spec.script, named.get(SCRIPT, onnx_spec.script))
    files = {name: copies.add(path, named.get(name, path)) for name, path in onnx_spec.files.items()}
    expected = {input_name("script"): onnx_spec.script}
    expected.update({input_name("file", name): path for name, path in onnx_spec.files.items()})
    for ingredient, path in expected.items():
        if copies.digests[path] != onnx_spec.ingredients[ingredient]:
            raise changed(path, "converted")
    return {
        "script": str(script),
        "files": {name: str(place) for name, place in files.items()},
        "code": copies.to_json(),
    }


def copy_reader(samples: SampleFiles, folder: Path, top: Path) -> tuple[dict[str, Any], dict[Path, str]]:
    """Copy a reader and the files that it reads; returns the fields of its samples for a job, and the sha256
    of each file. Raises as `CodeCopies.add`."""
    copies = CodeCopies(folder, top, "files=")
    named: Sequence[Path] = samples.named or samples.files
    places = [copies.add(path, name) for path, name in zip(samples.files, named)]
    return {"path": str(places[0]), "code": copies.to_json()}, copies.digests
