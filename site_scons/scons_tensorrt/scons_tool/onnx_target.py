"""Files that are made from an ONNX before the compile: another precision, Q/DQ nodes, the figures of
an accuracy gate. Each is a target with a key and a receipt, like an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..build.onnx_spec import (
    SCRIPT,
    VERBS,
    Onnx,
    OnnxSpec,
    SampleFiles,
    check_onnx_up_to_date,
    data_name,
    onnx_spec_of,
    step_fields,
)
from ..build.up_to_date import UpToDateResult
from ..errors import EngineError, RecipeError
from ..recipe.sample_options import Samples
from .nodes import data_node, path_of, real_path, real_place
from .run_files import RunFiles
from .target import ReceiptTarget

if TYPE_CHECKING:
    from ..artifact.receipt import Receipt
    from ..build.inputs_unchanged import DoneStep
    from .target import Prepared


# The option of an engine that asks for a step, where it is not called as the kind of the step.
_OPTIONS = {"quantize": "calibration", "samples": "calibration", "prepare": "freeze"}


class SampleNodes:
    """A set of samples as nodes. place: as the user gave it; nodes: all of its files."""

    def __init__(self, kind: str, place: str, label: str, nodes: Sequence[Any], samples: Samples) -> None:
        self.kind, self.place, self.label = kind, place, label
        self.nodes, self.samples = nodes, samples

    def files(self) -> SampleFiles:
        paths = [real_path(node) for node in self.nodes]
        fields, name = self.samples.key_fields(), Path(self.place).name
        named = [path_of(node.get_abspath()) for node in self.nodes]
        return SampleFiles(self.kind, self.at(), self.label, paths, fields, name, named)

    def at(self) -> Path:
        """The path of the set, which may be in a Repository or the source of a VariantDir. Raises
        RecipeError if its files are in several folders."""
        if self.kind != "npy":
            return real_path(self.nodes[0])
        places = {}
        for node in self.nodes:
            depth = len(Path(node.get_abspath()).relative_to(self.place).parts)
            places[real_path(node).parents[depth - 1]] = node.name
        if len(places) > 1:
            (one, first), (two, second) = list(places.items())[:2]
            raise RecipeError(f"{self.label}: {first} is in {one}, {second} in {two}; put them in one folder")
        return next(iter(places), Path(self.place))


class OnnxTarget(ReceiptTarget):
    """One file to make. owners: the engines that use it, such as one engine for several kinds of
    hardware. onnx: nodes by role, the source first; script, read: nodes of an export; prepared: what it
    is made from instead of the original, where that needs preparation."""

    def __init__(
        self,
        files: RunFiles,
        owner: Any,
        path: Path,
        kind: str,
        options: Mapping[str, Any],
        onnx: Mapping[str, Any],
        samples: SampleNodes | None = None,
        script: Any = None,
        read: Mapping[str, Any] | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        super().__init__(files, path)
        self.owners = [owner] if owner else []
        self.name = owner.name if owner else path.name.partition(".")[0]
        self.kind, self.verbs = kind, VERBS.get(kind, VERBS[""])
        self.options = options
        self._onnx_given = onnx
        self.prepared = prepared
        self.samples = samples
        self._script = script
        self._read = read or {}
        self._receipt: Receipt | None = None  # of the file that this run made, or found up to date
        self._key = ""  # of the last check or build
        self.fields = step_fields(kind, options, samples.samples if samples else None)

    def option_of(self, error: Exception) -> str | None:
        text = str(error)
        of_samples = self.samples is not None and self.samples.label in text
        if isinstance(error, RecipeError) and text.startswith(f"{self.source}: ") and not of_samples:
            return "onnx"
        return _OPTIONS.get(self.kind, self.kind)

    def same_as(self, other: OnnxTarget) -> bool:
        """Whether both make the same file from the same inputs."""
        return self._made_of == other._made_of

    @property
    def _made_of(self) -> tuple[Any, ...]:
        place = self.samples.place if self.samples else None
        always = self.prepared if self.prepared and self.prepared.always else None
        return self.fields, self._onnx_given, place, self._script, self._read, always

    @property
    def onnx(self) -> Mapping[str, Any]:
        """The nodes of the ONNX files that it is made from, by role."""
        return self._onnx_files()

    def _onnx_files(self, read: bool = True) -> Mapping[str, Any]:
        given = self._onnx_given
        return {n: self.prepared.instead_of(given[n], read) for n in given} if self.prepared else given

    def is_needed(self, read: bool = True) -> bool:
        """Whether an engine is made from it, as far as that is known. read: also if its source must be read
        to know it."""
        return True

    @property
    def needed_for(self) -> str:
        """Why, for the beginning of the message where it cannot be made."""
        return ""

    def sources(self) -> list[Any]:
        samples = self.samples.nodes if self.samples else ()
        script = [self._script] if self._script else []
        return [*self._onnx_given.values(), *script, *self._read.values(), *samples]

    @property
    def source(self) -> str:
        """Its source, for messages."""
        return self._files.label(self.sources()[0])

    @property
    def sha256(self) -> str | None:
        if self._receipt is None and self.checked and self.checked.current:
            return self.checked.sha256
        return self._receipt.sha256 if self._receipt else None

    def made(self, receipt: Receipt) -> None:
        """Record that this run, or another process meanwhile, made the file."""
        self._receipt, self._key = receipt, receipt.key

    @property
    def known(self) -> bool:
        """Whether this run has checked it, made it or tried to."""
        return not (self.checked is None and self._receipt is None and self.began is None)

    def reset(self) -> None:
        super().reset()
        self._receipt = None

    def _check_up_to_date(self) -> UpToDateResult:
        spec = self.spec()
        self._key = spec.key
        return check_onnx_up_to_date(spec, self._files.state, self._files.digest_cache)

    @property
    def key(self) -> str:
        """The key of the last check or build, or the current one. Raises EngineError."""
        return self._key if self.checked or self._receipt else self.spec().key

    def spec(self) -> OnnxSpec:
        """The spec from the current sources. Raises EngineError, naming the faulty source."""
        self._check_owners()
        self._check_prepared()
        onnx = {role: self._onnx(node) for role, node in self.onnx.items()}
        samples = self._all_samples().files() if self.samples else None
        script = real_path(self._script) if self._script else None
        nodes = self._all_files()
        files = {name: real_path(node) for name, node in nodes.items()}
        named = {name: path_of(node.get_abspath()) for name, node in nodes.items()}
        named.update({SCRIPT: path_of(self._script.get_abspath())} if self._script else {})
        spec = onnx_spec_of(
            *(self.path, self.kind, self.options, self.fields, onnx, samples, self.source),
            *(script, files, self._files.inputs.digest, named),
        )
        inputs = self._files.inputs
        return spec._replace(bring=inputs.bringing(spec.inputs().values())) if inputs.leaves else spec

    def _all_files(self) -> dict[str, Any]:
        """The files of an export, with the external data of ONNX files among them."""
        found = dict(self._read)
        for name, node in self._read.items():
            for location, data in self._data_of(node).items():
                if data not in found.values():
                    found[data_name(location, name)] = data
        return found

    def _all_samples(self) -> SampleNodes:
        """The samples, with the external data of ONNX files that a reader reads."""
        assert self.samples
        found = list(self.samples.nodes)
        for node in self.samples.nodes if self.samples.kind == "reader" else ():
            found += [data for data in self._data_of(node).values() if data not in found]
        given = self.samples
        return SampleNodes(given.kind, given.place, given.label, found, given.samples)

    def _data_of(self, node: Any) -> dict[str, Any]:
        """The external data of a file that a function reads; none if it is not a valid ONNX, which the
        function will report."""
        if not node.name.endswith(".onnx"):
            return {}
        try:
            summary = self._files.inputs.summary(real_place(node))
            return {location: data_node(node, location) for location in summary.external}
        except (RecipeError, OSError, ValueError):
            return {}

    def to_json(self) -> dict[str, Any]:
        """For `.trt/declared.json`."""
        samples, place = self.samples and self._all_samples(), self._files.place
        return {
            "step": self.label,
            "kind": self.kind,
            "source": self.source,
            "options": dict(self.options),
            "ingredients": self.fields,
            "onnx": {
                role: {"path": place(node), "label": self._files.label(node)}
                for role, node in self._onnx_files(read=False).items()
            },
            "samples": samples
            and {
                "kind": samples.kind,
                "place": self._files.from_top(samples.place),
                **self._samples_apart(samples),
                "label": samples.label,
                "files": [place(node) for node in samples.nodes],
            },
            "script": self._script and place(self._script),
            "files": {name: place(node) for name, node in self._all_files().items()},
        }

    def _samples_apart(self, samples: SampleNodes) -> dict[str, str]:
        """The path of samples that are in a Repository or VariantDir."""
        with contextlib.suppress(RecipeError):  # reported by `spec`
            found = str(samples.at())
            return {} if found == samples.place else {"at": self._files.from_top(found)}
        return {}

    def _check_owners(self) -> None:
        """Raise the first error if no engine that uses the file can be built."""
        problem: EngineError | None = None
        for owner in self.owners:
            try:
                owner.check()
                return
            except EngineError as error:
                problem = problem or error
        if problem:
            raise problem

    def _check_prepared(self) -> None:
        """Raise RecipeError if its ONNX, which the build makes, must be prepared in several ways."""
        if self.prepared and self.prepared.is_needed():
            other = next((each for each in self.owners if each.prepared is not self.prepared), None)
            if other is not None:
                raise RecipeError(
                    f"{self.label}: {other.label} needs {self.source} prepared for other shapes; give one "
                    "of the engines another name"
                )

    def _onnx(self, node: Any) -> Onnx:
        path, label = real_path(node), self._files.label(node)
        summary = self._files.inputs.summary_of(path, label)
        external = {location: real_path(data_node(node, location)) for location in summary.external}
        return Onnx(path, label, external, summary)

    def needs(self) -> list[Any]:
        given = self.sources()
        read = [*self.onnx.values(), *(node for node in given if node.name.endswith(".onnx"))]
        given += [node for node in self.onnx.values() if node not in given]
        return given + [node for onnx in dict.fromkeys(read) for node in self._files.data_nodes(onnx)]

    def tidy(self) -> None:
        from ..build.run_onnx_step import tidy_step

        tidy_step(self.path, self._files.state)

    def receipt(self) -> Receipt | None:
        """The receipt of the file that this run made or found up to date."""
        if self._receipt is None and self.sha256:
            receipts = self._files.state.receipts
            self._receipt = receipts.find_by_bytes(self.path.name, self._key, self.sha256)
        return self._receipt

    def done(self) -> DoneStep:
        """The step with its present inputs, to be compared with what is compiled. Raises EngineError."""
        from ..build.inputs_unchanged import DoneStep

        spec = self.spec()
        if not self.known:  # it may have no target: a gate of the engine itself
            return DoneStep(self.label, spec, False, self.path, None)
        return DoneStep(self.label, spec, True, real_path(self.target), self.receipt())

    def receipt_details(self) -> dict[str, Any]:
        """For the receipts of engines: how the file was made."""
        receipt = self.receipt()
        details = receipt.details if receipt else {}
        facts = details.get("facts")
        return {"file": self.label, "kind": self.kind, "source": self.source, "facts": facts}
