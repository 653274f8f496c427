"""Files that are made from an ONNX before a compile, as the last run declared them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..artifact.state_folder import DATA_SUFFIX, StateFolder
from ..errors import EngineError, RecipeError
from ..files.digest_cache import DigestCache
from .entry_description import description_of
from .input_digests import Inputs
from .not_downloaded import AbsentFile
from .onnx_spec import Onnx, OnnxSpec, SampleFiles, check_onnx_up_to_date, data_name, onnx_spec_of
from .up_to_date import UpToDateResult

# What reading an entry of another version may raise.
ODD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def other_version(label: str, error: Exception) -> EngineError:
    """The error to raise for one of `ODD`."""
    if isinstance(error, EngineError):
        return error
    return RecipeError(f"{label} was declared by another version ({type(error).__name__}); run scons again")


def place(state: StateFolder, label: str) -> Path:
    """The path of a file from its label, which is relative to the top."""
    return Path(os.path.normpath(state.top / label))


class DeclaredOnnx:
    """One such file. item: its entry in declared.json."""

    def __init__(
        self, item: Mapping[str, Any], state: StateFolder, digest_cache: DigestCache, inputs: Inputs
    ) -> None:
        self.item = item
        self._state = state
        self._digest_cache = digest_cache
        self._inputs = inputs
        self.label = str(item["step"])

    @property
    def made_of(self) -> list[Any]:
        """The labels of the files that it is made from."""
        onnx, files = self.item.get("onnx"), self.item.get("files")
        found = [*(onnx.values() if isinstance(onnx, dict) else ())]
        found += files.values() if isinstance(files, dict) else ()
        return [each.get("path") if isinstance(each, dict) else each for each in found]

    @property
    def kind(self) -> str:
        return str(self.item.get("kind"))

    @property
    def options(self) -> Mapping[str, Any]:
        options = self.item.get("options")
        return options if isinstance(options, dict) else {}

    @property
    def roles(self) -> Collection[str]:
        """The roles of the ONNX files that it is made from."""
        onnx = self.item.get("onnx")
        return onnx.keys() if isinstance(onnx, dict) else ()

    def files(self) -> Iterator[tuple[str, Path]]:
        """The files that it reads, each with its role. Of a set of samples that is a folder, the folder."""
        item = self.item
        with contextlib.suppress(*ODD):  # an entry of another version
            for role, entry in item["onnx"].items():
                path = self._place(entry["path"])
                yield role, path
                yield from (("external data", data) for data in self._data_of(path).values())
            if item["script"]:
                yield "script", self._place(item["script"])
            files = {name: self._place(path) for name, path in item["files"].items()}
            yield from (("file", path) for path in self._with_data(files).values())
            samples = item["samples"] or {}
            if samples.get("kind") == "npy":
                yield "samples", self._place(samples.get("at", samples["place"]))
            for path in samples.get("files", ()):
                yield "samples", self._place(path)

    def up_to_date(self) -> UpToDateResult:
        """Whether the file is up to date. Raises EngineError."""
        try:
            spec = self._spec()
        except ODD as error:
            raise other_version(self.label, error) from None
        return check_onnx_up_to_date(spec, self._state, self._digest_cache)

    def leave(self, result: UpToDateResult) -> bool:
        """Use what its receipt says of a file that was not downloaded; whether that is enough."""
        receipt, path = result.receipt, self._place(self.label)
        known = receipt and description_of(receipt.filename, receipt.details)
        if not receipt or not known:
            return False
        self._inputs.leave(path, AbsentFile(receipt.sha256, known.summary))
        if receipt.details.get("data_sha256"):
            data = path.with_name(path.name + DATA_SUFFIX)
            self._inputs.leave(data, AbsentFile(str(receipt.details["data_sha256"])))
        return True

    def inputs(self) -> tuple[dict[str, Onnx], SampleFiles | None]:
        """The ONNX files by role, and the samples. Raises EngineError."""
        try:
            return self._onnx(), self._samples()
        except ODD as error:
            raise other_version(self.label, error) from None

    def made(self) -> Onnx:
        """The ONNX that it makes. Raises EngineError."""
        return self._file(self._place(self.label), self.label)

    def _place(self, label: str) -> Path:
        return place(self._state, label)

    def _file(self, path: Path, label: str) -> Onnx:
        summary = self._inputs.summary_of(path, label)
        return Onnx(path, label, {loc: path.parent / loc for loc in summary.external}, summary)

    def _onnx(self) -> dict[str, Onnx]:
        entries = self.item["onnx"].items()
        return {role: self._file(self._place(each["path"]), str(each["label"])) for role, each in entries}

    def _spec(self) -> OnnxSpec:
        item = self.item
        return onnx_spec_of(
            target=self._place(self.label),
            kind=str(item["kind"]),
            options=item["options"],
            fields=item["ingredients"],
            onnx=self._onnx(),
            samples=self._samples(),
            source=str(item["source"]),
            script=self._place(item["script"]) if item["script"] else None,
            files=self._with_data({name: self._place(path) for name, path in item["files"].items()}),
            digest=self._inputs.digest,
        )

    def _with_data(self, files: Mapping[str, Path]) -> dict[str, Path]:
        """The files of an export, with the external data of ONNX files that appeared since."""
        found = dict(files)
        for name, path in files.items():
            for location, data in self._data_of(path).items():
                if data not in found.values():
                    found.setdefault(data_name(location, name), data)
        return found

    def _data_of(self, path: Path) -> dict[str, Path]:
        """The external data of a file that a function reads, by location."""
        if not path.name.endswith(".onnx"):
            return {}
        try:
            summary = self._inputs.summary(str(path))
        except (RecipeError, OSError, ValueError):
            return {}
        return {location: path.parent / location for location in summary.external}

    def _samples(self) -> SampleFiles | None:
        entry = self.item["samples"]
        if not entry:
            return None
        kind, files = str(entry["kind"]), [*map(self._place, entry["files"])]
        name = self._place(entry["place"]).name
        path = self._place(entry.get("at", entry["place"]))
        if kind == "npy":  # the present content of the folder
            files = sorted([*path.glob("*.npy"), *path.glob("*/*.npy")], key=str)
        if kind == "reader":
            files += [data for path in files for data in self._data_of(path).values() if data not in files]
        given = self.item["ingredients"]
        most = given.get("option samples most")
        fields = {
            "function": given.get("option samples function"),
            "most": None if most is None else int(most),
            "at_least": 1,
        }
        return SampleFiles(kind, path, str(entry["label"]), files, fields, name)
