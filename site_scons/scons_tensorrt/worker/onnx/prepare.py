"""Rewrites an ONNX that TensorRT refuses into one that it compiles and that computes the same.

The rewrites are in the modules rewrite_*.py; each returns what it changed, for the report, and is called in
`_rewritten`. The result is compared with the original in ONNX Runtime (prepare_proof.py) before it is used.

This runs only if `node_patterns.py` or `needs_preparation.py` in recipe/onnx/ found something to rewrite. Add
a new pattern there first.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import ModelProto

from scons_tensorrt.worker.onnx import (
    fix_and_freeze_inputs,
    graph_walk,
    infer_shapes,
    model_file,
    prepare_proof,
    proof_inputs,
    rewrite_axes,
    rewrite_fold,
    rewrite_integer,
    tensor_values,
)

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
    """changes: short phrases, such as "axes of 2 Squeeze", and what could not be compared; empty if the
    source was copied; outputs: what was compared, by output: `error` (largest absolute difference) and
    `bound`."""

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
    values = tensor_values.TensorValues(source)
    model = _loaded(source, values)
    frozen = fix_and_freeze_inputs.frozen_values(model, request.freeze)
    rewritten = _rewritten(model, request, frozen, values)
    if rewritten is None:
        _copy(source, target, values.external)
        return PrepareResult((), {})
    points = proof_inputs.points(rewritten.model, request.profiles, request.samples)
    values.write(rewritten.model, target, "")
    proof = prepare_proof.prove(source, target, points, frozen, rewritten.proof)
    unproven = ["output `%s` not compared, as it is never finite" % name for name in proof.never_finite]
    return PrepareResult((*rewritten.changes, *unproven), proof.outputs)


def _loaded(source: str, values: tensor_values.TensorValues) -> ModelProto:
    """The model as the rewrites need it: without local functions and large values, each tensor with a name
    of its own."""
    model = model_file.load_model(source)
    values.find_external(model)
    if model.functions:
        model = model_file.inlined(model)
    graph_walk.make_names_unique(model.graph, set(), {})
    return values.take(model)


def _copy(source: str, target: str, external: bool) -> None:
    if external:
        model = model_file.load_model(source)
        model_file.load_external(model, source)
        model_file.save_model(model, target, external=True)
    else:
        shutil.copyfile(source, target)


class _Rewritten(NamedTuple):
    model: ModelProto
    changes: tuple[str, ...]
    proof: prepare_proof.Allowed


def _rewritten(
    model: ModelProto,
    request: PrepareRequest,
    frozen: Mapping[str, np.ndarray],
    values: tensor_values.TensorValues,
) -> _Rewritten | None:
    """The model after every rewrite; None if nothing is frozen and nothing in it is refused."""
    folding = bool(frozen) or rewrite_fold.has_refused_if(model)
    frozen_phrase = fix_and_freeze_inputs.freeze(model, frozen)
    names = fix_and_freeze_inputs.name_dimensions(model, request.profiles)
    squeezes = bool(rewrite_axes.refused(model, request.profiles))  # before sizes are fixed
    fixed = fix_and_freeze_inputs.fix_dimensions(model, request.profiles)
    model, integer = rewrite_integer.rewrite(model, values)
    folds: list[str] = []
    if folding:
        model, folds = rewrite_fold.simplify(model)
    axes = rewrite_axes.write_axes(model, request.profiles)
    infer_shapes.clear_inferred(model)
    if not (folding or names or integer or axes or (squeezes and fixed)):
        return None
    changes = [frozen_phrase, names, fixed, *integer, *folds, axes]
    allowed = prepare_proof.Allowed(rounding=bool(integer), kept_ones=axes is not None)
    return _Rewritten(model, tuple(phrase for phrase in changes if phrase), allowed)
