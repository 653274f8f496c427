"""The files that are made of an ONNX before the compile: another precision, Q/DQ nodes, the figures
of an accuracy gate. Each is a target of its own, judged as engines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..compile.wanted import Verdict
from ..convert.step import Onnx, SampleFiles, StepWanted, file_fields, judge_step, step_fields
from ..errors import EngineError, RecipeError
from ..recipe.conversion import Samples
from .declared import Declared, data_node, label_of, real_path

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class SampleNodes:
    """A set of samples as nodes. place: what the user named; nodes: every file of it."""

    kind: str
    place: str
    label: str
    nodes: Sequence[Any]
    samples: Samples

    def files(self) -> SampleFiles:
        paths = [real_path(node) for node in self.nodes]
        place = Path(self.place) if self.kind == "npy" else paths[0]
        return SampleFiles(self.kind, place, self.label, paths, self.samples.key_fields())


class Derived:
    """One file to be made for the engine `owner`. onnx: nodes by role, the first is the source."""

    def __init__(
        self,
        session: Session,
        owner: Declared,
        path: Path,
        kind: str,
        options: Mapping[str, Any],
        onnx: Mapping[str, Any],
        samples: SampleNodes | None,
    ) -> None:
        self._session = session
        self.owner = owner
        self.name = owner.name
        self.path = path
        self.label = session.state.relative(path)
        self.kind = kind
        self.options = options
        self.onnx = onnx
        self.samples = samples
        self.target: Any = None
        self.hardware = owner.hardware
        self.problem: EngineError | None = None
        self.reported = False
        self.made: str | None = None
        self._verdict: Verdict | None = None
        self._looked = False
        chosen = samples.samples.key_fields() if samples else {}
        more = {f"samples {name}": value for name, value in chosen.items() if name != "at_least"}
        self.fields = step_fields(kind, {**options, **more})

    def same_as(self, other: Derived) -> bool:
        """Whether two engines want the very same file."""
        return (self.fields, self.onnx, self._place) == (other.fields, other.onnx, other._place)

    @property
    def _place(self) -> str | None:
        return self.samples.place if self.samples else None

    @property
    def judged(self) -> Verdict | None:
        return self._verdict

    @property
    def sha256(self) -> str | None:
        """Of the file's bytes, as far as they were judged or made."""
        receipt = self._verdict.receipt if self._verdict and self._verdict.current else None
        return self.made or (receipt.sha256 if receipt else None)

    def consider(self) -> None:
        """The hardware of its engine is named before anything is said of it."""
        self._session.considered(self.owner)

    def looked_at(self, node: Any) -> None:
        """A second look is another build of an interactive session."""
        if self._looked:
            self._verdict, self.made, self.reported = None, None, False
        self._looked = True

    def verdict(self) -> Verdict:
        """The judgement before anything is made. Raises EngineError."""
        if self._verdict is None:
            self._verdict = judge_step(self.wanted(), self._session.state, self._session.memo)
        return self._verdict

    def wanted(self) -> StepWanted:
        """The file as its sources are now. Raises EngineError, naming the source at fault."""
        self.owner.check()
        onnx = {role: self._onnx(node) for role, node in self.onnx.items()}
        samples = self.samples.files() if self.samples else None
        if samples and not samples.files:
            raise RecipeError(f"{samples.label}: no .npy in this folder; put samples there")
        ingredients = {**self.fields, **file_fields(onnx, samples, self._session.digest)}
        return StepWanted(self.path, self.kind, self.options, onnx, samples, ingredients)

    def _onnx(self, node: Any) -> Onnx:
        path, label = real_path(node), label_of(self._session, node)
        summary = self._session.summary_of(path, label)
        external = {location: real_path(data_node(node, location)) for location in summary.external}
        return Onnx(path, label, external)

    def source_missing(self) -> bool:
        """Whether SCons itself will refuse this file before its action is asked."""
        nodes = [*self.onnx.values(), *(self.samples.nodes if self.samples else ())]
        return any(not node.has_builder() and not real_path(node).exists() for node in nodes)

    def awaits(self) -> str | None:
        """The input that this run would build first."""
        for node in self.target.children():
            if node.has_builder() and node.get_state() == SCons.Node.executed:
                return self._session.state.relative(node.get_abspath())
        return None
