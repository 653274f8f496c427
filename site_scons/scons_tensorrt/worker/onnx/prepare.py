"""Rewrites an ONNX that TensorRT refuses into one that it compiles and that computes the same.

Each rewrite is a function of a module prepare_*.py, which returns a phrase of what it did or None. The
result is compared with the original in ONNX Runtime (prepare_proof.py) before it is used.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from scons_tensorrt.worker.onnx import model_file, prepare_inputs

if TYPE_CHECKING:
    Shape = tuple[int, ...]
    Profile = Mapping[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True)
class PrepareRequest:
    """profiles: of the recipe, by input (min, opt, max); freeze: values of inputs that become constants:
    numbers, or nested lists of them; samples: as `samples.read` takes them, None for random inputs;
    temporary: a folder."""

    temporary: str
    profiles: tuple[Profile, ...] = ()
    freeze: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PrepareResult:
    """changes: short phrases, such as "axes of 2 Squeeze"; empty if the source was copied; outputs: what
    was compared, by output: `error` (largest absolute difference) and `bound`."""

    changes: tuple[str, ...]
    outputs: Mapping[str, Mapping[str, float]]


def read_request(
    profiles: Sequence[Mapping[str, Any]],
    freeze: Mapping[str, Any],
    samples: Mapping[str, Any] | None,
    temporary: str,
) -> PrepareRequest:
    """The request that a job describes: the same, with lists for tuples."""
    made = tuple(
        {name: (tuple(low), tuple(usual), tuple(high)) for name, (low, usual, high) in profile.items()}
        for profile in profiles
    )
    return PrepareRequest(temporary, made, freeze, samples)


def prepare(source: str, target: str, request: PrepareRequest) -> PrepareResult:
    """Write what TensorRT can compile of the ONNX at `source` to `target`, its external data to
    `target`.data if the source has some or 2 GiB are not enough. A model that needs no change is copied.

    Raises WorkerError: for a value to freeze that does not fit, and for a result that differs from the
    original.
    """
    model = model_file.load_model(source)
    external = model_file.load_external(model, source)
    changes = _rewrite(model, request)
    if not changes and not external:
        shutil.copyfile(source, target)
        return PrepareResult((), {})
    model_file.save_model(model, target, external)
    return PrepareResult(tuple(changes), {})


def _rewrite(model: ModelProto, request: PrepareRequest) -> Sequence[str]:
    """Apply every rewrite to the model; return the phrases of those that changed it."""
    found = [
        prepare_inputs.freeze(model, request.freeze),
        prepare_inputs.name_dimensions(model, request.profiles),
        prepare_inputs.fix_dimensions(model, request.profiles),
    ]
    return [phrase for phrase in found if phrase]
