"""Build one engine on this machine, without SCons: the same steps, keys and files as `scons engines`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..artifact.filename import EngineFilename
from ..artifact.plain_api import HostCapabilities
from ..artifact.receipt import Receipt
from ..artifact.state_folder import StateFolder
from ..errors import HardwareMismatchError, PublishError, RecipeError
from ..files.digest_cache import DigestCache
from ..files.json_cache import JsonCache
from ..files.writing import cause
from ..hardware.choose_hardware import Hardware, resolve
from ..hardware.probe_host import Host
from ..hardware.runtime import Interpreter
from ..hardware.signature import HardwareSignature
from ..recipe.conversion import Step, strongly_typed
from ..recipe.key_ingredients import value_fields
from ..recipe.onnx.summary import OnnxSummary
from ..recipe.options import Recipe
from ..recipe.options_by_product import effective
from ..recipe.preparation import find_reasons, prepare_step
from ..recipe.sample_options import Samples
from ..values import Value
from .build_context import BuildContext
from .build_engine import BuildOutcome, build_engine
from .compiler_types import BuildConfig, CompiledEngine, EngineCacheEntry, EngineRequest, Say, recipe_of
from .engine_spec import EngineInputs, EngineSpec, check_model, engine_spec
from .input_digests import Inputs
from .inputs_unchanged import DoneStep, check_unchanged
from .onnx_context import OnnxContext
from .onnx_spec import SAMPLES, Onnx, OnnxSpec, SampleFiles, compile_step, onnx_spec_of, step_fields
from .reuse_local_engine import cache_size_here
from .run_onnx_step import make_onnx


class LocalRuntime:
    """Compiles in a child process of this machine, as `scons engines` does.

    hardware: a name as for HARDWARE=, None for this host; python: the interpreter that has TensorRT
    ($TRT_PYTHON, else this one); onnx_python: the one that has onnx, for conversions ($TRT_ONNX_PYTHON, else
    this one); top: the folder that has `hardware/`.
    """

    def __init__(
        self,
        hardware: str | None = None,
        *,
        python: str | None = None,
        onnx_python: str | None = None,
        top: Path | None = None,
    ) -> None:
        self._named = hardware
        self._python = python or os.environ.get("TRT_PYTHON", "")
        self._onnx_python = onnx_python or os.environ.get("TRT_ONNX_PYTHON") or sys.executable
        self._top = Path(top or os.getcwd()).absolute()

    def host(self) -> HardwareSignature:
        """The signature of the hardware it compiles for. Raises HardwareError."""
        state = StateFolder(self._top / ".trt", self._top)
        return self._builds(state, lambda line: None).hardware(self._named).signature

    def reuse_or_compile(
        self, request: EngineRequest, told: Callable[[str], None], say: Say
    ) -> CompiledEngine:
        """See `corpus.ReusingRuntime`. Raises EngineError."""
        builds = self._builds(request.state, say)
        if isinstance(request.host, HardwareSignature):
            hardware = Hardware(None, request.host, "given")
        else:
            hardware = builds.hardware(self._named)
            _check_host(request.host, hardware)
        backbone = request.backbone
        recipe = recipe_of(backbone.model_name, request.config, calibration=True)
        outcome, key = builds.build(recipe, backbone.onnx_path, hardware, request.engine)
        told("current" if outcome.how == "reused" else outcome.up_to_date.code)
        return CompiledEngine(outcome.sha256, key, outcome.seconds)

    def compile_engine(self, onnx_path: Path, config: BuildConfig, output: Path) -> EngineCacheEntry:
        """Compile a model to `output`, whose name says model, hardware and precision. Raises EngineError."""
        output = Path(output).absolute()
        name = EngineFilename.parse(output.name)
        state = state_folder(output.parent, None)
        builds = self._builds(state, logging.getLogger("scons_tensorrt").warning)
        hardware = builds.hardware(self._named)
        recipe = recipe_of(name.model, config, calibration=True)
        found = EngineFilename.of(hardware.signature, recipe.model, recipe.precision)
        if found != name:
            raise HardwareMismatchError(f"{output.name}: this runtime compiles {found.build()}")
        outcome, key = builds.build(recipe, Path(onnx_path).absolute(), hardware, output)
        return EngineCacheEntry(output, outcome.sha256, key)

    def _builds(self, state: StateFolder, say: Say) -> _Builds:
        return _Builds(state, self._python, self._onnx_python, say, self._top)


def default_runtime(hardware: str | None = None) -> LocalRuntime:
    """The runtime of this machine. hardware: a name as for HARDWARE=, None for this host."""
    return LocalRuntime(hardware)


def state_folder(cache_root: Path, state_dir: Path | None) -> StateFolder:
    """The state folder of a cache: `.trt` beside it, as in a tree with `engines/`."""
    top = cache_root.parent
    return StateFolder(Path(state_dir).absolute() if state_dir else top / ".trt", top)


def _check_host(host: HostCapabilities, hardware: Hardware) -> None:
    """Raise HardwareMismatchError if this machine's hardware is not the one asked for."""
    wanted = EngineFilename.of(host.signature(), "x", "fp32")
    found = EngineFilename.of(hardware.signature, "x", "fp32")
    if wanted != found:
        raise HardwareMismatchError(
            f"the request is for sm{wanted.sm} {wanted.platform} {wanted.runtime}, and this runtime compiles "
            f"for sm{found.sm} {found.platform} {found.runtime} ({hardware.why}); build on that host"
        )


