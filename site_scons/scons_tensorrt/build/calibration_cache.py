"""The calibration cache of TensorRT 10's calibrators: its path, and reading it.

There is one file for each model, sample set, method, runtime and hardware. The cache determines the engine's
numbers, so it is used only if it matches its sidecar. If it does not, it is not overwritten: the user must
decide which of the two is right.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..artifact.cache_key import make_key
from ..artifact.sidecar import MISMATCH, read_sidecar, sidecar_of
from ..artifact.state_folder import StateFolder
from ..errors import CalibrationCacheError, SidecarError
from ..files.reading import read_small
from .engine_spec import EngineSpec

LARGEST = 64 << 20  # bytes; a cache has some twenty for each tensor
# The ingredients of an engine that a calibration depends on.
_OF = ("input ", "hardware ", "recipe version", "option calibrator")


def cache_of(spec: EngineSpec, state: StateFolder) -> Path:
    """The path of the cache for an engine."""
    fields = {name: text for name, text in spec.ingredients.items() if name.startswith(_OF)}
    digest = make_key("calibration", fields)[:16]
    return state.calibration / f"{spec.recipe.model}.{digest}.cache"


def read_cache(cache: Path, label: str) -> bytes | None:
    """The bytes of the cache; None if there is none. label: its name in messages. Raises
    CalibrationCacheError if it does not match its sidecar."""
    try:
        data = read_small(cache, LARGEST)
        stated = read_sidecar(cache)
    except FileNotFoundError:
        return None
    except OSError as error:
        fault = f"not readable ({error.strerror})"
    except SidecarError as error:
        fault = str(error).removeprefix(f"{sidecar_of(cache)}: ")
    else:
        if hashlib.sha256(data).hexdigest() == stated:
            return data
        fault = MISMATCH
    raise CalibrationCacheError(
        f"calibration cache {label}: {fault}; restore the two files, or remove both to calibrate again"
    )
