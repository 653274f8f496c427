"""What a worker is told, and the folder it finds the model in."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..artifact.state import StateFolder
from ..errors import PublishError
from ..files.digest_cache import DigestCache
from ..files.writing import cause, new_file, remove_tree, unlink_link
from ..hardware.host import CUDA_VARIABLES
from ..hardware.runtime import Runtime
from ..recipe.key import input_name
from .calibration import cache_of, read_cache
from .pinned_inputs import Pinned, changed, links_to
from .spec import EngineSpec


def make_job(
    spec: EngineSpec,
    state: StateFolder,
    runtime: Runtime,
    environment: Mapping[str, str],
    model: Path,
    partial: Path,
    pinned: Pinned,
) -> dict[str, Any]:
    """The worker's spec: JSON, every path absolute.

    model: the linked model, see `linked_model`, and its `pinned` inputs; partial: where the engine is
    written to. Raises CalibrationCacheError.
    """
    signature = spec.hardware.signature
    return {
        "python": runtime.python,
        "product": signature.product,
        "runtime_version": signature.runtime_version,
        "package_folder": runtime.folder,
        "library_path": environment.get("LD_LIBRARY_PATH"),
        "environment": gpu_choice(environment) if is_tensorrt(spec) else {},
        "timing_cache": _timing_cache(spec, state),
        "calibration": _calibration(spec, state, model),
        "input_bytes": sum(path.stat().st_size for path in (spec.onnx, *spec.external.values())),
        "folder": str(model.parent),
        "onnx": model.name,
        "output": str(partial),
        "architectures": list(signature.architectures or ()),
        "recipe": spec.recipe.to_json(),
        "plugins": pinned.plugins,
        "hardware": signature.to_json(),
    }


def gpu_choice(environment: Mapping[str, str]) -> dict[str, str]:
    """What chooses the GPU must reach the worker, or it compiles on another than was probed."""
    return {name: environment[name] for name in CUDA_VARIABLES if name in environment}


def _timing_cache(spec: EngineSpec, state: StateFolder) -> str | None:
    """One for each full signature; RTX times nothing, and one would make it look for a GPU."""
    if not is_tensorrt(spec) or "DISABLE_TIMING_CACHE" in spec.recipe.flags:
        return None
    fields = json.dumps(spec.hardware.signature.key_fields(), sort_keys=True)
    name = hashlib.sha256(fields.encode()).hexdigest()[:16]
    return str(state.root / "timing" / f"{name}.cache")


def _calibration(spec: EngineSpec, state: StateFolder, model: Path) -> dict[str, Any] | None:
    """known: the bytes of the cache, vouched for, as hex; None where the worker shall calibrate."""
    if spec.samples is None:
        return None
    cache = cache_of(spec, state)
    known = read_cache(cache, state.relative(cache))
    return {
        "method": spec.recipe.calibrator,
        "samples": str(_samples_beside(model)),
        "cache": str(cache),
        "known": None if known is None else known.hex(),
    }


def is_tensorrt(spec: EngineSpec) -> bool:
    """Whether the product that times kernels on a GPU makes it; the other compiles on a CPU."""
    return spec.hardware.signature.product == "tensorrt"


@contextlib.contextmanager
def linked_model(
    spec: EngineSpec, state: StateFolder, digest_cache: DigestCache | None, copy: bool = False
) -> Iterator[tuple[Path, Pinned]]:
    """The model's path under a constant name, its external data where it expects them; and the
    inputs behind the links, see `pinned`. copy: copies, not links.

    The parser keeps the model's basename, and that reaches the engine's bytes. Raises EngineBuildError
    where an input has other bytes than `wanted` says, and PublishError.
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
    """By ingredient name, each plugin and the place of a copy of it."""
    return {input_name("plugin", path.name): (path, folder / path.name) for path in spec.recipe.plugins}


def _places(spec: EngineSpec, folder: Path) -> tuple[Path, dict[str, tuple[Path, Path]]]:
    """The linked model, and for each input the file and the place of its link."""
    taken = {PurePosixPath(location).parts[0] for location in spec.external}
    model = folder / "model.onnx"
    while taken & {model.name, _samples_beside(model).name}:
        model = folder / f"_{model.name}"
    places: dict[str, tuple[Path, Path]] = {input_name("onnx"): (spec.onnx, model)}
    if spec.samples:
        name = input_name("samples", spec.samples.name)
        places[name] = spec.samples, _samples_beside(model)
    spelled = set()
    for location, path in spec.external.items():
        link = folder / location
        if os.path.normpath(link) not in spelled:  # else two spellings of one location
            spelled.add(os.path.normpath(link))
            places[input_name("data", location)] = path, link
    return model, places


def _samples_beside(model: Path) -> Path:
    return model.with_name(f"{model.name}.samples")


def fresh_log(log: Path) -> None:
    """An empty log. Raises PublishError."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        new_file(log).close()
    except OSError as error:
        raise PublishError(f"{log}: {cause(error, 'make the state folder writable')}") from None
