"""One `env.Engine`: its declaration, and its state in this run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..artifact.filename import SIDECAR_SUFFIX
from ..build.spec import AccuracyCheck, EngineSpec, LastBuild, UpToDateResult, check_up_to_date, engine_spec
from ..errors import EngineError, RecipeError
from ..hardware.resolve import Hardware
from ..hardware.signature import HardwareSignature
from ..recipe.backends import effective, refusals
from ..recipe.conversion import faults, strongly_typed
from ..recipe.key import value_fields
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.options import Recipe
from ..recipe.shapes import problems
from .nodes import built_input, data_node, data_of, label_of, real_path

if TYPE_CHECKING:
    from .services import MadeFile, TargetServices

NEVER = -1  # a number of dependencies that no node has


class EngineTarget:
    """hardware: None if it could not be resolved, with the error in `problem`; target: the engine's
    node; onnx, plugins: the source nodes; reported: whether its line was printed."""

    def __init__(
        self,
        session: TargetServices,
        name: str,
        recipe: Recipe,
        hardware: Hardware | None,
        problem: EngineError | None,
        path: Path,
    ) -> None:
        self._session = session
        self.name = name
        self.recipe = recipe
        self.hardware = hardware
        self.problem = problem
        self.path = path
        self.label = session.state.relative(path)
        self.python = ""
        self.asked_for = ""  # the value of HARDWARE=, or ""
        self.target: Any = None
        self.pair: Any = ()
        self.depends = 0  # explicit dependencies of each node of the pair, as declared here
        self.original: Any = None  # the source that the user gave
        self.onnx: Any = None  # what is compiled: the original, or a conversion of it
        self.gate: MadeFile | None = None
        self.proof: AccuracyCheck | None = None  # compares the engine itself
        self.samples: MadeFile | None = None  # for a calibrator
        self.compared_by: list[Any] = []  # nodes that `proof` needs, without a gate
        self.plugins: list[Any] = []
        self.requested = self.reported = self.kept = False
        self.made: str | None = None  # sha256 of the engine that this run built or reused
        self.began: float | None = None  # start of its action, seconds since the epoch
        self.judged_s = 0.0
        self._up_to_date: UpToDateResult | None = None
        self.known: EngineSpec | None = None  # as last checked or built
        self._checked: OnnxSummary | None = None  # of a model that passed `check`
        self._looked: set[Any] = set()
        self._files: LastBuild | None = None  # the input files, as last found

    @cached_property
    def source(self) -> str:
        """The ONNX that is compiled, for messages."""
        return label_of(self._session, self.onnx)

    @property
    def board(self) -> str:
        """Its hardware, for messages."""
        if self.hardware is None:
            return self.asked_for or "this host"
        return self.hardware.name or self.hardware.title

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The ingredients that are not files."""
        return value_fields(self.recipe, self.hardware.signature) if self.hardware else {}

    @property
    def checked(self) -> UpToDateResult | None:
        """The result of `up_to_date`, if it was called."""
        return self._up_to_date

    @property
    def current(self) -> bool:
        """Whether the engine was found up to date or built by this run."""
        return bool(self.made or (self._up_to_date and self._up_to_date.current))

    @property
    def sha256(self) -> str | None:
        """Of the engine's bytes, if they were checked or built."""
        return self.made or (self._up_to_date.sha256 if self._up_to_date else None)

    def state(self) -> int:
        """SCons's state of the pair: that of the node which is further along."""
        engine, sidecar = self.pair
        return max(int(engine.get_state()), int(sidecar.get_state()))

    def mark_requested(self) -> None:
        """This run requests the engine: print the line of its hardware before any other."""
        self.requested = True
        self._session.requested(self)

    def on_visit(self, node: Any) -> None:
        """SCons visits each node of the pair once a build; a second visit is another build of an
        interactive session."""
        if node in self._looked:
            self._looked, self._up_to_date = set(), None
            self.reported, self.made, self.began = False, None, None
            self._session.again()
        self._looked.add(node)

    def up_to_date(self) -> UpToDateResult:
        """Whether the engine is up to date, before anything is built; cached. Raises EngineError."""
        if self._up_to_date is None:
            began = time.monotonic()
            self._up_to_date = check_up_to_date(self.spec(), self._session.state, self._session.digest_cache)
            self.judged_s = time.monotonic() - began
        return self._up_to_date

    def is_complete(self) -> bool:
        """Whether the engine is up to date and, with `accuracy=`, compared: its receipt holds a result
        for these samples and bounds, or records that it could not run, and it cannot run here either.
        Raises EngineError."""
        up_to_date, proof = self.up_to_date(), self.proof
        if proof is None or not up_to_date.current:
            return up_to_date.current
        compared = up_to_date.compared
        return compared is not None and compared.by == proof.key() and (compared.ran or bool(proof.why_not()))

    def forget(self) -> None:
        """Check again on the next call of `up_to_date`."""
        self._up_to_date = None

    def spec(self) -> EngineSpec:
        """The spec from the current sources. Raises EngineError, naming the faulty source."""
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        summary = self.check()
        onnx, inputs = real_path(self.onnx), self._session.inputs
        if summary is None or self.onnx is not self.original:
            summary = inputs.summary_of(onnx, self.source)
        recipe = effective(self.recipe, self.hardware.signature.product)
        if self.plugins:
            recipe = recipe._replace(plugins=tuple(real_path(node) for node in self.plugins))
        external = {
            location: (real_path(data_node(self.onnx, location)), least)
            for location, least in summary.external.items()
        }
        samples = (real_path(self.samples.target), self.samples.label) if self.samples else None
        self._files = LastBuild(onnx, self.source, external, samples, summary.exact)
        spec = engine_spec(
            *(self.path, recipe, self.hardware, self.fields, self._files),
            *(inputs.digest, self._receipt_details),
        )
        self.known = spec._replace(check=self.proof)
        return self.known

    def _receipt_details(self) -> dict[str, Any]:
        """Details for the receipt."""
        details: dict[str, Any] = {}
        made = [n.attributes.trt_engine for n in self._made_of() if hasattr(n.attributes, "trt_engine")]
        if made:
            details["made_by"] = [derived.told() for derived in made]
        if self.recipe.accuracy is None:
            return details
        figures: Any = "the ONNX is compiled as it is: nothing to compare"
        if self.gate:
            figures = self.gate.told()["facts"]
        return {**details, "accuracy": {"onnx": figures}}

    def _made_of(self) -> list[Any]:
        """The nodes of the ONNX that is compiled, its original, and a calibrator's samples."""
        nodes = [self.onnx] if self.onnx is self.original else [self.original, self.onnx]
        return [*nodes, self.samples.target] if self.samples else nodes

    def steps(self) -> list[Any]:
        """The steps that this run checked or made for the engine, each after its inputs."""
        found: dict[Any, None] = {}

        def add(node: Any) -> None:
            step = getattr(node.attributes, "trt_engine", None)
            if step is not None and step not in found:
                for onnx in step.onnx.values():
                    add(onnx)
                found[step] = None

        for node in (*self._made_of(), *([self.gate.target] if self.gate else ())):
            add(node)
        return [step for step in found if step.known]

    @cached_property
    def strongly_typed(self) -> bool:
        """Whether the types in the network determine its precision."""
        return self.recipe.strongly_typed or (
            self.hardware is not None and strongly_typed(self.hardware.signature)
        )

    def check(self) -> OnnxSummary | None:
        """The summary of the original, None if it does not exist yet. Raises RecipeError with every
        problem of the recipe for this model and hardware."""
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        path, summary = real_path(self.original), None
        if path.exists():
            summary = self._session.inputs.summary_of(path, label_of(self._session, self.original))
            if summary is self._checked:
                return summary  # already checked for one of its steps
        recipe, found = self.recipe, refusals(self.recipe, self.hardware.signature)
        if summary is not None:
            found += problems(recipe.profiles, summary.inputs)
            found += faults(recipe.precision, recipe.conversion, self.strongly_typed, summary)
        if found:
            raise RecipeError(f"{label_of(self._session, self.original)}: {'; '.join(found)}")
        self._checked = summary
        return summary

    def faulty(self) -> bool:
        """Whether `check` fails. False if the source has yet to be built."""
        if self.hardware is None or self.original.has_builder() or self.current:
            return False
        try:
            self.check()
        except EngineError as error:
            self.problem = error
            return True
        return False

    def paths(self) -> tuple[str, str]:
        """The paths of the pair."""
        return str(self.path), f"{self.path}{SIDECAR_SUFFIX}"

    def places(self) -> list[Any]:
        """The pair's nodes."""
        return list(self.pair)

    def sources(self) -> list[Any]:
        """The sources of its builder."""
        return [self.onnx]

    def needs(self) -> list[Any]:
        """The nodes of all input files that are known."""
        made = [each.target for each in (self.gate, self.samples) if each]
        data = data_of(self._session, self.onnx)
        return [self.onnx, *data, *self.plugins, *made, *self.compared_by]

    def source_missing(self) -> bool:
        """Whether SCons will fail before it runs the action, because a source is missing."""
        sources = [self.onnx, *self.plugins]
        return any(not node.has_builder() and not real_path(node).exists() for node in sources)

    def blocked_by(self) -> str | None:
        """The input whose builder failed, so that SCons did not run the action.

        Without -k, SCons may stop before it visits the engine at all; then a step of it failed."""
        if self.state() == SCons.Node.failed:
            inputs = self.target.children()
        else:
            inputs = [step.target for step in self.steps()]
        for node in inputs:
            if node.get_state() == SCons.Node.failed:
                return self._session.state.relative(node.get_abspath())
        return None

    def awaits(self) -> str | None:
        """The label of an input that this run built (with -n: would build)."""
        node = built_input(self.target)
        return self._session.state.relative(node.get_abspath()) if node else None

    def to_json(self, signatures: list[HardwareSignature]) -> dict[str, Any]:
        """For `.trt/declared.json`. signatures: a list that all engines share; this one's is added."""
        hardware, from_top = self.hardware, self._session.from_top
        if hardware and hardware.signature not in signatures:
            signatures.append(hardware.signature)
        made = from_top(self.onnx.get_abspath())
        if self._files:
            made = self._session.place(self.onnx)
        alone = self.original is self.onnx
        fields = {
            "name": self.name,
            "engine": self.label,
            "source": self.source,
            "onnx": made,
            "original": made if alone else from_top(self.original.get_abspath()),
            "plugins": [from_top(n.get_abspath()) for n in self.plugins],
            "samples": self.samples and from_top(str(self.samples.path)),
            "hardware": hardware and hardware.name,
            "recipe": self.recipe.to_json(),
            "ingredients": self.fields,
        }
        apart = self._apart()
        more = {
            "data": {location: from_top(str(path)) for location, path in apart.items()},
            "gate": self.gate and self.gate.label,
            "signature": signatures.index(hardware.signature) if hardware else None,
            "problem": None if hardware else str(self.problem or "no hardware"),
        }
        return {**fields, **{name: value for name, value in more.items() if value not in (None, {})}}

    def _apart(self) -> dict[str, Path]:
        """External data that is not beside the ONNX but in a Repository or VariantDir."""
        if self._files is None:
            return {}
        folder = self._files.onnx.parent
        external = self._files.external.items()
        return {name: path for name, (path, _) in external if path != folder / name}
