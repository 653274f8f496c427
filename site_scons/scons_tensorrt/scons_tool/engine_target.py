"""One `env.Engine`: its declaration, and its state in this run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SCons.Node

from ..artifact.filename import SIDECAR_SUFFIX
from ..build.engine_spec import EngineInputs, EngineSpec, check_model, engine_spec
from ..build.up_to_date import UpToDateResult, check_up_to_date
from ..errors import AccuracyError, EngineError, HardwareError, RecipeError
from ..hardware.choose_hardware import Hardware
from ..recipe.conversion import strongly_typed
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.option_checks import messages_in, option_of
from ..recipe.options import DEFAULTS, Recipe
from ..recipe.options_by_product import effective
from .nodes import data_node, real_path, target_of
from .run_files import RunFiles
from .settings import Settings, option
from .target import ReceiptTarget, steps_of

if TYPE_CHECKING:
    from ..artifact.receipt import Receipt
    from ..build.engine_spec import AccuracyCheck
    from .onnx_target import OnnxTarget
    from .target import Prepared


class EngineTarget(ReceiptTarget):
    """hardware: None if it could not be resolved, with the error in `problem`; onnx, plugins, timings: the
    nodes of its files; timings: None without `timing_cache=`."""

    # Defaults of the class: attributes of each object would cost a large tree time and memory.
    timings: Any = None
    prepared: Prepared | None = None
    converted: OnnxTarget | None = None
    gate: OnnxTarget | None = None
    proof: AccuracyCheck | None = None  # compares the engine itself
    samples: OnnxTarget | None = None  # for a calibrator
    recorded: OnnxTarget | None = None  # beside it, for `scons-tensorrt check`
    compared_by: Sequence[Any] = ()  # nodes that `proof` needs, without a gate
    requested = kept = False
    made: str | None = None  # sha256 of the engine that this run built or reused
    known: EngineSpec | None = None  # as last checked or built
    _checked: OnnxSummary | None = None  # of a model that passed `check`
    inputs: EngineInputs | None = None  # the input files, as last found

    def __init__(
        self,
        files: RunFiles,
        path: Path,
        recipe: Recipe,
        chosen: Settings,
        hardware: Hardware | None,
        problem: EngineError | None,
        onnx: Any,
        plugins: list[Any],
        timings: Any = None,
    ) -> None:
        super().__init__(files, path)
        self.name = recipe.model
        self.recipe = recipe
        self.hardware = hardware
        self.problem = problem
        self.python = chosen.python
        self.asked_for = chosen.hardware  # the value of HARDWARE=, or ""
        self.owners = [self]
        self.original = onnx  # the source that the user gave
        self.plugins = plugins
        self.given = plugins
        if timings is not None:
            self.timings = timings
            self.given = [*plugins, timings]

    @property
    def onnx(self) -> Any:
        """What is compiled: the original, or what is made of it."""
        return self.compiled_onnx()

    def compiled_onnx(self, read: bool = True) -> Any:
        """What is compiled. read: also if the original must be read to know it."""
        if self.converted:
            return self.converted.target
        return self.prepared.instead_of(self.original, read) if self.prepared else self.original

    @property
    def declared_source(self) -> Any:
        """The source of its builder. The scanner adds a prepared ONNX, if it is needed."""
        return self.converted.target if self.converted else self.original

    @property
    def source(self) -> str:
        """The ONNX that is compiled, for messages."""
        return self._files.label(self.onnx)

    @property
    def board(self) -> str:
        """Its hardware, for messages."""
        if self.hardware is None:
            return self.asked_for or "this host"
        return self.hardware.name or self.hardware.title

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The ingredients that are not files."""
        return self._files.fields(self.recipe, self.hardware.signature) if self.hardware else {}

    @property
    def current(self) -> bool:
        """Whether the engine was found up to date or built by this run."""
        return bool(self.made or (self.checked and self.checked.current))

    @property
    def sha256(self) -> str | None:
        return self.made or (self.checked.sha256 if self.checked else None)

    def in_aliases(self) -> list[Any]:
        """What an alias of the engine means: the sidecar, because SCons reads the file. In an interactive
        session both, because SCons looks again only at the nodes that it came to by a dependency."""
        return list(self.nodes) if option("interactive") else [self.nodes[1]]

    def state(self) -> int:
        """SCons's state of the pair: that of the node which is further along."""
        engine, sidecar = self.nodes
        return max(int(engine.get_state()), int(sidecar.get_state()))

    def reset(self) -> None:
        super().reset()
        self.made = None

    def _check_up_to_date(self) -> UpToDateResult:
        return check_up_to_date(self.spec(), self._files.state, self._files.digest_cache)

    def is_complete(self) -> bool:
        """Whether the engine is up to date and, with `accuracy=`, compared: its receipt holds a result
        for these samples and bounds, or records that it could not run, and it cannot run here either.
        Raises EngineError."""
        up_to_date, proof = self.up_to_date(), self.proof
        if proof is None or not up_to_date.current:
            return up_to_date.current
        compared = up_to_date.compared
        return compared is not None and compared.by == proof.key() and (compared.ran or bool(proof.why_not()))

    def spec(self) -> EngineSpec:
        """The spec from the current sources. Raises EngineError, naming the faulty source."""
        self.known = self._spec(self.real_timings)
        return self.known

    def unpinned_spec(self) -> EngineSpec:
        """The same without the file of `timing_cache=`, to record it."""
        return self._spec(None)._replace(check=None)

    @property
    def real_timings(self) -> Path | None:
        """The path of the file of `timing_cache=`."""
        return None if self.timings is None else real_path(self.timings)

    def _spec(self, timings: Path | None) -> EngineSpec:
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        summary = self.check()
        onnx, inputs = real_path(self.onnx), self._files.inputs
        if summary is None or self.onnx is not self.original:
            summary = inputs.summary_of(onnx, self.source)
        recipe = effective(self.recipe, self.hardware.signature.product)
        label = self._files.label(self.timings) if timings else ""
        if self.timings is not None:
            recipe = recipe._replace(timing_cache=timings)
        if self.plugins:
            recipe = recipe._replace(plugins=tuple(real_path(node) for node in self.plugins))
        external = {
            location: (real_path(data_node(self.onnx, location)), least)
            for location, least in summary.external.items()
        }
        samples = (real_path(self.samples.target), self.samples.label) if self.samples else None
        self.inputs = EngineInputs(onnx, self.source, external, samples, summary.exact, label)
        spec = engine_spec(
            *(self.path, recipe, self.hardware, self.fields, self.inputs),
            *(inputs.digest, self._receipt_details),
        )
        if inputs.leaves:
            files = spec.inputs().values()
            spec = spec._replace(absent=inputs.gone(files), bring=inputs.bringing(files))
        return spec._replace(check=self.proof) if self.proof else spec

    def receipt(self) -> Receipt | None:
        """The receipt of the engine that this run built or found up to date."""
        spec, sha256 = self.known, self.sha256
        if spec is None or sha256 is None:
            return None
        return self._files.state.receipts.find_by_bytes(spec.filename, spec.key, sha256)

    def _receipt_details(self) -> dict[str, Any]:
        """Details for the receipt."""
        details: dict[str, Any] = {}
        steps = [step for step in map(target_of, self._made_of()) if hasattr(step, "receipt_details")]
        if steps:
            details["made_by"] = [step.receipt_details() for step in steps]
        if self.recipe.accuracy is None:
            return details
        figures: Any = "the ONNX is compiled as it is: nothing to compare"
        if self.gate:
            figures = self.gate.receipt_details()["facts"]
        return {**details, "accuracy": {"onnx": figures}}

    def _made_of(self) -> list[Any]:
        """The nodes of the original, what is made of it until the compile, and a calibrator's samples."""
        base = self.prepared.instead_of(self.original) if self.prepared else self.original
        nodes = [*dict.fromkeys((self.original, base, self.onnx))]
        return [*nodes, self.samples.target] if self.samples else nodes

    def steps(self) -> list[Any]:
        """The steps that this run checked or made for the engine, each after its inputs."""
        return [step for step in self.declared_steps() if step.known]

    def declared_steps(self) -> list[Any]:
        """The steps that are declared for the engine, each after its inputs."""
        return steps_of(dict.fromkeys((*self._made_of(), *self.made_beside())))

    @cached_property
    def strongly_typed(self) -> bool:
        """Whether the types in the network determine its precision."""
        return self.recipe.strongly_typed or (
            self.hardware is not None and strongly_typed(self.hardware.signature)
        )

    def option_of(self, error: Exception) -> str | None:
        text, label = str(error), f"{self._files.label(self.original)}: "
        if isinstance(error, AccuracyError):
            return "accuracy"
        if isinstance(error, HardwareError):
            return "hardware"
        if not isinstance(error, RecipeError):
            return None
        option = option_of(text.removeprefix(label))
        return option if option in DEFAULTS else "onnx" * text.startswith(label)

    def check(self) -> OnnxSummary | None:
        """The summary of the original, None if it does not exist yet. Raises RecipeError with every
        problem of the recipe for this model and hardware."""
        if self.hardware is None:
            raise self.problem or RecipeError(f"{self.label}: no hardware")
        path, summary = real_path(self.original), None
        if os.path.exists(path) or self._files.inputs.absent(path):
            summary = self._files.inputs.summary_of(path, self._files.label(self.original))
            if summary is self._checked:
                return summary  # already checked for one of its steps
        with messages_in(toml=bool(self.place and self.place.toml)):
            check_model(self.recipe, self.hardware.signature, summary, self._files.label(self.original))
        self._checked = summary
        return summary

    def paths(self) -> tuple[str, str]:
        """The paths of the pair."""
        return str(self.path), f"{self.path}{SIDECAR_SUFFIX}"

    def sources(self) -> list[Any]:
        return [self.declared_source]

    def needs(self) -> list[Any]:
        made = self.made_beside()
        data = self._files.data_nodes(self.onnx)
        return [self.onnx, *data, *self.given, *made, *self.compared_by]

    def made_beside(self) -> list[Any]:
        """The nodes of its steps that are not compiled."""
        return [each.target for each in (self.gate, self.samples, self.recorded) if each]

    def tidy(self) -> None:
        from ..build.build_engine import tidy

        tidy(self.spec(), self._files.state, self._files.digest_cache)

    def blocked_by(self) -> str | None:
        """The input whose builder failed, so that SCons did not run the action.

        Without -k, SCons may stop before it visits the engine at all; then a step of it failed."""
        if self.state() == SCons.Node.failed:
            inputs = self.target.children()
        else:
            inputs = [step.target for step in self.steps()]
        for node in inputs:
            if node.get_state() == SCons.Node.failed:
                return self._files.state.relative(node.get_abspath())
        return None