class _MadeStep(Value):
    """The file of an ONNX step. label: for messages; spec: with the present inputs; receipt: of its bytes;
    details: for the engine's receipt."""

    target: Path
    label: str
    spec: Callable[[], OnnxSpec]
    receipt: Receipt
    details: dict[str, Any]

    def done(self) -> DoneStep:
        return DoneStep(self.label, self.spec(), True, self.target, self.receipt)


class _Builds:
    """Builds engines of one tree. state: its state folder; python: runs TensorRT; onnx_python: has onnx."""

    def __init__(self, state: StateFolder, python: str, onnx_python: str, say: Say, top: Path) -> None:
        self.state = state
        self.digest_cache = DigestCache(state.digests, state.top)
        self._inputs = Inputs(self.digest_cache)
        self._interpreter = Interpreter(python or None, state.interpreter(python))
        self._devices = JsonCache(state.root / "host.json")
        self._onnx_python = onnx_python
        self._say = say
        self._top = top

    def hardware(self, named: str | None) -> Hardware:
        """The hardware of a name, or of this host. Raises HardwareError."""
        return resolve(named, self._top, self._interpreter.runtime, memo=self._devices)

    def build(self, recipe: Recipe, onnx: Path, hardware: Hardware, engine: Path) -> tuple[BuildOutcome, str]:
        """Build `engine` from a model, or reuse it; also returns its key. Raises EngineError."""
        try:
            spec, steps = self._spec(recipe, onnx, hardware, engine)
            check_unchanged(spec, (step.done() for step in steps))
            return build_engine(spec, self._context()), spec.key
        except OSError as error:
            place = error.filename2 or error.filename or self.state.root
            why = cause(error, "choose another cache_root or state_dir")
            raise PublishError(f"{place}: {why}") from None
        finally:
            with contextlib.suppress(OSError):  # the next build is slower for it
                self.digest_cache.save()
                self._interpreter.save()
                self._devices.save()

    def _context(self) -> BuildContext:
        return BuildContext(
            *(self.state, self.digest_cache, self._interpreter, self._gpu),
            say=self._say,
            cache_size=cache_size_here(),
        )

    def _gpu(self) -> str | None:
        return str(Host().devices(self._devices)[0]["uuid"]) if Host().nvidia_evidence() else None

    def _spec(
        self, recipe: Recipe, onnx: Path, hardware: Hardware, engine: Path
    ) -> tuple[EngineSpec, list[_MadeStep]]:
        """The engine's spec, and the steps that were made for it: what it is compiled from is converted
        first. Raises EngineError."""
        original, summary = self._onnx(onnx)
        check_model(recipe, hardware.signature, summary, original.label)
        strong = recipe.strongly_typed or strongly_typed(hardware.signature)
        compiled, samples = original, None
        steps: list[_MadeStep] = []
        calibration = recipe.conversion.calibration
        if find_reasons(recipe.preparation, recipe.profiles, summary):
            chosen = calibration.samples if calibration else None
            step = prepare_step(recipe.preparation, recipe.profiles)
            steps.append(self._make(recipe, step, compiled, chosen))
            compiled, summary = self._onnx(steps[-1].target)
        found = compile_step(recipe, strong, summary)
        if found:
            steps.append(self._make(recipe, found[0], compiled, found[1]))
            if found[0].kind == SAMPLES:
                samples = steps[-1].target, self.state.relative(steps[-1].target)
            else:
                compiled, summary = self._onnx(steps[-1].target)
        external = {
            location: (path, summary.external[location]) for location, path in compiled.external.items()
        }
        details = [step.details for step in steps]
        spec = engine_spec(
            engine=engine,
            recipe=effective(recipe, hardware.signature.product),
            hardware=hardware,
            fields=value_fields(recipe, hardware.signature),
            inputs=EngineInputs(compiled.path, original.label, external, samples, summary.exact),
            digest=self._inputs.digest,
            told=lambda: {"made_by": details} if details else {},
        )
        return spec, steps

    def _onnx(self, path: Path) -> tuple[Onnx, OnnxSummary]:
        label = self.state.relative(path)
        summary = self._inputs.summary_of(path, label)
        external = {name: path.parent / name for name in summary.external}
        return Onnx(path, label, external, summary), summary

    def _make(self, recipe: Recipe, step: Step, onnx: Onnx, samples: Samples | None) -> _MadeStep:
        """Make the file of a step from an ONNX, or reuse it."""
        name = "prepared" if step.kind == "prepare" else recipe.precision
        end = SAMPLES if step.kind == SAMPLES else "onnx"
        target = self.state.onnx / f"{recipe.model}.{name}.{end}"

        def spec() -> OnnxSpec:
            return onnx_spec_of(
                target=target,
                kind=step.kind,
                options=step.options,
                fields=step_fields(step.kind, step.options, samples),
                onnx={"onnx": self._onnx(onnx.path)[0]},
                samples=sample_files(samples, self.state) if samples else None,
                source=onnx.label,
                script=None,
                files={},
                digest=self._inputs.digest,
            )

        context = OnnxContext(
            self.state, self.digest_cache, self._onnx_python, None, lambda: False, self._say
        )
        receipt, label = make_onnx(spec(), context).receipt, self.state.relative(target)
        facts = receipt.details.get("facts")
        details = {"file": label, "kind": step.kind, "source": onnx.label, "facts": facts}
        return _MadeStep(target, label, spec, receipt, details)


def sample_files(samples: Samples, state: StateFolder) -> SampleFiles:
    """A set of samples on disk. Raises RecipeError."""
    place = Path(samples.where).absolute()
    label, fields = state.relative(place), samples.key_fields()
    if samples.function:
        return SampleFiles("reader", place, label, [place, *map(Path, samples.files)], fields, place.name)
    if place.is_dir():
        files = sorted([*place.glob("*.npy"), *place.glob("*/*.npy")], key=str)
        return SampleFiles("npy", place, f"{label}/", files, fields, place.name)
    if place.suffix != ".npz":
        raise RecipeError(f"{label}: give a .npz, a folder of .npy, or 'reader.py:function'")
    return SampleFiles("npz", place, label, [place], fields, place.name)
