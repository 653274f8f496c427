"""One `env.Engine` of this run: what it declares, and what is known of it so far."""

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
from .nodes import data_node, data_of, label_of, real_path

if TYPE_CHECKING:
    from .services import MadeFile, TargetServices

NEVER = -1  # as a number of dependencies


class EngineTarget:
    """hardware: None when it could not be resolved, and then `problem` says why; target: the
    engine's node; onnx, plugins: the source nodes; reported: a line of it was printed."""

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
        self.asked_for = ""  # the hardware, as the user named it
        self.target: Any = None
        self.pair: Any = ()
        self.depends = 0  # of each node of the pair, as declared here
        self.original: Any = None  # what the user named
        self.onnx: Any = None  # what is compiled: the same, or what is made of it
        self.gate: MadeFile | None = None
        self.proof: AccuracyCheck | None = None  # that of the engine itself
        self.samples: MadeFile | None = None  # for a calibrator
        self.compared_by: list[Any] = []  # nodes of a proof without a gate
        self.plugins: list[Any] = []
        self.requested = self.reported = self.kept = False
        self.made: str | None = None  # sha256 of what this run made or adopted
        self.began: float | None = None  # when its action was asked, seconds since the epoch
        self.judged_s = 0.0
        self._up_to_date: UpToDateResult | None = None
        self.known: EngineSpec | None = None  # as it was last judged or made
        self._checked: OnnxSummary | None = None  # of a model that the recipe is right for
        self._looked: set[Any] = set()
        self._files: LastBuild | None = None  # where they were found

    @cached_property
    def source(self) -> str:
        """The ONNX that is compiled, as people know it."""
        return label_of(self._session, self.onnx)

    @property
    def board(self) -> str:
        """Its hardware, as people know it."""
        if self.hardware is None:
            return self.asked_for or "this host"
        return self.hardware.name or self.hardware.title

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The ingredients that are not files, none of which needs a file to be there."""
        return value_fields(self.recipe, self.hardware.signature) if self.hardware else {}

    @property
    def checked(self) -> UpToDateResult | None:
        """The judgement, if there was one."""
        return self._up_to_date

    @property
    def current(self) -> bool:
        """Whether the engine is what is wanted, as judged before or made by this run."""
        return bool(self.made or (self._up_to_date and self._up_to_date.current))

    @property
    def sha256(self) -> str | None:
        """Of the engine's bytes, as far as they were judged or made."""
        return self.made or (self._up_to_date.sha256 if self._up_to_date else None)

    def state(self) -> int:
        """SCons's state of the pair: of the node that it went further with."""
        engine, sidecar = self.pair
        return max(int(engine.get_state()), int(sidecar.get_state()))

    def mark_requested(self) -> None:
        """This run asks for the engine: its hardware is named before anything else is said."""
        self.requested = True
        self._session.requested(self)

    def on_visit(self, node: Any) -> None:
        """SCons looks at each node of the pair once a build; in an interactive session a second
        look is another build."""
        if node in self._looked:
            self._looked, self._up_to_date = set(), None
            self.reported, self.made, self.began = False, None, None
            self._session.again()
        self._looked.add(node)

    def up_to_date(self) -> UpToDateResult:
        """The judgement before anything is built. Raises EngineError."""
        if self._up_to_date is None:
            began = time.monotonic()
            self._up_to_date = check_up_to_date(self.spec(), self._session.state, self._session.digest_cache)
            self.judged_s = time.monotonic() - began
        return self._up_to_date

    def is_complete(self) -> bool:
        """Whether nothing is left to do: it is as wanted, and where it shall be compared with its
        original, its receipt tells of that by these samples and bounds, or that it could not be, as
        it cannot be here. Raises EngineError."""
        up_to_date, proof = self.up_to_date(), self.proof
        if proof is None or not up_to_date.current:
            return up_to_date.current
        told = up_to_date.compared
        return told is not None and told.by == proof.key() and (told.ran or bool(proof.why_not()))

    def forget(self) -> None:
        """Judge it anew when it is asked for."""
        self._up_to_date = None

    def spec(self) -> EngineSpec:
        """The engine as its sources are now. Raises EngineError, naming the source at fault."""
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
            *(inputs.digest, self._told),
        )
        self.known = spec._replace(check=self.proof)
        return self.known

    def _told(self) -> dict[str, Any]:
        """For the receipt."""
        told: dict[str, Any] = {}
        made = [n.attributes.trt_engine for n in self._made_of() if hasattr(n.attributes, "trt_engine")]
        if made:
            told["made_by"] = [derived.told() for derived in made]
        if self.recipe.accuracy is None:
            return told
        figures: Any = "the ONNX is compiled as it is: nothing to compare"
        if self.gate:
            figures = self.gate.told()["facts"]
        return {**told, "accuracy": {"onnx": figures}}

    def _made_of(self) -> list[Any]:
        """The ONNX that is compiled, the one it was made of, and a calibrator's samples."""
        nodes = [self.onnx] if self.onnx is self.original else [self.original, self.onnx]
        return [*nodes, self.samples.target] if self.samples else nodes

    def steps(self) -> list[Any]:
        """What this run judged or made before the engine, each after what it is made from."""
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
        """Whether the network's own types decide its precision."""
        return self.recipe.strongly_typed or (
            self.hardware is not None and strongly_typed(self.hardware.signature)
        )

    def check(self) -> OnnxSummary | None:
        """The summary of what the user named, None while it is not there. Raises RecipeError with all
        that is wrong with the recipe for this model and hardware."""
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        path, summary = real_path(self.original), None
        if path.exists():
            summary = self._session.inputs.summary_of(path, label_of(self._session, self.original))
            if summary is self._checked:
                return summary  # a step that is made for it asked before
        recipe, found = self.recipe, refusals(self.recipe, self.hardware.signature)
        if summary is not None:
            found += problems(recipe.profiles, summary.inputs)
            found += faults(recipe.precision, recipe.conversion, self.strongly_typed, summary)
        if found:
            raise RecipeError(f"{label_of(self._session, self.original)}: {'; '.join(found)}")
        self._checked = summary
        return summary

    def faulty(self) -> bool:
        """Whether `check` already tells that the engine cannot be made; a source that a builder
        is still to make tells nothing."""
        if self.hardware is None or self.original.has_builder() or self.current:
            return False
        try:
            self.check()
        except EngineError as error:
            self.problem = error
            return True
        return False

    def paths(self) -> tuple[str, str]:
        """Where the pair is."""
        return str(self.path), f"{self.path}{SIDECAR_SUFFIX}"

    def places(self) -> list[Any]:
        """The pair's nodes, as far as they are declared."""
        return list(self.pair)

    def sources(self) -> list[Any]:
        """What its builder was given."""
        return [self.onnx]

    def needs(self) -> list[Any]:
        """The nodes of files that it is made from, as far as they are known."""
        made = [each.target for each in (self.gate, self.samples) if each]
        data = data_of(self._session, self.onnx)
        return [self.onnx, *data, *self.plugins, *made, *self.compared_by]

    def source_missing(self) -> bool:
        """Whether SCons itself will refuse this engine before its action is asked."""
        sources = [self.onnx, *self.plugins]
        return any(not node.has_builder() and not real_path(node).exists() for node in sources)

    def blocked_by(self) -> str | None:
        """The input whose own builder failed, so that this engine's action was never asked.

        Without -k SCons may stop before it visits the engine at all: its steps then tell."""
        if self.state() == SCons.Node.failed:
            inputs = self.target.children()
        else:
            inputs = [step.target for step in self.steps()]
        for node in inputs:
            if node.get_state() == SCons.Node.failed:
                return self._session.state.relative(node.get_abspath())
        return None

    def awaits(self) -> str | None:
        """The input that this run built itself (under -n: would build), as people know it."""
        for node in self.target.children():
            if node.has_builder() and node.get_state() == SCons.Node.executed:
                return self._session.state.relative(node.get_abspath())
        return None

    def to_json(self, signatures: list[HardwareSignature]) -> dict[str, Any]:
        """For `.trt/declared.json`. signatures: of the run, told once each; gets this one's."""
        hardware, from_top = self.hardware, self._session.from_top
        if hardware and hardware.signature not in signatures:
            signatures.append(hardware.signature)
        made = from_top(self.onnx.get_abspath())
        if self._files:
            made = self._session.place(self.onnx)
        alone = self.original is self.onnx
        told = {
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
        return {**told, **{name: value for name, value in more.items() if value not in (None, {})}}

    def _apart(self) -> dict[str, Path]:
        """External data that is not where the ONNX says, beside it: in a Repository or VariantDir."""
        if self._files is None:
            return {}
        folder = self._files.onnx.parent
        external = self._files.external.items()
        return {name: path for name, (path, _) in external if path != folder / name}
