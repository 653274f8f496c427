"""Fills the job of a compile (its fields: worker/trt/job.py), and makes the folder of its model."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ..artifact.state_folder import StateFolder
from ..errors import PublishError
from ..files.digest_cache import DigestCache
from ..files.writing import cause, new_file, remove_tree, unlink_link
from ..hardware.probe_host import CUDA_VARIABLES
from ..hardware.runtime import Runtime
from ..recipe.key_ingredients import input_name
from ..recipe.options import Recipe
from ..worker.trt.job import BuildOptions, CalibrationJob, CompileJob
from .calibration_cache import cache_of, read_cache
from .engine_spec import EngineSpec
from .inputs_held_open import Pinned, changed, links_to
from .kernel_pinning import Recording, beside, pinned_kernels


def make_job(
    spec: EngineSpec,
    state: StateFolder,
    runtime: Runtime,
    environment: Mapping[str, str],
    model: Path,
    partial: Path,
    pinned: Pinned,
    recording: Recording | None = None,
) -> CompileJob:
    """The job of the worker. model, pinned: of `linked_model`; partial: the file to write; recording: of
    kernels, for `timing_cache=`. Raises CalibrationCacheError, and as `pinned_kernels`."""
    signature = spec.hardware.signature
    return CompileJob(
        python=runtime.python,
        environment=gpu_choice(environment) if is_tensorrt(spec) else {},
        product=signature.product,
        runtime_version=signature.runtime_version,
        package_folder=runtime.folder,
        library_path=environment.get("LD_LIBRARY_PATH"),
        hardware=signature.to_json(),
        architectures=list(signature.architectures or ()),
        plugins=pinned.plugins,
        folder=str(model.parent),
        onnx=model.name,
        input_bytes=sum(path.stat().st_size for path in (spec.onnx, *spec.external.values())),
        output=str(partial),
        timing_cache=_timing_cache(spec, state),
        recipe=_options(spec.recipe),
        calibration=_calibration(spec, state, model),
        pinned=pinned_kernels(spec, state, model, recording),
    )


def _options(recipe: Recipe) -> BuildOptions:
    return BuildOptions(
        precision=recipe.precision,
        workspace_mb=recipe.workspace_mb,
        flags=list(recipe.flags),
        profiles=[{name: [*map(list, b)] for name, b in p.items()} for p in recipe.profiles],
        memory_pools=dict(recipe.memory_pools),
        settings=dict(recipe.settings),
        strongly_typed=recipe.strongly_typed,
    )


def gpu_choice(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that choose the GPU, so that the worker uses the GPU that was probed."""
    return {name: environment[name] for name in CUDA_VARIABLES if name in environment}


def _timing_cache(spec: EngineSpec, state: StateFolder) -> str | None:
    """One for each full signature. RTX times no kernels, and a timing cache makes it look for a GPU."""
    if not is_tensorrt(spec) or "DISABLE_TIMING_CACHE" in spec.recipe.flags:
        return None
    fields = json.dumps(spec.hardware.signature.key_fields(), sort_keys=True)
    name = hashlib.sha256(fields.encode()).hexdigest()[:16]
    return str(state.root / "timing" / f"{name}.cache")


def _calibration(spec: EngineSpec, state: StateFolder, model: Path) -> CalibrationJob | None:
    if spec.samples is None or spec.recipe.calibrator is None:
        return None
    cache = cache_of(spec, state)
    known = read_cache(cache, state.relative(cache))
    return CalibrationJob(
        method=spec.recipe.calibrator,
        samples=str(_samples_beside(model)),
        cache=str(cache),
        known=None if known is None else known.hex(),
    )


def is_tensorrt(spec: EngineSpec) -> bool:
    """Whether the product is TensorRT, which times kernels on a GPU; TensorRT for RTX compiles on a CPU."""
    return spec.hardware.signature.product == "tensorrt"


@contextlib.contextmanager
def linked_model(
    spec: EngineSpec, state: StateFolder, digest_cache: DigestCache | None, copy: bool = False
) -> Iterator[tuple[Path, Pinned]]:
    """A folder with the model under a constant name and its external data: the model's path there, and the
    pinned inputs.

    The constant name matters because the parser writes it into the engine. copy: copy the inputs instead of
    linking them. Raises EngineBuildError if an input changed since it was hashed, and PublishError.
    """
    folder = state.partial(spec.engine) / "model"
    plugins = folder.with_name("plugins")
    with contextlib.ExitStack() as stack:
        stack.callback(remove_tree, folder)
        stack.callback(remove_tree, plugins)
        try:
            for each in (folder, plugins):
                unlink_link(each)
                remove_tree(each)
            folder.mkdir(parents=True)
            model, places = _places(spec, folder)
            libraries = plugin_places(spec, plugins)
            pinned = stack.enter_context(
                links_to(places, libraries, spec.ingredients, digest_cache, "compiled", copy)
            )
        except FileNotFoundError as error:
            raise changed(Path(error.filename or spec.onnx), "compiled") from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise PublishError(f"{spec.source}: {error.strerror}; raise `ulimit -n`") from None
            where, step = state.relative(error.filename or state.root), "make the state folder writable"
            raise PublishError(f"{where}: {cause(error, step)}") from None
        yield model, pinned


def plugin_places(spec: EngineSpec, folder: Path) -> dict[str, tuple[Path, Path]]:
    """By ingredient name, each plugin and the place of its copy."""
    return {input_name("plugin", path.name): (path, folder / path.name) for path in spec.recipe.plugins}


def _places(spec: EngineSpec, folder: Path) -> tuple[Path, dict[str, tuple[Path, Path]]]:
    """The linked model, and by ingredient name each input and the place of its link."""
    taken = {PurePosixPath(location).parts[0] for location in spec.external}
    model = folder / "model.onnx"
    while taken & {model.name, _samples_beside(model).name, *beside(model)}:
        model = folder / f"_{model.name}"
    places: dict[str, tuple[Path, Path]] = {input_name("onnx"): (spec.onnx, model)}
    if spec.samples:
        name = input_name("samples", spec.samples.name)
        places[name] = spec.samples, _samples_beside(model)
    spelled = set()
    for location, path in spec.external.items():
        link = folder / location
        if os.path.normpath(link) not in spelled:  # two locations may be one file
            spelled.add(os.path.normpath(link))
            places[input_name("data", location)] = path, link
    return model, places


def _samples_beside(model: Path) -> Path:
    return model.with_name(f"{model.name}.samples")


def fresh_log(log: Path) -> None:
    """Create an empty log. Raises PublishError."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        new_file(log).close()
    except OSError as error:
        raise PublishError(f"{log}: {cause(error, 'make the state folder writable')}") from None
