"""The cache of TensorRT 10's calibrators: which one, and is it whole?

One file for each model, set of samples, method, runtime and hardware, so that other data are another
file. It decides an engine's numbers: it is not believed without its sidecar, and whatever is wrong
with it, it is never overwritten, because only people can tell which of the two is right.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..artifact.receipt import make_key
from ..artifact.sidecar import MISMATCH, read_sidecar, sidecar_of
from ..artifact.state import StateFolder
from ..errors import CalibrationCacheError, SidecarError
from ..files.reading import read_small
from .spec import EngineSpec

LARGEST = 64 << 20  # bytes; a cache has some twenty for each tensor
# Of an engine's ingredients those that a calibration is made of.
_OF = ("input ", "hardware ", "recipe version", "option calibrator")


def cache_of(spec: EngineSpec, state: StateFolder) -> Path:
    """Where the cache for an engine is, or will be."""
    fields = {name: text for name, text in spec.ingredients.items() if name.startswith(_OF)}
    digest = make_key("calibration", fields)[:16]
    return state.calibration / f"{spec.recipe.model}.{digest}.cache"


def read_cache(cache: Path, label: str) -> bytes | None:
    """The bytes of a cache that its sidecar vouches for; None where there is no cache.

    label: what people call it. Raises CalibrationCacheError.
    """
    try:
        data = read_small(cache, LARGEST)
        stated = read_sidecar(cache)
    except FileNotFoundError:
        return None
    except OSError as error:
        fault = f"it cannot be read ({error.strerror})"
    except SidecarError as error:
        fault = str(error).removeprefix(f"{sidecar_of(cache)}: ")
    else:
        if hashlib.sha256(data).hexdigest() == stated:
            return data
        fault = MISMATCH
    raise CalibrationCacheError(
        f"calibration cache {label}: {fault}; restore the two files, or remove both to calibrate again"
    )
